"""A session's connection, kept up: connect, notice the break, connect again.

    CONNECTING --welcome--> UP --nothing heard when an answer was due--> SUSPECT
        ^                    ^----------anything heard---------------------'  |
        |                    |                                                | silence
        +--pause, fresh channel-- DOWN <--break, refusal, silence-------------+

Only UP offers its stream to new requests; in every other state they are finished on the edge
at once instead of waiting, each anew, for a link that does not answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import final

from midstream_edge.channel import CONNECT_S, Dial, Stream
from midstream_edge.clock import ClockEstimate, Exchange
from midstream_edge.pings import Pings
from midstream_edge.verdicts import farewell, is_settled, silence
from midstream_wire.errors import DeadlineExceeded, PeerError
from midstream_wire.frames import GoAway, Hello, More, Pong, Reply, ServerFrame, Welcome

_log = logging.getLogger(__name__)

#: Pauses before each further attempt. Fresh channels after these found a link that had come
#: back within 0.2-0.6 s, where gRPC's own backoff took 4-9 s.
PAUSES_S = (0.0, 0.1, 0.2, 0.4, 0.5)
#: After a refusal that only a person can lift: look again now and then, the person may.
SETTLED_PAUSE_S = 5.0
#: A suspected link that stays silent this long is given up. Longer than a round trip over a
#: satellite behind half a second of queue.
SUSPECT_S = 3.0
#: How long a server that is leaving may take to finish what is under way.
LEAVING_S = 30.0
#: Pings that set the clock right at the start of a stream.
CLOCK_PINGS = 4


def pause_s(failures: int, error: Exception) -> float:
    """Seconds to wait before the next attempt, after so many in a row failed with `error`."""
    if is_settled(error):
        return SETTLED_PAUSE_S
    return PAUSES_S[min(failures, len(PAUSES_S) - 1)]


@final
class Connection:
    """Keeps one Session stream to a server open, on threads of its own.

    `on_frame` gets what answers requests, `on_down` is told when no frame will come on a
    stream any more, and why. Both are called on the connection's threads and must be quick.
    """

    def __init__(
        self,
        dial: Dial,
        hello: Hello,
        *,
        on_frame: Callable[[Stream, Reply | More], None],
        on_down: Callable[[Stream, PeerError], None],
    ) -> None:
        self._dial = dial
        self._hello = hello
        self._on_frame = on_frame
        self._on_down = on_down
        self._pings = Pings()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._stream: Stream | None = None  # the present one, welcomed or not
        self._welcome: Welcome | None = None
        self._ended: PeerError | None = None  # why the present stream is over
        self._leaving: PeerError | None = None
        self._give_up_at_s: float | None = None  # when suspicion, or leaving, ends the stream
        self._heard_s = 0.0
        self._settled = threading.Event()  # the first attempt has ended, either way
        self._error: PeerError = silence(str(dial.address), CONNECT_S)
        self.clock = ClockEstimate()
        self.welcomes = 0
        self._thread = threading.Thread(target=self._keep, name="midstream-link", daemon=True)
        self._thread.start()

    @property
    def stream(self) -> Stream | None:
        """The stream that new requests may use; None unless the connection is UP."""
        with self._lock:
            usable = self._welcome and not (self._ended or self._give_up_at_s or self._closed)
            return self._stream if usable else None

    @property
    def error(self) -> PeerError:
        """Why there was no stream when there was none last."""
        with self._lock:
            return self._ended or self._leaving or self._error

    @property
    def welcome(self) -> Welcome | None:
        """What the server allows on the present stream."""
        with self._lock:
            return self._welcome

    def wait(self, timeout_s: float) -> PeerError | None:
        """Wait for the first attempt's end; the error, or None if the server welcomed us."""
        self._settled.wait(timeout_s)
        with self._lock:
            return None if self._welcome and not self._ended else self._ended or self._error

    def wait_up(self, timeout_s: float) -> bool:
        """Wait until new requests may use the connection; whether they may."""
        with self._lock:
            return bool(self._changed.wait_for(lambda: self.stream is not None, timeout_s))

    def doubt(self, since_s: float) -> None:
        """Say that an answer is overdue that was asked for at `since_s`.

        If nothing at all has been heard since, the link is suspect until something is.
        """
        with self._lock:
            if not self._welcome or self._ended or self._heard_s >= since_s:
                return
            if self._give_up_at_s is None:
                self._error = silence(str(self._dial.address), time.monotonic() - since_s)
                self._give_up_at_s = time.monotonic() + SUSPECT_S
                self._changed.notify_all()
            stream = self._stream
        assert stream is not None
        self._pings.send(stream)

    def ping(self, up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange:
        """One exchange. Raises `CloudUnavailable` or `DeadlineExceeded`."""
        stream = self.stream
        if stream is None:
            raise self.error
        future = self._pings.send(stream, up_nbytes, down_nbytes)
        return self._await(future, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Give the connection up; returns within about `timeout_s`, whatever the link does."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _await(self, future: Future[Exchange], timeout_s: float) -> Exchange:
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise DeadlineExceeded(
                f"a probe must be answered by {self._dial.address} within {timeout_s:g} s, "
                "but was not: the link is too slow or broken"
            ) from None

    # The keeper's thread.

    def _keep(self) -> None:
        failures, logged = 0, ""
        while not self._closed:
            welcomed, error = self._live_once()
            failures = 0 if welcomed else failures + 1
            with self._lock:
                self._error = error
                self._settled.set()
                if not self._closed and str(error) != logged:
                    logged = str(error)
                    _log.warning("working on the edge alone: %s", error)
                self._changed.wait_for(lambda: self._closed, pause_s(failures, error))

    def _live_once(self) -> tuple[bool, PeerError]:
        """One stream from opening to its end: whether it was welcomed, and what ended it."""
        with self._lock:
            self._welcome = self._ended = self._leaving = self._give_up_at_s = None
            self.clock = ClockEstimate()  # another process may have another clock
            # Under the lock, so that its first frames find it in place.
            stream = self._stream = Stream(
                self._dial, self._hello, on_frame=self._receive, on_end=self._finish
            )
            self._changed.wait_for(
                lambda: self._welcome or self._ended or self._closed, CONNECT_S
            )
            welcomed = self._welcome is not None
            if welcomed:
                self.welcomes += 1
                self._settled.set()
                self._sit_out()
            # What is neither ended nor leaving was given up: `doubt` has said why.
            unheard = self._error if welcomed else silence(str(self._dial.address), CONNECT_S)
            self._ended = error = self._ended or self._leaving or unheard
        stream.close()
        self._pings.fail(error)
        self._on_down(stream, error)
        return welcomed, error

    def _sit_out(self) -> None:
        """Hold the lock until the stream has ended, is given up, or the session closes."""
        while not (self._ended or self._closed):
            at_s = self._give_up_at_s
            if at_s is not None and time.monotonic() >= at_s:
                return
            self._changed.wait(None if at_s is None else at_s - time.monotonic())

    # The reader's thread.

    def _receive(self, stream: Stream, frame: ServerFrame) -> None:
        with self._lock:
            if stream is not self._stream or self._ended:
                return
            self._heard_s = time.monotonic()
            if self._give_up_at_s is not None and self._leaving is None:
                self._give_up_at_s = None  # only suspected; it lives
                self._changed.notify_all()
        match frame:
            case Reply() | More():
                self._on_frame(stream, frame)
            case Welcome():
                self._greet(stream, frame)
            case GoAway():
                self._part(frame)
            case Pong():
                exchange = self._pings.receive(frame)
                if exchange is not None:
                    self.observe(stream, exchange)

    def observe(self, stream: Stream, exchange: Exchange) -> None:
        """Let an exchange on `stream` improve the clock."""
        with self._lock:
            if stream is self._stream:
                self.clock = self.clock.observe(exchange)

    def _greet(self, stream: Stream, welcome: Welcome) -> None:
        for _ in range(CLOCK_PINGS):
            self._pings.send(stream)
        with self._lock:
            self._welcome = welcome
            self._changed.notify_all()

    def _part(self, frame: GoAway) -> None:
        reason = frame.reason
        error = farewell(str(self._dial.address), reason.code, reason.message)
        with self._lock:
            self._leaving = error
            if self._welcome is None:
                self._ended = error
            else:
                self._give_up_at_s = time.monotonic() + LEAVING_S
            self._changed.notify_all()

    def _finish(self, stream: Stream, error: PeerError) -> None:
        with self._lock:
            if stream is self._stream and self._ended is None:
                self._ended = self._leaving or error
                self._changed.notify_all()
