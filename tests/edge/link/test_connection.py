"""A connection over links that go dark, break and come back."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import pytest

from midstream_cloud.server import Settings
from midstream_cloud.service import SERVICE
from midstream_cloud.session import Limits
from midstream_edge.link import connection as connection_module
from midstream_edge.link import failure_detector
from midstream_edge.link import monitored_stream as strand_module
from midstream_edge.link import streams as strands_module
from midstream_edge.link.channel import Stream
from midstream_edge.link.connection import Connection
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.failure_detector import Overdue
from midstream_edge.link.monitored_stream import MonitoredStream
from midstream_lab.emulation.proxy.proxy import ProxyThread
from midstream_lab.traces.conditions import condition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.address import parse_address
from midstream_wire.errors import CloudUnavailable, DeadlineExceeded, PeerError
from midstream_wire.frames import Hello, Ping, Pong, Welcome
from midstream_wire.limits import MIN_KEEPALIVE_S
from midstream_wire.messages import read_client, write_server

if TYPE_CHECKING:
    from tests.edge.conftest import Serve

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it")

#: Long waits end early; they are this long so that a busy machine is no excuse.
PATIENCE_S = 20.0


@pytest.fixture
def proxy(server: str) -> Iterator[ProxyThread]:
    """A fast link; a slow one where a test says so."""
    target = parse_address(server)
    assert target.port is not None
    with ProxyThread((target.host, target.port), condition("50Mbit:10ms")) as proxy:
        yield proxy


class Downs:
    """Whom `on_down` has told of what."""

    def __init__(self) -> None:
        self.told: list[tuple[Stream, PeerError]] = []
        self._changed = threading.Condition()

    def __call__(self, stream: Stream, error: PeerError) -> None:
        with self._changed:
            self.told.append((stream, error))
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.told) >= count, PATIENCE_S)

    def changed_within(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.told), timeout_s)


@pytest.fixture
def downs() -> Downs:
    return Downs()


@pytest.fixture
def connect(small: Partition, proxy: ProxyThread, downs: Downs) -> Iterator[Connection]:
    host, port = proxy.address
    with connected(f"{host}:{port}", small, downs) as connection:
        assert connection.wait(PATIENCE_S) is None
        yield connection


@contextmanager
def connected(server: str, part: Partition, downs: Downs) -> Iterator[Connection]:
    connection = Connection(
        Endpoint.of(server),
        Hello("small", part.digest),
        on_frame=lambda stream, frame: None,
        on_down=downs,
    )
    try:
        yield connection
    finally:
        connection.close(PATIENCE_S)


def is_suspect(connection: Connection) -> bool:
    """Use the connection until it is suspect, as requests would; whether it came to be."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        stream = connection.stream
        if stream is None:
            return connection.state == "suspect"
        with pytest.raises(DeadlineExceeded):
            connection.ping(0, 0, 0.02)
    return False


