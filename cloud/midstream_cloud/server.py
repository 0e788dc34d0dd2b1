"""Starting, draining and stopping a server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from midstream_cloud import health
from midstream_cloud.budget import Budget, memory_budget, resident
from midstream_cloud.health import Health
from midstream_cloud.repository import Repository
from midstream_cloud.service import SERVICE, Midstream, RequireToken, handlers
from midstream_cloud.session import Limits, Service
from midstream_cloud.statistics import Statistics
from midstream_cloud.tails import Tails
from midstream_cloud.tidying import FIRST_S, Tidying
from midstream_partitioner.lifeline import heeded
from midstream_partitioner.machine import allow_descriptors, usable_cores, usable_descriptors
from midstream_wire.address import Address, parse_address
from midstream_wire.allocator import keep_freed_memory
from midstream_wire.credentials import require_safe
from midstream_wire.errors import UsageError
from midstream_wire.frames import Code, Status
from midstream_wire.limits import MAX_MESSAGE_NBYTES, MIB

#: The largest request's share of the budget, decoded: encoded it may take as much again.
_LARGEST = 0.45

#: Calls at a time that a server takes however little memory it has.
_LEAST_CALLS = 64

#: Descriptors that the process needs beside connections: models, logs, pipes, libraries.
_OWN_DESCRIPTORS = 128

#: Calls at a time that the event loop has not taken up yet: so many edges may come at once.
MAX_PENDING = 1024

#: Connections at a time, where the process may have more descriptors than that.
MAX_CONNECTIONS = 4096

_STOPPING = Status(
    Code.UNAVAILABLE, "the server is stopping: connect again later, or to another one"
)

#: bdp_probe=0 is ruinous without lookahead_bytes; with it, 1 MB at 20 Mbit/s and 200 ms RTT
#: takes 623 instead of 840 ms. Clients of other makes may send HTTP/2 pings as often as they
#: like, which the default settings punish by closing the connection.
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a taken port must be an error, not a share of its calls
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * MIB),
    ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 300),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 300),
    ("grpc.http2.max_ping_strikes", 0),
    # With all their headers: a peer that reset its calls at once filled 800 MB with 3000.
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
    ("grpc.keepalive_permit_without_calls", 1),
    # An edge that vanished without a word is noticed, and its session freed, after a minute.
    # Sooner would close slow links: a ping waits behind what is being sent, and 1.5 MB take
    # 24 s at 0.5 Mbit/s.
    ("grpc.keepalive_time_ms", 20_000),
    # A connection on which nothing is said is closed: it costs a descriptor.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 40_000),
)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server.

    `workers` None means one per processor; `memory_nbytes`, what the whole process may take,
    None means a share of what the container or the machine lets it have. A request may take
    `max_work_s` of a worker, as predicted; None means four times the longest tail of its
    model that was measured, and at least a second.
    """

    credentials: grpc.ServerCredentials | None = None
    token: str | None = None
    insecure: bool = False
    workers: int | None = None
    max_queued: int = 64
    max_work_s: float | None = None
    max_calls: int = 1024
    memory_nbytes: int | None = None
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 10.0


