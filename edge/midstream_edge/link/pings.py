"""Pings under way on a stream: each becomes an `Exchange` when its pong comes."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cache
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.clock_offset import Exchange
from midstream_wire.errors import ProtocolError
from midstream_wire.frames import Ping, Pong

#: Exchanges kept until somebody takes them.
EXCHANGES = 32


@final
class Pings:
    """Sends pings and matches pongs; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._ended: deque[Exchange] = deque(maxlen=EXCHANGES)

    def send(
        self, stream: Stream, up_nbytes: int = 0, down_nbytes: int = 0
    ) -> Future[Exchange]:
        """Send a ping that carries `up_nbytes` and asks for `down_nbytes` of padding."""
        waiting = _Waiting(plain=up_nbytes == down_nbytes == 0)
        with self._lock:
            id = next(self._ids)
            self._waiting[id] = waiting
        waiting.future.add_done_callback(lambda _: self._forget(id))
        padding = _noise(up_nbytes)

        def frames() -> Iterator[Ping]:
            waiting.sent_s = time.monotonic()  # when it is pulled: queueing is no delay
            tcp = stream.tcp_info()
            waiting.empty = waiting.plain and not (tcp and tcp.outstanding)
            yield Ping(id, padding, down_nbytes)

        stream.send_background(frames())
        return waiting.future

    @property
    def asked_s(self) -> float | None:
        """Return when the oldest ping without padding left that is not answered yet, if there
        is one.

        Padding takes its time on the way, and that is no silence.
        """
        with self._lock:
            plain = [each.sent_s for each in self._waiting.values() if each.plain]
        return min(filter(None, plain), default=None)

    @property
    def under_way(self) -> bool:
        """Return True if any ping is not answered yet, or waits to leave."""
        return bool(self._waiting)

    def receive(self, pong: Pong) -> Exchange | None:
        """The exchange that `pong` ends, or None if nobody waits for it any more."""
        answered_s = time.monotonic()
        waiting = self._forget(pong.id)
        if waiting is None:
            return None
        if not (math.isfinite(pong.received_s) and math.isfinite(pong.sent_s)):
            raise ProtocolError(
                f"a pong's times must be finite (not {pong.received_s}, {pong.sent_s}): "
                "use the same version of midstream on both sides"
            )
        exchange = Exchange(
            waiting.sent_s, pong.received_s, pong.sent_s, answered_s, waiting.empty
        )
        if waiting.plain:
            with self._lock:
                self._ended.append(exchange)
        if waiting.future.set_running_or_notify_cancel():
            waiting.future.set_result(exchange)
        return exchange

    def take(self) -> tuple[Exchange, ...]:
        """The last `EXCHANGES` without padding that ended since this was called before."""
        with self._lock:
            taken = tuple(self._ended)
            self._ended.clear()
        return taken

    def fail(self, error: Exception) -> None:
        """No pong will come any more."""
        with self._lock:
            pending, self._waiting = list(self._waiting.values()), {}
        for waiting in pending:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(error)

    def _forget(self, id: int) -> _Waiting | None:
        """Whoever takes a ping out resolves its future, nobody else."""
        with self._lock:
            return self._waiting.pop(id, None)


@final
class _Waiting:
    __slots__ = ("empty", "future", "plain", "sent_s")

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain  # no padding: it measures the round trip
        self.future: Future[Exchange] = Future()
        self.sent_s = 0.0
        self.empty = False  # nothing was on its way when it left


@cache
def _noise(nbytes: int) -> bytes:
    """Padding that no link can compress; the sizes asked for are few."""
    return random.Random(nbytes).randbytes(nbytes)
