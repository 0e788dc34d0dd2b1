"""One stream of a connection, and all that is known of it."""

from __future__ import annotations

from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.clock_offset import ClockEstimate
from midstream_edge.link.endpoint import CONNECT_S
from midstream_edge.link.failure_detector import PING_S, FailureDetector, Observations
from midstream_edge.link.pings import Pings
from midstream_wire.errors import PeerError
from midstream_wire.frames import Welcome
from midstream_wire.limits import MIN_KEEPALIVE_S

#: Pings that set the clock right at the start of a stream.
CLOCK_PINGS = 4


@final
class MonitoredStream:
    """Changes under its connection's lock only; `stream` is there before anything is heard.

    A stream is on trial until `served`, that is welcomed and taken, and over once `ended` says
    why. `expires_s` is when it is given up for want of a welcome, or of an end after a GoAway
    (`leaving`). `lost`: what is still to be delivered on it is not wanted any more. `tried`:
    the server was reachable when it began.
    """

    __slots__ = (
        "clock",
        "detector",
        "ended",
        "expires_s",
        "heard_s",
        "leaving",
        "lost",
        "pings",
        "served",
        "stream",
        "tried",
        "welcome",
    )

    def __init__(self, now_s: float, *, tried: bool) -> None:
        self.tried = tried
        self.stream: Stream | None = None
        self.pings = Pings()
        self.clock = ClockEstimate()
        self.welcome: Welcome | None = None
        self.served = False
        self.leaving: PeerError | None = None
        self.ended: PeerError | None = None
        self.lost = False
        self.expires_s = now_s + CONNECT_S
        self.heard_s = now_s
        self.detector = FailureDetector(now_s, now_s, now_s)

    def serve(self, welcome: Welcome, now_s: float) -> None:
        """Begin to carry requests."""
        self.welcome, self.served = welcome, True
        self.expires_s = float("inf")
        self.detector = FailureDetector(now_s, now_s, now_s)
        assert self.stream is not None
        for _ in range(CLOCK_PINGS):
            self.pings.send(self.stream)

    @property
    def keepalive_s(self) -> float | None:
        """The silence after which an idle stream is asked for a sign of life; None: never."""
        allowed_s = 0.0 if self.welcome is None else self.welcome.keepalive_s
        return max(MIN_KEEPALIVE_S, allowed_s) if allowed_s else None

    def look(self, now_s: float, *, used: bool) -> None:
        """Have the detector look once more; ask for a sign of life where one is due."""
        assert self.stream is not None
        observed = Observations(
            now_s, self.heard_s, self.pings.asked_s, self.min_rtt_s, self.stream.tcp_info()
        )
        self.detector = self.detector.look(observed)
        silence_s = PING_S if used else self.keepalive_s
        silent = silence_s is not None and now_s - self.heard_s >= silence_s
        if self.detector.overdue or silent:
            self.ask()

    def doubt(self, now_s: float, since_s: float) -> None:
        """Tell the detector that an answer is overdue that was asked for at `since_s`."""
        if self.heard_s < since_s:  # the watch knows what was heard at its last look only
            self.detector = self.detector.doubt(now_s, since_s)
        self.ask()

    def ask(self) -> None:
        """Ping, unless a ping is under way already."""
        assert self.stream is not None
        if not self.pings.under_way:
            self.pings.send(self.stream)

    @property
    def min_rtt_s(self) -> float:
        """The shortest exchange there was, a good measure of the idle link; 0.0 before."""
        return 0.0 if self.clock.best is None else self.clock.best.delay_s
