"""TCP's congestion window in virtual time, as Linux keeps it: a burst at a time.

Each rule names the function of Linux (net/ipv4) that it follows.
`docs/results/simulation.md` shows what was measured over the emulator to check them.
"""

from __future__ import annotations

import math
from typing import Literal, final

Congestion = Literal["cubic", "reno", "bbr"]

#: The initial window, and the window after a long rest (RFC 6928, TCP_INIT_CWND).
FIRST_SEGMENTS = 10
#: The least that a retransmission timeout adds to the smoothed round trip (TCP_RTO_MIN).
RTO_S = 0.2
#: HyStart (`hystart_update`): it looks at windows from so many segments on. It ends slow start
#: when acknowledgements at most `TRAIN_S` apart have come for half a round trip and
#: `TRAIN_SLACK_S`, or when `SAMPLES` of them have all waited in a queue.
LOW_SEGMENTS, TRAIN_S, TRAIN_SLACK_S, SAMPLES = 16, 0.002, 0.001, 8
#: A receiver acknowledges every second segment (RFC 5681, section 4.2).
PER_ACK = 2
#: Cubic (RFC 9438): segments a cubic second by which a window returns to where it was.
CUBIC = 0.4
#: Until packets are lost for the first time, Cubic adds at least a segment for so many
#: acknowledged ones (`bictcp_update`); at no time more than one for two.
FIRST_COUNT, LEAST_COUNT = 20.0, 2.0
#: What is kept of a window after a loss, and segments that it then gains a round trip at least
#: (RFC 9438, section 4.3, and RFC 5681).
_KEPT: dict[Congestion, float] = {"cubic": 0.7, "reno": 0.5, "bbr": 1.0}
_GAIN: dict[Congestion, float] = {"cubic": 3 * (1 - 0.7) / (1 + 0.7), "reno": 1.0, "bbr": 1.0}