@final
class Server:
    """A gRPC server over a repository; lives in one event loop."""

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        *,
        statistics: Statistics | None = None,
    ) -> None:
        """Raises `UsageError` when the memory allowed is no more than the networks take."""
        self._settings = settings
        statistics = statistics or Statistics()
        self._repository = repository
        workers = settings.workers or usable_cores()
        self._tails = Tails(
            workers=workers,
            max_queued=settings.max_queued,
            max_work_s=settings.max_work_s,
        )
        self._tidying: asyncio.Task[None] | None = None
        self._budget = budget = Budget(memory_budget(settings.memory_nbytes))
        # Nothing that the budget cannot hold, encoded and decoded, is asked for.
        most_nbytes = min(settings.limits.max_request_nbytes, int(_LARGEST * budget.nbytes))
        limits = replace(settings.limits, max_request_nbytes=most_nbytes)
        name = f"midstream {importlib.metadata.version('midstream')}"
        service = Service(name, repository, self._tails, budget, limits, statistics=statistics)
        self._midstream = Midstream(service)
        self._health = Health(("", SERVICE), statistics)
        interceptors = [RequireToken(settings.token, statistics)] if settings.token else []
        # Of each call gRPC may hold a message that is not complete yet.
        calls = min(settings.max_calls, max(_LEAST_CALLS, budget.nbytes // MAX_MESSAGE_NBYTES))
        self._grpc = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_allowed_incoming_connections", _connections())),
            interceptors=interceptors,
            maximum_concurrent_rpcs=calls,
        )
        self._grpc.add_generic_rpc_handlers((handlers(self._midstream),))
        self._grpc.add_generic_rpc_handlers((self._health.handlers(),))
        names = (SERVICE, health.NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)

    async def start(self, address: Address) -> Address:
        """Listen; returns the address with the port that port 0 became. `UsageError`."""
        settings = self._settings
        require_safe(
            address,
            tls=settings.credentials is not None,
            token=settings.token is not None,
            insecure=settings.insecure,
        )
        if address.port is None:
            clear_socket(Path(address.host))
        try:
            if settings.credentials is None:
                port = self._grpc.add_insecure_port(address.target)
            else:
                port = self._grpc.add_secure_port(address.target, settings.credentials)
        except RuntimeError:
            raise UsageError(
                f"the server must be able to listen on {address}: give an address of this "
                "machine and a port that nothing else uses (0 for any)"
            ) from None
        await self._grpc.start()
        self._health.tell(serving=True)
        self._tidying = asyncio.create_task(self._keep_tidy())
        return address.with_port(port)

    async def _keep_tidy(self) -> None:
        """Give memory back that was taken for more than what is under way."""
        tidying = Tidying(resident())
        while True:
            await asyncio.sleep(FIRST_S)
            if tidying.is_due(time.monotonic(), resident(), self._budget.taken_nbytes):
                tidied = self._tails.tidy()
                if tidied is not None:
                    await asyncio.wrap_future(tidied)
                tidying.note(time.monotonic(), resident())

    async def stop(self) -> None:
        """Refuse what is new, finish what is under way for at most `drain_s`, close."""
        self._health.tell(serving=False)
        if self._tidying is not None:
            self._tidying.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._midstream.drain(_STOPPING), self._settings.drain_s)
        await self._grpc.stop(grace=0.5)
        self._tails.close()
        self._repository.close()


def _connections() -> int:
    """Return how many connections are accepted at a time: some descriptors are left over."""
    found = usable_descriptors()
    return min(MAX_CONNECTIONS, max(1, found - _OWN_DESCRIPTORS)) if found else MAX_CONNECTIONS


def clear_socket(path: Path) -> None:
    """Remove a socket that a server has left at `path`.

    Raises `UsageError` where one listens on it, or something else is in its place: gRPC would
    take either over without a word.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # nothing is there, or gRPC will say what is wrong
        return
    if not is_socket:
        raise UsageError(
            f"a server must listen on a socket of its own (not {path}, which is something "
            "else): name another path"
        )
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:  # full, slow, or not ours to ask: somebody has it
            pass
    raise UsageError(
        f"a server must listen on a socket that no other has (not {path}): stop that one, or "
        "name another path"
    )


async def serve(
    repository: Repository,
    address: str,
    *,
    settings: Settings | None = None,
    statistics: Statistics | None = None,
    stopping: asyncio.Event,
    on_start: Callable[[Address], None] = lambda _: None,
) -> None:
    """Serve until `stopping` is set, then drain. `on_start` is told where it listens."""
    server = Server(repository, settings or Settings(), statistics=statistics)
    bound = await server.start(parse_address(address))
    on_start(bound)
    try:
        await stopping.wait()
    finally:
        await server.stop()


def run(
    repository: Repository,
    address: str,
    *,
    settings: Settings | None = None,
    statistics: Statistics | None = None,
    on_start: Callable[[Address], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, drain, return. For a process of its own."""

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in heeded():
            loop.add_signal_handler(number, stopping.set)
        await serve(
            repository,
            address,
            settings=settings,
            statistics=statistics,
            stopping=stopping,
            on_start=on_start,
        )

    allow_descriptors()
    keep_freed_memory()
    asyncio.run(main())


@contextlib.contextmanager
def serving(
    repository: Repository,
    address: str = "127.0.0.1:0",
    *,
    settings: Settings | None = None,
    statistics: Statistics | None = None,
) -> Iterator[Address]:
    """Serve in a thread of this process, for programs that hold both sides, and tests."""
    bound: Future[Address] = Future()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    serves = serve(
        repository,
        address,
        settings=settings,
        statistics=statistics,
        stopping=stopping,
        on_start=bound.set_result,
    )

    def work() -> None:
        with contextlib.closing(loop):
            try:
                loop.run_until_complete(serves)
            except BaseException as error:
                if bound.done():
                    raise
                bound.set_exception(error)

    thread = threading.Thread(target=work, name="midstream-cloud")
    thread.start()
    try:
        where = bound.result()
        try:
            yield where
        finally:
            loop.call_soon_threadsafe(stopping.set)
    finally:
        thread.join()
