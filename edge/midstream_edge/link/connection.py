"""A session's connection, kept up: watched while it is used, replaced when it breaks.

`failure_detector` has the states as a table: connected, suspect, down. New requests go out
only while connected; otherwise they are finished on the edge at once instead of waiting, each
anew, for a link that does not answer. From the first suspicion on, TCP handshakes are tried,
and fresh channels are opened beside the suspected stream and beside one another: at once,
whenever a handshake is answered, and every second in any case. The first to speak is used: the
suspected stream, or the first fresh one that is welcomed. The others are closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.clock_offset import ClockEstimate, Exchange
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.failure_detector import LOOK_S
from midstream_edge.link.failures import going_away, not_opened
from midstream_edge.link.monitored_stream import MonitoredStream
from midstream_edge.link.observations import LinkState
from midstream_edge.link.reconnect import LISTEN_S
from midstream_edge.link.streams import MonitoredStreams
from midstream_edge.link.tcp_handshakes import PeerAddress, seek_addresses
from midstream_wire.errors import DeadlineExceeded, PeerError
from midstream_wire.frames import GoAway, Hello, More, Pong, Reply, ServerFrame, Welcome

_log = logging.getLogger(__name__)

#: After a fault of its own the keeper goes on so much later: enough for a machine without
#: memory or threads to recover, and no storm in the log.
STUMBLE_S = 0.5
#: A server that does not answer so much as a TCP handshake in this time is not waited for:
#: over a satellite one takes 0.6 s.
REACH_S = 1.0


@final
class Connection:
    """Keeps a Session stream to a server open, on threads of its own.

    `on_frame` gets what answers requests, `on_down` is told when no frame will come on a
    stream any more, and why, once for each that ever was `stream`, and `on_up` that new
    requests may go out again. All are called on the connection's threads and must be quick.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hello: Hello,
        *,
        on_frame: Callable[[Stream, Reply | More], None],
        on_down: Callable[[Stream, PeerError], None],
        on_up: Callable[[], None] = lambda: None,
        beside: Stream | None = None,
    ) -> None:
        """The first attempt is made on the channel of `beside`, while that stands."""
        self._endpoint = endpoint
        self._beside = beside
        self._hello = hello
        self._on_frame = on_frame
        self._on_down = on_down
        self._on_up = on_up
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._stirred = False  # the keeper has something to do
        self._dozing = False  # the keeper looks at nothing until it is stirred
        self._closed = False
        self._streams = MonitoredStreams(
            str(endpoint.address), time.monotonic(), on_change=self._stir
        )
        self._settled = threading.Event()  # the first attempt has ended, either way
        self._logged = ""  # what was said last of working alone
        self._keeper: threading.Thread | None = None
        # A unix socket has no addresses, and a channel in use needs none.
        self._seeking = beside is None and endpoint.address.port is not None
        self._ensure_kept()
        if self._seeking:
            seek_addresses(endpoint.address, self._know)

    @property
    def state(self) -> LinkState:
        """State of the link."""
        with self._lock:
            self._ensure_kept()
            return self._streams.state

    @property
    def stream(self) -> Stream | None:
        """The stream that new requests may use; None unless connected."""
        with self._lock:
            self._ensure_kept()
            present = self._streams.present
            usable = self._streams.state == "connected" and not self._closed
            return present.stream if usable and present else None

    @property
    def error(self) -> PeerError:
        """Return the reason for the last time without a stream."""
        with self._lock:
            return self._streams.error

    @property
    def welcome(self) -> Welcome | None:
        """The limits that the server set on the present stream; None without one."""
        with self._lock:
            present = self._streams.present
            return present.welcome if present else None

    @property
    def welcomes(self) -> int:
        """Number of streams that the server has welcomed."""
        return self._streams.welcomes

    @property
    def clock(self) -> ClockEstimate:
        """The server's clock, by the present stream or the last one."""
        with self._lock:
            return self._streams.clock

    def take_exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges without padding that have ended since the last call, 32 at most."""
        with self._lock:
            present = self._streams.present
            return present.pings.take() if present else ()

    def wait(self, timeout_s: float) -> PeerError | None:
        """Wait for the first attempt's end; the error, or None if the server welcomed us.

        At most `timeout_s`, and no longer than `REACH_S` where the server is out of reach.
        """
        began_s = time.monotonic()
        while (left_s := self._patience_s(began_s, timeout_s)) > 0:
            if self._settled.wait(min(left_s, LISTEN_S)):
                break
        with self._lock:
            return self._streams.error if self._streams.present is None else None

    def _patience_s(self, began_s: float, timeout_s: float) -> float:
        """Seconds that are left of a wait for the first attempt's end."""
        with self._lock:
            attempts, limit_s = self._streams.attempts, timeout_s
            if self._seeking and not attempts.answered:
                if attempts.tried_s is not None:
                    limit_s = min(limit_s, attempts.tried_s + REACH_S - began_s)
                elif not attempts.addresses:  # its name does not resolve, or not yet
                    limit_s = min(limit_s, REACH_S)
        return began_s + limit_s - time.monotonic()

    def wait_up(self, timeout_s: float) -> bool:
        """Wait until new requests may use the connection; whether they may."""
        with self._lock:
            return bool(self._changed.wait_for(lambda: self.stream is not None, timeout_s))

    def doubt(self, since_s: float) -> None:
        """Say that an answer is overdue that was asked for at `since_s`.

        If nothing at all has been heard since, the link is suspect until something is.
        """
        with self._lock:
            self._streams.doubt(time.monotonic(), since_s)

    def begin_ping(self, up_nbytes: int, down_nbytes: int) -> Future[Exchange]:
        """An exchange that ends, or fails with the stream, in the future; raises `error`."""
        with self._lock:
            stream, present = self.stream, self._streams.present
            if stream is None or present is None:
                raise self._streams.error
            return present.pings.send(stream, up_nbytes, down_nbytes)

    def ping(self, up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange:
        """One exchange. Raises `CloudUnavailable` or `DeadlineExceeded`."""
        future = self.begin_ping(up_nbytes, down_nbytes)
        self._use()
        return self._await(future, timeout_s)

    def observe(self, stream: Stream, exchange: Exchange) -> None:
        """Let an exchange on `stream` improve the clock."""
        with self._lock:
            monitored = self._streams.present
            if monitored is not None and monitored.stream is stream:
                monitored.clock = monitored.clock.observe(exchange)

    def close(self, timeout_s: float) -> None:
        """Give the connection up; returns within about `timeout_s`, whatever the link does."""
        with self._lock:
            self._closed = True
            self._stir()
            keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(timeout_s)

    def _await(self, future: Future[Exchange], timeout_s: float) -> Exchange:
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise DeadlineExceeded(
                f"a probe must be answered by {self._endpoint.address} within {timeout_s:g} s,"
                " but was not: the link is too slow or broken"
            ) from None

    @property
    def rises(self) -> int:
        """Return how often the link has become connected, or stopped to be suspect."""
        return self._streams.rises

    def _use(self) -> None:
        """A request goes out, on whatever thread: from now on the link is watched."""
        with self._lock:
            self._streams.used_s = time.monotonic()
            if self._dozing:
                self._stir()

    def _stir(self) -> None:
        self._stirred = True
        self._changed.notify_all()

    def _ensure_kept(self) -> None:
        """Start the keeper. Where no thread can be had, whoever asks next tries again."""
        if self._keeper is not None or self._closed:
            return
        keeper = threading.Thread(target=self._keep, name="midstream-link", daemon=True)
        try:
            keeper.start()
        except (RuntimeError, MemoryError) as error:
            self._streams.error = not_opened(str(self._endpoint.address), error)
            self._settled.set()
        else:
            self._keeper = keeper

    def _know(self, addresses: tuple[PeerAddress, ...]) -> bool:
        """Try handshakes at `addresses`; return True if no others need to be sought."""
        with self._lock:
            attempts = self._streams.attempts
            if addresses and not attempts.addresses:
                attempts.addresses = addresses
                self._stir()
            return self._closed or self.welcomes > 0 or bool(attempts.addresses)

    # The keeper's thread.

    def _keep(self) -> None:
        while not self._closed:
            try:
                self._look_after()
            except Exception:  # without a keeper there would never be a connection again
                _log.exception("the link to %s is looked after anew", self._endpoint.address)
                with self._lock:
                    self._changed.wait_for(lambda: self._closed, STUMBLE_S)
        self._leave()

    def _look_after(self) -> None:
        """One round: try, look, bury, and wait until something is to be done."""
        self._try_if_due()
        with self._lock:
            over, risen = self._streams.sweep(time.monotonic()), self._streams.take_risen()
        self._bury_all(over)
        if risen:
            self._on_up()
        with self._lock:
            pause_s = self._streams.pause_s(time.monotonic())
            self._dozing = pause_s is None or pause_s > LOOK_S
            self._changed.wait_for(lambda: self._stirred or self._closed, pause_s)
            self._stirred = self._dozing = False

    def _leave(self) -> None:
        with self._lock:
            left = self._streams.leave(time.monotonic())
        self._bury_all(left)

    def _try_if_due(self) -> None:
        with self._lock:
            monitored = self._streams.next_trial(time.monotonic())
        if monitored is None:
            return

        def receive(stream: Stream, frame: ServerFrame) -> None:
            monitored.stream = stream  # the first frame may be faster than the constructor
            self._receive(monitored, frame)

        beside, self._beside = self._beside, None
        try:
            monitored.stream = Stream(
                self._endpoint,
                self._hello,
                on_frame=receive,
                on_end=lambda _, error: self._finish(monitored, error),
                on_send=self._use,
                shared=beside.shared if beside else None,
            )
        except Exception as error:
            self._finish(monitored, not_opened(str(self._endpoint.address), error))

    def _bury_all(self, streams: list[MonitoredStream]) -> None:
        for monitored in streams:
            try:
                self._bury(monitored)
            except Exception:  # the others must be closed all the same
                _log.exception("a stream to %s was not closed", self._endpoint.address)

    def _bury(self, monitored: MonitoredStream) -> None:
        """Close a stream that is over, and tell those who relied on it."""
        stream, error = monitored.stream, monitored.ended
        assert error is not None
        try:
            if stream is not None:  # else it could not be opened
                stream.close(abort=monitored.lost)
            monitored.pings.fail(error)
            self._note_failure(monitored, error)
        finally:
            if monitored.served and stream is not None:
                self._on_down(stream, error)

    def _note_failure(self, monitored: MonitoredStream, error: PeerError) -> None:
        with self._lock:
            if self._streams.note_failure(monitored, error, time.monotonic()):
                self._settled.set()
            telling = self._streams.state == "down" and not self._closed
        if telling and str(error) != self._logged:
            self._logged = str(error)
            _log.warning("working on the edge alone: %s", error)

    # The readers' threads.

    def _receive(self, monitored: MonitoredStream, frame: ServerFrame) -> None:
        with self._lock:
            if not self._streams.hear(monitored, time.monotonic()):
                return
        match frame:
            case Reply() | More():
                assert monitored.stream is not None
                self._on_frame(monitored.stream, frame)
            case Welcome():
                self._greet(monitored, frame)
            case GoAway():
                self._see_off(monitored, frame)
            case Pong():
                # Not under the lock: whoever waits for the exchange may have locks of its own.
                exchange = monitored.pings.receive(frame)
                if exchange is not None:
                    with self._lock:
                        monitored.clock = monitored.clock.observe(exchange)

    def _greet(self, monitored: MonitoredStream, welcome: Welcome) -> None:
        with self._lock:
            # Too late, the keeper closes it.
            if not self._closed and self._streams.greet(monitored, welcome, time.monotonic()):
                self._settled.set()

    def _see_off(self, monitored: MonitoredStream, frame: GoAway) -> None:
        reason = frame.reason
        error = going_away(str(self._endpoint.address), reason.code, reason.message)
        with self._lock:
            self._streams.see_off(monitored, error, time.monotonic())

    def _finish(self, monitored: MonitoredStream, error: PeerError) -> None:
        with self._lock:
            self._streams.finish(monitored, error, time.monotonic())
