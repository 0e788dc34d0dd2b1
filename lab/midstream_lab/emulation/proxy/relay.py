"""Connections relayed through the two shaped lines that they share.

Callbacks on sockets instead of a task per stream: a chunk costs one read, one timer and one
send, and closing has nothing to cancel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from midstream_lab.emulation.proxy.rate_limiter import Shaper

#: Waiting in front of a line; beyond it the proxy stops reading. In bytes, because a real
#: queue is: 1.4 s at 0.75 Mbit/s, and 1 ms at 1 Gbit/s.
QUEUE_NBYTES = 128 * 1024
#: Delivered to a receiver that does not take it; beyond it the proxy stops reading, too.
OUTBOX_NBYTES = 256 * 1024
#: A read is about this much of the line's time, within the bounds: smaller ones cost CPU,
#: larger ones are bursts (256 KiB are 4 s at 0.5 Mbit/s).
READ_S = 0.005
READ_NBYTES = (1500, 64 * 1024)
#: Latest samples of lateness that percentiles are taken from.
SAMPLES = 4096

_END, _RESET = b"", None  # beside data: end of stream (FIN) and broken connection (RST)


@final
@dataclass(frozen=True, slots=True)
class PipeStats:
    """One direction: bytes delivered and waiting; how late the proxy itself was."""

    nbytes: int
    queued_nbytes: int
    lateness_p50_s: float
    lateness_p99_s: float


@final
class Pipe:
    """One direction of the link: the shaper, the timer that drives it, who waits for room."""

    def __init__(self, rate_bps: float, delay_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._shaper: Shaper[tuple[Stream, bytes | None]] = Shaper(rate_bps, delay_s)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s: float | None = None
        self._lateness_s: deque[float] = deque(maxlen=SAMPLES)
        self._nbytes = 0
        self._paused = False
        self.waiting: set[Stream] = set()

    @property
    def has_room(self) -> bool:
        return not self._paused and self._shaper.queued_nbytes < QUEUE_NBYTES

    @property
    def read_nbytes(self) -> int:
        least, most = READ_NBYTES
        return min(most, max(least, int(self._shaper.rate_bps * READ_S / 8)))

    def push(self, stream: Stream, data: bytes | None, *, waited: bool = False) -> None:
        """Queue a chunk; nothing is delivered yet, as who pushes may be in a delivery."""
        nbytes = len(data or b"")
        self._shaper.push((stream, data), nbytes, self._loop.time(), waited=waited)
        self._arm()

    def set(self, rate_bps: float, delay_s: float) -> None:
        self._shaper.set(rate_bps, delay_s, self._loop.time())
        self._arm()

    def pause(self) -> None:
        self._paused = True
        self._shaper.pause(self._loop.time())
        self._arm()

    def resume(self) -> None:
        self._paused = False
        self._shaper.resume(self._loop.time())
        self._drive()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def stats(self) -> PipeStats:
        late_s = sorted(self._lateness_s) or [0.0]
        return PipeStats(
            nbytes=self._nbytes,
            queued_nbytes=self._shaper.queued_nbytes,
            lateness_p50_s=late_s[len(late_s) // 2],
            lateness_p99_s=late_s[len(late_s) * 99 // 100],
        )

    def _drive(self) -> None:
        """Deliver what is due, let readers go on, and come back when the next thing is due."""
        now_s = self._loop.time()
        for due_s, (stream, data) in self._shaper.pop(now_s):
            self._lateness_s.append(now_s - due_s)
            self._nbytes += len(data or b"")
            stream.deliver(data)
        self._armed_s = None
        self._arm()
        if self.waiting and self.has_room:
            ready, self.waiting = self.waiting, set()
            for stream in ready:
                stream.read_on()

    def _arm(self) -> None:
        next_s = self._shaper.next_s
        if next_s is not None and next_s == self._armed_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if next_s is None else self._loop.call_at(next_s, self._drive)
        self._armed_s = next_s


@final
class Stream:
    """One direction of one connection: reads from `source`, sends to `sink`."""

    def __init__(
        self, pipe: Pipe, source: socket.socket, sink: socket.socket, connection: Connection
    ) -> None:
        self._loop = connection.loop
        self._pipe = pipe
        self._source = source
        self._sink = sink
        self._connection = connection
        self._outbox: deque[memoryview] = deque()
        self._outbox_nbytes = 0
        self._ending = False
        self._behind = False  # the source had more than was read: it waits for us
        self._reading = False
        self._read_all = False
        self.done = False

    def read_on(self) -> None:
        """Read while there is room to put it, and otherwise stop until there is."""
        if self._read_all or self._connection.closed:
            return
        if not self._pipe.has_room:
            self._pipe.waiting.add(self)
            self._stop_reading()
        elif self._outbox_nbytes >= OUTBOX_NBYTES:
            self._stop_reading()
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._source, self._readable)

    def fail(self) -> None:
        """The source is broken: tell the other side, after the time that news takes."""
        self._read_all = True
        self._stop_reading()
        self._pipe.push(self, _RESET)

    def deliver(self, data: bytes | None) -> None:
        """Pass on what comes out of the line."""
        if self._connection.closed:
            return
        if data is None:
            self._connection.abort()
            return
        if data == _END:
            self._ending = True
        else:
            self._outbox.append(memoryview(data))
            self._outbox_nbytes += len(data)
        self._flush()

    def _readable(self) -> None:
        if not self._pipe.has_room:
            self.read_on()
            return
        wanted = self._pipe.read_nbytes
        try:
            data = self._source.recv(wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.fail()
            return
        if data == _END:
            self._read_all = True
            self._stop_reading()
        waited, self._behind = self._behind, len(data) == wanted
        self._pipe.push(self, data, waited=waited)
        self.read_on()

    def _stop_reading(self) -> None:
        self._behind = True
        self._reading = False
        self._loop.remove_reader(self._source)

    def _flush(self) -> None:
        try:
            while self._outbox:
                sent = self._sink.send(self._outbox[0])
                self._outbox_nbytes -= sent
                if sent < len(self._outbox[0]):
                    self._outbox[0] = self._outbox[0][sent:]
                else:
                    self._outbox.popleft()
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sink, self._flush)
            return
        except OSError:
            self._connection.sink_failed(self)
            return
        self._loop.remove_writer(self._sink)
        if self._ending and not self.done:
            self.done = True
            with contextlib.suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)
            self._connection.finish()
        self.read_on()


@final
class Connection:
    """A client's socket, the target's, and a stream either way."""

    def __init__(
        self,
        sockets: tuple[socket.socket, socket.socket],
        pipes: tuple[Pipe, Pipe],
        tell_closed: Callable[[Connection], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._sockets = client, target = sockets
        self._pipes = uplink, downlink = pipes
        self._tell_closed = tell_closed
        self._up = Stream(uplink, client, target, self)
        self._down = Stream(downlink, target, client, self)
        self._up.read_on()
        self._down.read_on()

    def sink_failed(self, stream: Stream) -> None:
        """Connect what one stream sends to with what the other reads from."""
        self.loop.remove_writer(self._sockets[1 if stream is self._up else 0])
        (self._down if stream is self._up else self._up).fail()

    def finish(self) -> None:
        if self._up.done and self._down.done:
            self.close()

    def abort(self) -> None:
        """Close with a reset on both sides."""
        for each in self._sockets:
            reset_on_close(each)
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for each in self._sockets:
            self.loop.remove_reader(each)
            self.loop.remove_writer(each)
            each.close()
        for pipe in self._pipes:
            pipe.waiting -= {self._up, self._down}
        self._tell_closed(self)


def reset_on_close(each: socket.socket) -> None:
    """Let closing `each` send a reset instead of an orderly end."""
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
