"""One direction of a network in virtual time: how TCP gets bytes through it."""

from __future__ import annotations

import math
from typing import NamedTuple, final

from midstream_lab.simulation.model.congestion_window import FIRST_SEGMENTS, Window
from midstream_lab.simulation.model.link_spec import (
    FRAMING,
    HEADER_SHARE,
    SEGMENT_NBYTES,
    Network,
)
from midstream_lab.traces.trace import Trace

#: What a full segment carries of a payload, the rest being HTTP/2's frames.
SEGMENT_PAYLOAD_NBYTES = SEGMENT_NBYTES / (1 + FRAMING)

#: TCP's patience over its smoothed round trip, about: four deviations are half of it where own
#: bytes queue. A queue longer than this is the link's silence, and no round trip.
DEVIATIONS, MOST_QUEUED_S = 1.5, 2.0


class Flight(NamedTuple):
    """`segments` that were sent together; the first acknowledgement comes at `known_s`."""

    known_s: float
    segments: int
    spacing_s: float

    def unknown(self, now_s: float) -> int:
        """Return how many of them are not known to have arrived."""
        if now_s < self.known_s:
            return self.segments
        known = 1 + (now_s - self.known_s) / max(self.spacing_s, 1e-12)
        return 0 if known >= self.segments else self.segments - int(known)

    def until(self, known_s: float) -> Flight:
        """Those of them that are known to have arrived at `known_s`; no others were sent."""
        return self._replace(segments=self.segments - self.unknown(known_s))