def test_a_dark_link_is_suspect_by_its_signs_and_its_stream_lives_on_when_it_returns(
    connect: Connection, proxy: ProxyThread, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request has to miss its answer first; how soon, `test_failure_detector` shows."""
    monkeypatch.setattr(failure_detector, "SUSPECT_S", 60.0)
    first = connect.stream
    proxy.black_hole()
    assert is_suspect(connect)
    assert (connect.state, connect.stream) == ("suspect", None)
    present = connect._streams.present
    assert present is not None
    assert present.detector.overdue in (Overdue.ACK, Overdue.WINDOW, Overdue.PONG)
    proxy.restore()
    assert connect.wait_up(PATIENCE_S)
    # Whoever spoke first is used; what lost is reported, and nothing else.
    assert downs.told == [] if connect.stream is first else downs.wait_for(1)
    assert all(stream is first for stream, _ in downs.told)


def test_a_link_that_stays_dark_is_given_up_once_and_a_fresh_channel_takes_over(
    connect: Connection, proxy: ProxyThread, downs: Downs
) -> None:
    first = connect.stream
    assert first is not None
    proxy.black_hole()
    assert is_suspect(connect)
    assert downs.wait_for(1)  # after three seconds
    assert connect.state == "down"
    tried = connect._streams.trials
    proxy.restore()
    assert connect.wait_up(PATIENCE_S)
    # It was on its way already, or a handshake was answered: not for want of anything better.
    present = connect._streams.present
    assert present in tried or (present and present.tried)
    second = connect.stream
    assert second is not None
    assert second is not first
    assert connect.ping(0, 0, PATIENCE_S).delay_s > 0.0
    assert connect.welcomes == 2
    assert [stream for stream, _ in downs.told] == [first]
    assert first.tcp_info() is None


def test_a_reset_is_mended_on_a_fresh_channel(
    connect: Connection, proxy: ProxyThread, downs: Downs
) -> None:
    for count in range(1, 4):
        before = connect.stream
        proxy.reset_all()
        assert downs.wait_for(count)
        assert downs.told[-1][0] is before
        assert connect.wait_up(PATIENCE_S)
        assert connect.welcomes == count + 1


def test_refusals_are_answered_with_new_attempts_until_one_is_welcomed(
    connect: Connection, proxy: ProxyThread, downs: Downs
) -> None:
    proxy.refuse()
    proxy.reset_all()
    assert downs.wait_for(1)
    assert connect.state == "down"
    with pytest.raises(PeerError):
        connect.ping(0, 0, 1.0)
    proxy.restore()
    assert connect.wait_up(PATIENCE_S)
    assert connect.clock.best is not None or connect.ping(0, 0, PATIENCE_S)


def test_a_slow_link_that_is_busy_is_not_suspect(
    connect: Connection, proxy: ProxyThread, downs: Downs
) -> None:
    proxy.set(condition("2Mbit:10ms"))
    began_s = time.monotonic()
    connect.ping(200_000, 0, PATIENCE_S)  # 0.8 s
    assert time.monotonic() - began_s > 0.5
    connect.doubt(began_s)
    assert (connect.state, downs.told) == ("connected", [])


def test_what_was_heard_since_the_last_look_answers_a_doubt() -> None:
    monitored = MonitoredStream(0.0, tried=False)
    monitored.stream = cast(Stream, SimpleNamespace(send_background=lambda frames: None))
    monitored.heard_s = 5.0
    monitored.doubt(6.0, since_s=4.0)
    assert monitored.detector.overdue is None
    monitored.doubt(6.0, since_s=5.5)
    assert monitored.detector.overdue is Overdue.ANSWER


@pytest.mark.usefixtures("steady_link")
def test_a_doubt_after_a_sign_of_life_changes_nothing(connect: Connection) -> None:
    asked_s = time.monotonic()
    connect.ping(0, 0, PATIENCE_S)
    connect.doubt(asked_s)
    assert connect.state == "connected"


@linux
def test_what_is_acknowledged_is_counted(connect: Connection) -> None:
    connect.ping(0, 0, PATIENCE_S)
    stream = connect.stream
    assert stream is not None
    before = stream.tcp_info()
    assert before is not None
    connect.ping(100_000, 0, PATIENCE_S)
    info = stream.tcp_info()
    assert info is not None
    assert 100_000 <= info.acked_nbytes - before.acked_nbytes < 120_000
    assert not info.outstanding
    best = connect.clock.best
    assert best is not None
    assert best.delay_s > 0.009  # TCP ends at the proxy, and would say less


def test_exchanges_without_padding_are_kept_until_taken(connect: Connection) -> None:
    connect.ping(0, 0, PATIENCE_S)
    connect.ping(1000, 0, PATIENCE_S)
    taken = connect.take_exchanges()
    assert taken
    assert all(exchange.delay_s >= 0.009 for exchange in taken)
    assert connect.take_exchanges() == ()


@linux
def test_what_was_given_up_does_not_wait_in_the_kernel(
    connect: Connection, proxy: ProxyThread
) -> None:
    """Of what is sent on a link that has gone dark, most stays where it can be dropped."""
    pulled = threading.Semaphore(0)
    count = 0

    def frames() -> Iterator[Ping]:
        nonlocal count
        for number in range(200):
            count = number + 1
            pulled.release()
            yield Ping(1 << 40, bytes(16 * 1024))

    stream = connect.stream
    assert stream is not None
    proxy.black_hole()
    stream.send(frames())
    while pulled.acquire(timeout=0.5):
        pass
    # The proxy and its sockets hold 0.4 MB, gRPC 64 KiB; without a bound, the kernel 4 MB.
    assert count < 60


def test_closing_reports_the_stream_that_was_there(
    small: Partition, server: str, downs: Downs
) -> None:
    with connected(server, small, downs) as connection:
        assert connection.wait(PATIENCE_S) is None
        stream = connection.stream
    assert [told for told, _ in downs.told] == [stream]
    assert (connection.state, connection.stream) == ("down", None)


def test_closing_while_attempts_are_under_way_is_quick(
    small: Partition, proxy: ProxyThread, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strand_module, "CONNECT_S", 60.0)  # for each attempt
    proxy.black_hole()
    host, port = proxy.address
    with connected(f"{host}:{port}", small, downs) as connection:
        end_s = time.monotonic() + PATIENCE_S
        while len(connection._streams.trials) < 2:
            assert time.monotonic() < end_s
            assert not connection.wait_up(0.05)
        connection.close(PATIENCE_S)
        assert connection._keeper is not None
        assert not connection._keeper.is_alive()
    assert downs.told == []


def test_a_channel_that_cannot_be_opened_here_is_opened_again(
    connect: Connection, proxy: ProxyThread, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [RuntimeError("can't start new thread"), MemoryError(), OSError(24, "files")]

    class Flaky(Stream):  # type: ignore[misc]  # it is final, but for a test
        def __init__(self, *args: Any, **named: Any) -> None:
            if faults:
                raise faults.pop()
            super().__init__(*args, **named)

    monkeypatch.setattr(connection_module, "Stream", Flaky)
    proxy.reset_all()
    assert downs.wait_for(1)
    assert connect.wait_up(PATIENCE_S)
    assert not faults


def test_a_fault_of_the_keepers_own_does_not_end_it(
    connect: Connection, proxy: ProxyThread, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(connect._streams, "pause_s", fail)
    proxy.reset_all()
    assert downs.wait_for(1)
    assert connect.wait_up(PATIENCE_S)


def test_without_a_thread_to_keep_it_a_connection_is_down_until_there_is_one(
    small: Partition, server: str, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", no_thread)
        connection = Connection(
            Endpoint.of(server),
            Hello("small", small.digest),
            on_frame=lambda stream, frame: None,
            on_down=downs,
        )
        assert isinstance(connection.wait(0), CloudUnavailable)
        assert connection.state == "down"
    assert connection.wait_up(PATIENCE_S)
    connection.close(PATIENCE_S)


def test_nothing_is_said_on_a_connection_that_nobody_uses(
    connect: Connection, proxy: ProxyThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strands_module, "USED_S", 0.0)
    connect.ping(0, 0, PATIENCE_S)
    connect.take_exchanges()
    threading.Event().wait(1.2)
    assert connect.take_exchanges() == ()


def test_a_connection_in_use_is_kept_awake(connect: Connection) -> None:
    connect.ping(0, 0, PATIENCE_S)
    connect.take_exchanges()
    end_s = time.monotonic() + PATIENCE_S
    while not connect.take_exchanges():
        assert time.monotonic() < end_s
        threading.Event().wait(0.05)


def test_an_idle_link_that_goes_dark_is_found_where_the_server_lets_idle_edges_ping(
    small: Partition, serve: Serve, downs: Downs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strands_module, "USED_S", 0.0)  # opening it was no use of it
    settings = Settings(limits=Limits(keepalive_s=0.1))  # less than an edge makes of it
    with serve(settings=settings) as server:
        target = parse_address(server)
        assert target.port is not None
        with (
            ProxyThread((target.host, target.port), condition("50Mbit:10ms")) as proxy,
            connected("{}:{}".format(*proxy.address), small, downs) as connection,
        ):
            assert connection.wait(PATIENCE_S) is None
            proxy.black_hole()
            assert downs.wait_for(1)  # nobody has used it


def test_a_server_that_says_nothing_of_it_is_not_pinged_while_idle() -> None:
    monitored = MonitoredStream(0.0, tried=False)
    for allowed_s, wanted_s in ((0.0, None), (1e-9, MIN_KEEPALIVE_S), (7.0, 7.0)):
        monitored.welcome = Welcome("s", 1, 1, allowed_s)
        assert monitored.keepalive_s == wanted_s


def test_a_server_with_grpcs_own_settings_lets_an_idle_stream_stand(
    small: Partition, downs: Downs
) -> None:
    """It closes a connection at the third HTTP/2 ping without data within five minutes."""

    async def session(requests: Any, _: Any) -> Any:
        async for message in requests:
            frame = read_client(message)
            pong = Pong(frame.id, b"", 0.0, 0.0) if isinstance(frame, Ping) else None
            yield write_server(pong or Welcome("s", 1, 1))

    async def serve(port: Future[int], stop: asyncio.Event) -> None:
        server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(session)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Session": method})
        server.add_generic_rpc_handlers((handler,))
        port.set_result(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await stop.wait()
        await server.stop(0)

    port: Future[int] = Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(port, stop),))
    thread.start()
    try:
        with connected(f"127.0.0.1:{port.result()}", small, downs) as connection:
            assert connection.wait(PATIENCE_S) is None
            assert not downs.changed_within(4.5)  # a ping a second took 3 s
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
