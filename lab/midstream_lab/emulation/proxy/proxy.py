"""An emulated link for one machine: a TCP proxy with a rate and a delay, without privileges.

    python -m midstream_lab.emulation.proxy.proxy --listen 127.0.0.1:0 \
        --target 127.0.0.1:50051 --link lte

All connections share one line in either direction; rates count bytes of TCP payload. What it
does not have: slow start and loss (TCP between each side and the proxy is local), the round
trip of a handshake, and a true black hole (the kernel acknowledges what the proxy does not
pass on). Measure at the answer, never at `send()`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar, final

from midstream_lab.emulation.proxy.relay import Connection, Pipe, PipeStats, reset_on_close
from midstream_lab.traces.conditions import Condition, condition
from midstream_partitioner.lifeline import follow_parent, heeded
from midstream_wire.errors import MidstreamError, UsageError

R = TypeVar("R")
Address = tuple[str, int]

#: Further ones are reset: each takes two descriptors, and select(2) takes those below 1024.
MAX_CONNECTIONS = 400

#: Kernel buffers of the proxy's sockets: what is in them has not met the line yet.
SOCKET_NBYTES = 64 * 1024


@final
@dataclass(frozen=True, slots=True)
class Stats:
    """Both directions, and connections open now. A lateness above 1 ms voids a measurement."""

    uplink: PipeStats
    downlink: PipeStats
    connections: int


@final
class Proxy:
    """Passes connections to `listen` on to `target` over an emulated link.

    Used within a running event loop: `await start()`, then `close()`. Its accuracy is that of
    the loop's timers: `precise_loop` wakes within 0.1 ms, asyncio's default within 1 to 2.
    """

    def __init__(self, listen: Address, target: Address, condition: Condition) -> None:
        self.address = listen
        self.condition = condition
        self._connections: set[Connection] = set()
        self._target = target
        self._listener: socket.socket | None = None
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self) -> Address:
        """Listen; returns the address with the port chosen. `UsageError` if it is taken."""
        self._loop = asyncio.get_running_loop()
        delay_s = self.condition.rtt_s / 2
        self._uplink = Pipe(self.condition.uplink_bps, delay_s)
        self._downlink = Pipe(self.condition.downlink_bps, delay_s)
        self._passable = asyncio.Event()
        self._passable.set()
        self._welcome = True
        self._listen()
        return self.address

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._stop_listening()
        for task in self._opening:
            task.cancel()
        for each in list(self._connections):
            each.close()
        self._uplink.close()
        self._downlink.close()

    def set(self, condition: Condition) -> None:
        """Change the link now, also for bytes that already wait for it."""
        self.condition = condition
        self._uplink.set(condition.uplink_bps, condition.rtt_s / 2)
        self._downlink.set(condition.downlink_bps, condition.rtt_s / 2)

    def stats(self) -> Stats:
        return Stats(self._uplink.stats(), self._downlink.stats(), len(self._connections))

    def black_hole(self) -> None:
        """Nothing passes any more and nobody is told; `restore` delivers what was held."""
        self._passable.clear()
        self._uplink.pause()
        self._downlink.pause()

    def reset_all(self, *, welcome: bool = True) -> None:
        """Break every connection with a reset on both sides; new ones are welcome, or reset
        as soon as they are accepted, until `restore`.
        """
        self._welcome = welcome
        for each in list(self._connections):
            each.abort()

    def refuse(self) -> None:
        """Refuse new connections, as a host does on which nothing listens."""
        self._stop_listening()

    def restore(self) -> None:
        """End `black_hole`, `refuse`, and `reset_all` without welcome."""
        self._welcome = True
        if self._listener is None:
            self._listen()
        self._passable.set()
        self._uplink.resume()
        self._downlink.resume()

    def _listen(self) -> None:
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _shrink_buffers(listener)  # before listening, so that accepted sockets inherit it
        listener.setblocking(False)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise UsageError(
                f"the proxy must be able to listen on {host}:{port} ({error.strerror}): "
                "choose another port, or 0 for any"
            ) from None
        self.address = (host, listener.getsockname()[1])
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # gone again before it was accepted, or no descriptor left: keep listening
        full = len(self._connections) + len(self._opening) >= MAX_CONNECTIONS
        if full or not self._welcome:
            reset_on_close(client)
            client.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(client))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(client.close)
            undo.callback(reset_on_close, client)
            await self._passable.wait()
            family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
            target = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            target.setblocking(False)
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _shrink_buffers(target)
            try:
                await self._loop.sock_connect(target, self._target)
            except OSError:
                return  # nothing listens there: the client is reset
            undo.pop_all()
        pipes = self._uplink, self._downlink
        self._connections.add(Connection((client, target), pipes, self._connections.discard))


@final
class ProxyThread:
    """A `Proxy` with a loop in a thread of its own, for programs that have none.

    >>> with ProxyThread(target, condition("lte")) as proxy:  # doctest: +SKIP
    ...     socket.create_connection(proxy.address)
    """

    def __init__(
        self, target: Address, condition: Condition, *, listen: Address = ("127.0.0.1", 0)
    ) -> None:
        self._proxy = Proxy(listen, target, condition)
        self._loop = precise_loop()
        run = self._loop.run_forever
        self._thread = threading.Thread(target=run, name="proxy", daemon=True)

    def __enter__(self) -> ProxyThread:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._proxy.close)
        self._stop()

    @property
    def address(self) -> Address:
        return self._proxy.address

    def set(self, condition: Condition) -> None:
        self.call(lambda: self._proxy.set(condition))

    def stats(self) -> Stats:
        return self.call(self._proxy.stats)

    def black_hole(self) -> None:
        self.call(self._proxy.black_hole)

    def reset_all(self) -> None:
        self.call(self._proxy.reset_all)

    def refuse(self) -> None:
        self.call(self._proxy.refuse)

    def restore(self) -> None:
        self.call(self._proxy.restore)

    def call(self, function: Callable[[], R]) -> R:
        """Run `function` in the proxy's thread and wait for it."""

        async def run() -> R:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop on select(2), whose timeouts are microseconds where epoll's are rounded up
    to milliseconds (see `MAX_CONNECTIONS`).
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def parse_address(text: str) -> Address:
    """Host and port from "127.0.0.1:50051" or "[::1]:50051"; raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"an address must be HOST:PORT (not {text!r}): write 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP. The first line of standard output says where
    (`{"listening": "127.0.0.1:PORT"}`), the last one what passed (`Stats`).
    """
    parser = argparse.ArgumentParser(
        prog="python -m midstream_lab.emulation.proxy.proxy",
        description="An emulated link for one machine.",
    )
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT (port 0: any)")
    parser.add_argument("--target", required=True, help="HOST:PORT to pass connections on to")
    parser.add_argument("--link", required=True, help='a name, or "8Mbit:40ms"')
    options = parser.parse_args(arguments)
    follow_parent()
    try:
        proxy = Proxy(
            parse_address(options.listen),
            parse_address(options.target),
            condition(options.link),
        )
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            runner.run(_serve(proxy))
    except MidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


async def _serve(proxy: Proxy) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in heeded():
        loop.add_signal_handler(number, stop.set)
    host, port = await proxy.start()
    # A reader that is gone is no reason to stop serving, nor to fail while stopping.
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"listening": f"{host}:{port}"}), flush=True)
    await stop.wait()
    stats = proxy.stats()
    proxy.close()
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(asdict(stats)), flush=True)


def _shrink_buffers(each: socket.socket) -> None:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_NBYTES)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_NBYTES)


if __name__ == "__main__":
    sys.exit(main())