@final
class Line:
    """One direction while a simulation runs: bytes in order, one transfer after the other.

    A transfer goes out in rounds, a window each, until acknowledgements come back while the
    line is still busy. What of a window the queue cannot hold is lost, and costs the round
    trips that it takes to notice. The trace of payload begins at `offset_s`, its rates are
    multiplied by `scale`.
    """

    __slots__ = (
        "_began_nbytes",
        "_congestion",
        "_delay_s",
        "_first_nbytes",
        "_flights",
        "_handed_nbytes",
        "_offset_s",
        "_queue_segments",
        "_rate_bps",
        "_rtt_s",
        "_scale",
        "_sent_nbytes",
        "_since_s",
        "_took_s",
        "began_s",
        "free_s",
        "trace",
        "window",
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
        self._congestion = network.congestion
        self._delay_s = (network.rtt_s + network.fixed_s) / 2
        # One more than the queue holds passes: the one on the line.
        self._queue_segments = 1 + int(
            network.queue_nbytes * HEADER_SHARE / SEGMENT_PAYLOAD_NBYTES
        )
        self._first_nbytes = FIRST_SEGMENTS * SEGMENT_PAYLOAD_NBYTES
        self.window = Window(network.rtt_s, network.congestion)
        self._flights: list[Flight] = []  # not all known to have arrived, the oldest first
        #: When the last transfer began to leave, and when the line will be free again.
        self.began_s = 0.0
        self._began_nbytes = 0.0  # TCP's window then
        self._sent_nbytes = 0.0  # by the last transfer
        self._took_s = 0.0  # the last long one
        self._since_s = 0.0  # busy without a pause from then on
        self._handed_nbytes = 0.0  # what was handed over since, less what was taken back
        self.free_s = 0.0

    def send(self, at_s: float, nbytes: float, partial: int = 0) -> float:
        """Return when `nbytes` handed over at `at_s` have arrived at the other end.

        `partial` is by how many they take more segments than full ones would be.
        """
        free_s = self.free_s
        if free_s == math.inf:
            self._handed_nbytes += nbytes
            return math.inf
        if self._sent_nbytes > self._first_nbytes:
            self._took_s = free_s - self.began_s
        self._sent_nbytes = nbytes
        start_s = at_s if at_s > free_s else free_s
        if start_s >= free_s + self._rtt_s:
            self.window.rest(start_s)
        self.began_s = start_s
        if start_s > free_s:
            self._since_s = start_s
            self._handed_nbytes = nbytes
        else:
            self._handed_nbytes += nbytes
        self._began_nbytes = self.window.segments * SEGMENT_PAYLOAD_NBYTES
        end_s = self._carry(start_s, nbytes, partial)
        self.free_s = end_s
        return end_s + self._delay_s

    def ping(self, at_s: float) -> None:
        """A packet of the session's own passes, so small that nothing waits for it."""
        if at_s >= self.free_s + self._rtt_s:
            self.window.ping(at_s)

    def backlog_nbytes(self, now_s: float) -> int:
        """Return what was handed over and is not known to have arrived: acknowledgements take
        a round trip.
        """
        seen_s = now_s - self._rtt_s
        if self.free_s <= seen_s:
            return 0
        return round(self._left_nbytes(max(seen_s, self._since_s)))

    def passed_nbytes(self, start_s: float, now_s: float) -> int:
        """Return what a transfer that began at `start_s` is known at `now_s` to have
        carried.
        """
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
        known_nbytes = self.passed_nbytes(self.began_s, at_s)
        window_nbytes = min(
            self.window.segments * SEGMENT_PAYLOAD_NBYTES,
            self._began_nbytes + known_nbytes,  # it grows as acknowledgements come
        )
        flown_s = max(self._through_s(at_s, window_nbytes), self.began_s)
        if flown_s >= self.free_s:
            return 0
        taken_nbytes = self._left_nbytes(flown_s)
        self._handed_nbytes -= taken_nbytes
        self.free_s = flown_s
        self._flights[:] = [each.until(flown_s + self._rtt_s) for each in self._flights]
        return round(taken_nbytes)

    def drop(self, now_s: float) -> int:
        """Lose what has not passed by now; returns how many bytes that is."""
        lost_nbytes = self._left_nbytes(now_s) if self.free_s > now_s else 0.0
        self.free_s = min(self.free_s, now_s)
        self._flights.clear()
        return round(lost_nbytes)

    def renew(self, now_s: float) -> None:
        """Forget what was under way, as a fresh connection does."""
        self.free_s = self.began_s = self._since_s = now_s
        self._handed_nbytes = 0.0
        self._flights.clear()
        self.window = Window(self._rtt_s, self._congestion)
        self.window.sent_s = now_s

    def rate_bps(self, now_s: float) -> float:
        """Return what the line carries at that moment."""
        return self._rate_bps or self.trace.rate_at(now_s + self._offset_s) * self._scale

    def silent_s(self, now_s: float) -> float:
        """For how long nothing has passed although something was waiting to."""
        if self.free_s <= now_s or self.rate_bps(now_s) > 0:
            return 0.0
        return self._silence_s(now_s)

    @property
    def patience_s(self) -> float:
        """Return how long TCP finds it normal to wait for an acknowledgement: its smoothed
        round trip and four deviations (RFC 6298). The last packet of a long transfer has
        waited for all before it, and some twenty acknowledgements leave little of what was
        before.
        """
        return DEVIATIONS * (self._rtt_s + min(self._took_s, MOST_QUEUED_S))

    def _silence_s(self, now_s: float) -> float:
        since_s = self.trace.silent_since(now_s + self._offset_s) - self._offset_s
        return now_s - max(since_s, self._since_s)

    def _through_s(self, start_s: float, nbytes: float) -> float:
        offset_s = self._offset_s
        return self.trace.finish_s(start_s + offset_s, nbytes / self._scale) - offset_s

    def _left_nbytes(self, at_s: float) -> float:
        """Return what is still to pass at a moment since which the line has been busy.

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

    def _carry(self, start_s: float, nbytes: float, partial: int) -> float:
        """The end of a transfer, burst by burst: what the window has room for, then what
        acknowledgements make room for, those of earlier transfers first."""
        window, flights = self.window, self._flights
        left = math.ceil(nbytes / SEGMENT_PAYLOAD_NBYTES) + partial
        each_nbytes = nbytes / left if partial else SEGMENT_PAYLOAD_NBYTES
        flying = 0
        if flights:
            flights[:] = [flight for flight in flights if flight.unknown(start_s)]
            flying = sum(flight.unknown(start_s) for flight in flights)
        end_s, peak, most = start_s, 0, left
        clocked = 0  # leave one by one on acknowledgements, while the line drains
        while True:
            burst = max(min(window.segments - flying, left, most), 0)
            if burst - clocked > self._queue_segments:
                flights.clear()
                passed, end_s, start_s = self._overflow(start_s, burst, left, each_nbytes)
                left -= passed
                nbytes = max(0.0, nbytes - passed * each_nbytes)
                if not left or end_s == math.inf:
                    return end_s
                flying, clocked = 0, left  # what is left leaves on acknowledgements
                continue
            left -= burst
            begins_s = max(start_s, end_s)
            if burst:
                passing_nbytes = burst * each_nbytes if left else nbytes
                end_s = self._through_s(begins_s, passing_nbytes)
                nbytes -= passing_nbytes
            if end_s == math.inf:
                return end_s
            if burst:
                spacing_s = (end_s - begins_s) / burst
                peak = max(peak, flying + burst)
                window.burst(
                    start_s, burst, spacing_s, more=left > 0, first=not clocked, peak=peak
                )
                known_s = begins_s + spacing_s + self._rtt_s
                flights.append(Flight(known_s, burst, spacing_s))
            if not left:
                return end_s
            earliest = flights.pop(0)
            if end_s >= earliest.known_s and not flights:
                return self._stream(end_s, nbytes, left)
            start_s = max(start_s, earliest.known_s)
            flying = sum(flight.segments for flight in flights)
            clocked, most = earliest.segments, 2 * earliest.segments

    def _stream(self, start_s: float, nbytes: float, left: int) -> float:
        """The end of `left` segments that leave on acknowledgements, the line being busy."""
        window = self.window
        end_s = self._through_s(start_s, nbytes)
        if end_s == math.inf:
            return end_s
        spacing_s = (end_s - start_s) / left
        full = self._queue_segments + self._rtt_s / max(spacing_s, 1e-12)
        last = min(window.segments, left)
        while left > 0:
            passing = min(window.segments, left)
            window.stream(passing, spacing_s)
            if window.segments > full:
                window.lose()
            left -= passing
        known_s = end_s - (last - 1) * spacing_s + self._rtt_s
        self._flights[:] = [Flight(known_s, last, spacing_s)]
        queued_s = max(0.0, window.segments * spacing_s - self._rtt_s)
        window.sent_s = max(window.sent_s, end_s - queued_s)
        return end_s

    def _overflow(
        self, start_s: float, burst: int, left: int, each_nbytes: float
    ) -> tuple[int, float, float]:
        """Return how many segments pass of a `burst`, of which the queue does not hold the
        last, and what follows it; when they have; and when the lost ones leave again.

        Where other data follows them, its acknowledgements tell of the loss a round trip after
        the last one that got through. Where none does, a probe has to, after two smoothed
        round trips (`tcp_schedule_loss_probe`, RFC 8985), and its answer lets all go again.
        """
        window, rtt_s = self.window, self._rtt_s
        passed = self._queue_segments
        end_s = self._through_s(start_s, passed * each_nbytes)
        if end_s == math.inf:
            return passed, end_s, end_s
        window.burst(start_s, passed, (end_s - start_s) / passed, more=True)
        window.lose()
        again_s = end_s + rtt_s
        following = min(left - burst, passed)  # they leave on the acknowledgements of the rest
        if following:
            begins_s = max(end_s, start_s + rtt_s)
            end_s = self._through_s(begins_s, following * each_nbytes)
        else:
            again_s += 2 * window.srtt_s + rtt_s
        window.sent_s = max(window.sent_s, again_s)
        return passed + following, end_s, again_s