@final
class Window:
    """A sender's congestion window, in segments; all moments are of one clock.

    `threshold` is where slow start ends, `sent_s` when data last left, `srtt_s` the smoothed
    round trip. A window that its data does not fill shrinks only by resting: what Linux takes
    from it besides (`tcp_cwnd_application_limited`) needs a timeout without acknowledgements
    while data is under way.
    """

    __slots__ = (
        "_congestion",
        "_credit",
        "_growing_s",
        "_most",
        "_origin",
        "_returns_s",
        "_rtt_s",
        "_varies_s",
        "segments",
        "sent_s",
        "srtt_s",
        "threshold",
    )

    def __init__(self, rtt_s: float, congestion: Congestion = "cubic") -> None:
        self._congestion = congestion
        self._rtt_s = rtt_s
        self.segments = FIRST_SEGMENTS
        self.threshold = math.inf
        self.sent_s = 0.0
        self.srtt_s = rtt_s
        self._varies_s = max(RTO_S, 2 * rtt_s)  # as of a single sample, at first
        self._most = 0.0  # where it was when packets were lost
        self._origin = 0.0  # of the cubic curve; 0.0 before the curve begins
        self._returns_s = 0.0  # when the curve comes to its origin
        self._growing_s = 0.0  # how long it has followed the curve, rests left out
        self._credit = 0.0  # parts of a segment gained

    @property
    def rto_s(self) -> float:
        """Return how long TCP waits for an acknowledgement, and what it takes for idle (RFC
        6298).
        """
        return self.srtt_s + self._varies_s

    def rest(self, at_s: float) -> None:
        """Halve it for every timeout without data until `at_s` (`tcp_cwnd_restart`, RFC 2861).

        The threshold remembers three quarters. BBR, which paces, does not rest.
        """
        rto_s = self.rto_s
        idle_s = at_s - self.sent_s - rto_s
        if idle_s <= 0 or self._congestion == "bbr":
            return
        self.threshold = max(self.threshold, self.segments * 3 // 4)
        while idle_s > 0 and self.segments > FIRST_SEGMENTS:
            self.segments = max(self.segments // 2, FIRST_SEGMENTS)
            idle_s -= rto_s

    def ping(self, at_s: float) -> None:
        """A packet of its own passes while nothing else is under way: no rest lasts longer
        than from one to the next."""
        self.rest(at_s)
        self.sent_s = at_s
        self._smooth(1, self._rtt_s, 0.0)

    def burst(
        self,
        at_s: float,
        segments: int,
        spacing_s: float,
        *,
        more: bool,
        first: bool = False,
        peak: int = 0,
    ) -> None:
        """`segments` leave at `at_s` and pass an empty line, one each `spacing_s`; `more` data
        waits for their acknowledgements. `first`: they did not wait for any themselves. With
        what was under way before, `peak` were so at most since the transfer began."""
        self.sent_s = at_s
        self._smooth(segments / PER_ACK, self._rtt_s, PER_ACK * spacing_s)
        after = math.inf
        if spacing_s <= TRAIN_S:
            lasts_s = (self._rtt_s + spacing_s + TRAIN_SLACK_S) / 2
            after = PER_ACK + lasts_s / max(spacing_s, 1e-12)
        peak = max(peak, segments)
        limited = more or not first or peak >= self.segments
        most = self.segments + segments if limited else 2 * peak
        self._acknowledge(segments, after, most, limited)
        if more:
            self._growing_s += self._rtt_s

    def stream(self, segments: int, spacing_s: float) -> None:
        """`segments` leave on the acknowledgements of others while the line stays busy: there
        is a queue, in which all wait."""
        waits_s = max(self._rtt_s, self.segments * spacing_s)
        self._smooth(segments / PER_ACK, waits_s, 0.0)
        most = self.segments + segments
        self._acknowledge(segments, SAMPLES * PER_ACK, most, limited=True)
        self._growing_s += segments * spacing_s

    def lose(self) -> None:
        """Packets were lost (`cubictcp_recalc_ssthresh`): a window that had not come back to
        where it was before makes room for others (fast convergence)."""
        kept, window = _KEPT[self._congestion], self.segments
        regained = window >= self._most
        self._most = float(window) if regained else window * (1 + kept) / 2
        self.segments = max(int(kept * window), 2)
        self.threshold = self.segments
        self._origin = self._growing_s = self._credit = 0.0

    def _acknowledge(self, segments: int, after: float, most: int, limited: bool) -> None:
        """Grow by the acknowledgements of `segments`, of which HyStart sees enough `after` so
        many: in slow start up to `most`, twice what was under way where no more data waits
        (`tcp_is_cwnd_limited`), later only where the window is the limit."""
        window, left = self.segments, segments
        if window < self.threshold:
            if self.threshold == math.inf and self._congestion == "cubic":
                after = max(LOW_SEGMENTS - window, math.ceil(min(after, segments)))
                if window + after < most and after < segments:
                    self.threshold = most = window + after
            self.segments = max(window, int(min(most, self.threshold)))
            left = segments - (self.segments - window)
        if limited and left > 0 and self.segments >= self.threshold:
            self._avoid(left)

    def _avoid(self, acknowledged: int) -> None:
        """Congestion avoidance (`bictcp_update`, `tcp_cong_avoid_ai`)."""
        window = self.segments
        gain = _GAIN[self._congestion]
        if self._congestion == "cubic":
            gain = max(gain, self._curve() - window)
        if self._most == 0.0:
            gain = max(gain, window / FIRST_COUNT)
        self._credit += acknowledged * min(gain / window, 1 / LEAST_COUNT)
        whole = int(self._credit)
        self.segments = window + whole
        self._credit -= whole

    def _curve(self) -> float:
        """Return where Cubic wants to be a round trip from now."""
        if self._origin == 0.0:
            missing = max(self._most - self.segments, 0.0)
            self._origin = self.segments + missing
            self._returns_s = math.cbrt(missing / CUBIC)
        since_s = self._growing_s + 2 * self._rtt_s - self._returns_s
        return self._origin + CUBIC * since_s**3

    def _smooth(self, samples: float, first_s: float, step_s: float) -> None:
        """Take in round trips that begin at `first_s` and grow by `step_s` (RFC 6298: each
        moves the mean by an eighth, so that it lags behind by seven)."""
        if step_s == math.inf:
            return
        lag_s = 7 * step_s
        behind_s = lag_s + (first_s - self.srtt_s - lag_s) * 0.875**samples
        self.srtt_s = first_s + step_s * samples - behind_s
        self._varies_s -= (self._varies_s - RTO_S) / 4
