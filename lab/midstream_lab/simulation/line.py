"""One direction of a network in virtual time: how TCP gets bytes through it."""

from __future__ import annotations

import math
from typing import final

from midstream_lab.simulation.network import HEADER_SHARE, SEGMENT_NBYTES, Network
from midstream_lab.traces import Trace

#: RFC 6928.
FIRST_SEGMENTS = 10
#: Cubic (RFC 9438): what it keeps of its window after a loss, segments a cubic second by which
#: it then returns to where that was and goes beyond, and segments a round trip in any case.
KEPT, CUBIC, LEAST_GROWTH = 0.7, 0.4, 3 * (1 - 0.7) / (1 + 0.7)
#: What Linux adds to the round trip before it retransmits, and takes for idle (tcp_rto_min).
RTO_S = 0.2
#: Its patience over its smoothed round trip, about: four deviations are half of it where own
#: bytes queue. A queue longer than this is the link's silence, and no round trip.
DEVIATIONS, MOST_QUEUED_S = 1.5, 2.0


@final
class Line:
    """One direction while a simulation runs: bytes in order, one transfer after the other.

    TCP's window starts at ten segments and doubles each round trip until the line is full;
    it halves with every timeout that the line lies idle (Linux's tcp_cwnd_restart). A window
    that leaves at once and is more than the queue holds loses packets: it shrinks and grows
    as Cubic's does from then on, so that a long payload goes out in rounds. The trace of
    payload begins at `offset_s`, its rates are multiplied by `scale`.
    """

    __slots__ = (
        "_delay_s",
        "_first_nbytes",
        "_growing_s",
        "_handed_nbytes",
        "_most_nbytes",
        "_offset_s",
        "_queue_nbytes",
        "_rate_bps",
        "_rtt_s",
        "_scale",
        "_sent_nbytes",
        "_since_s",
        "_threshold_nbytes",
        "_took_s",
        "_window_nbytes",
        "began_s",
        "free_s",
        "trace",
    )

    def __init__(
        self, network: Network, payload: Trace, *, offset_s: float = 0.0, scale: float = 1.0
    ) -> None:
        self.trace = payload
        self._offset_s = offset_s
        self._scale = scale
        rates = payload.rates_bps
        self._rate_bps = float(rates[0]) * scale if len(rates) == 1 else 0.0
        self._rtt_s = network.rtt_s
        self._delay_s = (network.rtt_s + network.fixed_s) / 2
        self._queue_nbytes = network.queue_nbytes * HEADER_SHARE  # of payload
        self._threshold_nbytes = math.inf  # where slow start ends: the window after a loss
        self._most_nbytes = 0.0  # where the window was when packets were lost, about
        self._growing_s = 0.0  # how long it has grown since
        self._first_nbytes = float(FIRST_SEGMENTS * SEGMENT_NBYTES)
        self._window_nbytes = self._first_nbytes
        #: When the last transfer began to leave, and when the line will be free again.
        self.began_s = 0.0
        self._sent_nbytes = 0.0  # by the last transfer
        self._took_s = 0.0  # the last long one
        self._since_s = 0.0  # busy without a pause from then on
        self._handed_nbytes = 0.0  # what was handed over since, less what was taken back
        self.free_s = 0.0

    def send(self, at_s: float, nbytes: float) -> float:
        """When `nbytes` handed over at `at_s` have arrived at the other end."""
        free_s = self.free_s
        if free_s == math.inf:
            self._handed_nbytes += nbytes
            return math.inf
        if self._sent_nbytes > self._first_nbytes:
            self._took_s = free_s - self.began_s
        self._sent_nbytes = nbytes
        start_s = at_s if at_s > free_s else free_s
        idle_s = start_s - free_s
        if idle_s > RTO_S and self._window_nbytes > self._first_nbytes:
            self._rest(idle_s)
        self.began_s = start_s
        if start_s > free_s:
            self._since_s = start_s
            self._handed_nbytes = nbytes
        else:
            self._handed_nbytes += nbytes
        if nbytes > self._window_nbytes or nbytes > self._queue_nbytes:
            end_s = self._grow(start_s, nbytes)
        elif self._rate_bps:
            end_s = start_s + nbytes * 8 / self._rate_bps
        else:
            end_s = self._through_s(start_s, nbytes)
        self.free_s = end_s
        return end_s + self._delay_s

    def backlog_nbytes(self, now_s: float) -> int:
        """What was handed over and is not known to have arrived: acknowledgements take a
        round trip."""
        seen_s = now_s - self._rtt_s
        if self.free_s <= seen_s:
            return 0
        return round(self._left_nbytes(max(seen_s, self._since_s)))

    def passed_nbytes(self, start_s: float, now_s: float) -> int:
        """What a transfer that began at `start_s` is known at `now_s` to have carried."""
        seen_s = min(now_s - self._rtt_s, self.free_s)
        if seen_s <= start_s:
            return 0
        return int(self._left_nbytes(max(start_s, self._since_s)) - self._left_nbytes(seen_s))

    def still_s(self, now_s: float) -> float:
        """For how long no packet has been acknowledged although some wait to be."""
        seen_s = now_s - self._rtt_s
        if self.free_s <= seen_s or seen_s <= self._since_s:
            return 0.0
        rate_bps = self.rate_bps(seen_s)
        if not rate_bps:
            return self._silence_s(seen_s)
        begun_nbytes = (self._handed_nbytes - self._left_nbytes(seen_s)) % SEGMENT_NBYTES
        return begun_nbytes * 8 / rate_bps

    def stop(self, at_s: float, arrives_s: float) -> int:
        """Take back what of the last transfer, which would arrive at `arrives_s`, TCP has not
        sent by `at_s`: a window's worth is under way or in the queue. Of an earlier one
        nothing is taken back: others have counted on it. Returns the bytes taken back.
        """
        if arrives_s < self.free_s + self._delay_s or self.free_s <= at_s:
            return 0
        flown_s = max(self._through_s(at_s, self._window_nbytes), self.began_s)
        if flown_s >= self.free_s:
            return 0
        taken_nbytes = self._left_nbytes(flown_s)
        self._handed_nbytes -= taken_nbytes
        self.free_s = flown_s
        return round(taken_nbytes)

    def drop(self, now_s: float) -> int:
        """Lose what has not passed by now; returns how many bytes that is."""
        lost_nbytes = self._left_nbytes(now_s) if self.free_s > now_s else 0.0
        self.free_s = min(self.free_s, now_s)
        return round(lost_nbytes)

    def renew(self, now_s: float) -> None:
        """Forget what was under way, as a fresh connection does."""
        self.free_s = self.began_s = self._since_s = now_s
        self._handed_nbytes = 0.0
        self._window_nbytes = self._first_nbytes
        self._threshold_nbytes = math.inf
        self._most_nbytes = 0.0

    def rate_bps(self, now_s: float) -> float:
        """What the line carries at that moment."""
        return self._rate_bps or self.trace.rate_at(now_s + self._offset_s) * self._scale

    def silent_s(self, now_s: float) -> float:
        """For how long nothing has passed although something was waiting to."""
        if self.free_s <= now_s or self.rate_bps(now_s) > 0:
            return 0.0
        return self._silence_s(now_s)

    @property
    def patience_s(self) -> float:
        """How long TCP finds it normal to wait for an acknowledgement: its smoothed round trip
        and four deviations (RFC 6298). The last packet of a long transfer has waited for all
        before it, and some twenty acknowledgements leave little of what was before.
        """
        return DEVIATIONS * (self._rtt_s + min(self._took_s, MOST_QUEUED_S))

    def _silence_s(self, now_s: float) -> float:
        since_s = self.trace.silent_since(now_s + self._offset_s) - self._offset_s
        return now_s - max(since_s, self._since_s)

    def _through_s(self, start_s: float, nbytes: float) -> float:
        offset_s = self._offset_s
        return self.trace.finish_s(start_s + offset_s, nbytes / self._scale) - offset_s

    def _left_nbytes(self, at_s: float) -> float:
        """What is still to pass at a moment since which the line has been busy.

        Windows may leave it idle in between: what was handed over is spread over the bits
        that could have passed.
        """
        trace, offset_s = self.trace, self._offset_s
        first_bits = trace.nbits_by(self._since_s + offset_s)
        by_now_bits = trace.nbits_by(at_s + offset_s) - first_bits
        if self.free_s == math.inf:
            return max(0.0, self._handed_nbytes - by_now_bits * self._scale / 8)
        bits = trace.nbits_by(self.free_s + offset_s) - first_bits
        return self._handed_nbytes * (1 - by_now_bits / bits) if bits > 0 else 0.0

    def _rest(self, idle_s: float) -> None:
        """Halve the window for every timeout that went by."""
        timeouts = int(idle_s / (self._rtt_s + RTO_S))
        halved = self._window_nbytes / 2 ** min(timeouts, 60)
        self._window_nbytes = max(halved, self._first_nbytes)

    def _grow(self, start_s: float, nbytes: float) -> float:
        """The end of a transfer that is longer than the window: round after round, until
        acknowledgements come back while the line is still busy."""
        left = nbytes
        window = burst = self._window_nbytes
        if min(window, nbytes) > self._queue_nbytes:
            burst = self._queue_nbytes
            window = self._lose(window)
        while True:
            end_s = self._through_s(start_s, min(burst, left))
            left -= burst
            if left <= 0:
                break
            next_s = start_s + self._rtt_s
            if end_s >= next_s:
                end_s = self._through_s(end_s, left)
                break
            start_s = next_s
            if window < self._threshold_nbytes:
                window = min(2 * window, self._threshold_nbytes)
            else:
                window = self._more(window)
            burst = window
        self._window_nbytes = min(window, self._full_nbytes(end_s))
        return end_s

    def _lose(self, window: float) -> float:
        """The window after packets of `window` were lost. One that had not come back to where
        it was before makes room for others (fast convergence)."""
        regained = window >= self._most_nbytes
        self._most_nbytes = window if regained else window * (1 + KEPT) / 2
        self._growing_s = 0.0
        self._threshold_nbytes = max(KEPT * window, self._first_nbytes)
        return self._threshold_nbytes

    def _more(self, window: float) -> float:
        """The window a round trip later."""
        self._growing_s += self._rtt_s
        missing = max(self._most_nbytes - self._threshold_nbytes, 0.0) / SEGMENT_NBYTES
        since_s = self._growing_s - math.cbrt(missing / CUBIC)
        cubic = self._most_nbytes + CUBIC * since_s**3 * SEGMENT_NBYTES
        return max(window + LEAST_GROWTH * SEGMENT_NBYTES, cubic)

    def _full_nbytes(self, at_s: float) -> float:
        """Where a window must end: what is under way in a round trip, and a full queue."""
        pipe_nbytes = self.rate_bps(at_s) * self._rtt_s / 8 if at_s < math.inf else 0.0
        return max(pipe_nbytes + self._queue_nbytes, self._first_nbytes)
