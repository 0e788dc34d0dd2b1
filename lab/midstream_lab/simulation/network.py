"""The network between an edge and the cloud: what it can carry, and how TCP gets it there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np

from midstream_lab.conditions import Condition
from midstream_lab.traces import Trace
from midstream_partitioner.link import Link
from midstream_wire.errors import UsageError

#: Payload of a full segment, and its IP packet with headers and timestamps.
SEGMENT_NBYTES, PACKET_NBYTES = 1448, 1500
#: What HTTP/2's frames and packets that are not full add to a payload. This and the next were
#: measured over an emulated link of 2 Mbit/s and 40 ms, with 88 and 205 KB.
FRAMING = 0.004
#: Share of a link's rate that is payload: rates count IP packets, as the emulator does.
HEADER_SHARE = SEGMENT_NBYTES / PACKET_NBYTES / (1 + FRAMING)
#: What a session's software adds to an exchange, both directions together: threads that wake,
#: copies, decisions. Over loopback it is 2 ms (docs/benchmarks.md).
SOFTWARE_S = 0.0023
#: RFC 6928.
FIRST_SEGMENTS = 10
#: A queue that holds 100 ms at 20 Mbit/s: what home routers and base stations have and more.
QUEUE_NBYTES = 256 * 1024
#: What of its window Cubic keeps after a loss (RFC 9438).
KEPT = 0.7
#: What Linux adds to the round trip before it retransmits, and takes for idle (tcp_rto_min).
RTO_S = 0.2
#: Its patience over its smoothed round trip, about: four deviations are half of it where own
#: bytes queue. A queue longer than this is the link's silence, and no round trip.
DEVIATIONS, MOST_QUEUED_S = 1.5, 2.0
#: A first measurement of the link covers so much of it.
FIRST_LOOK_S = 1.0

Congestion = Literal["cubic", "reno", "bbr"]


@final
@dataclass(frozen=True, slots=True)
class Network:
    """Both directions of a link. Rates are of payload times `1 / share`.

    `rtt_s` is the round trip on the idle link, `fixed_s` what the software adds to an
    exchange, `jitter_s` the mean of what each direction adds at random (exponential). `loss`
    is the share of packets lost, which slows TCP down as `tcp_bps` says. `share` is
    `HEADER_SHARE` where rates count headers, as traces and emulators do, else 1.
    """

    uplink: Trace
    downlink: Trace
    rtt_s: float
    fixed_s: float = SOFTWARE_S
    jitter_s: float = 0.0
    loss: float = 0.0
    congestion: Congestion = "cubic"
    queue_nbytes: int = QUEUE_NBYTES
    share: float = 1.0
    _payloads: tuple[Trace, Trace] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("rtt_s", "fixed_s", "jitter_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(
                    f"a network's {name} must be finite and from 0 up ({value!r})"
                )
        if not 0 <= self.loss < 1:
            raise UsageError(f"a network's loss must be a share from 0 to 1 ({self.loss!r})")
        if not (self.queue_nbytes > 0 and 0 < self.share <= 1):
            raise UsageError(
                "a network needs a queue above 0 bytes and a share above 0 and up to 1 (not "
                f"{self.queue_nbytes!r} and {self.share!r})"
            )
        payloads = self._payload(self.uplink), self._payload(self.downlink)
        object.__setattr__(self, "_payloads", payloads)

    @property
    def payload_up(self) -> Trace:
        """What of the uplink is left for payload after headers and loss."""
        return self._payloads[0]

    @property
    def payload_down(self) -> Trace:
        """The same of the downlink."""
        return self._payloads[1]

    @classmethod
    def of(
        cls,
        condition: Condition,
        *,
        uplink: Trace | None = None,
        downlink: Trace | None = None,
        jitter_s: float = 0.0,
        loss: float = 0.0,
    ) -> Network:
        """The network of `condition`, whose rates are of payload; traces replace its rates
        and count headers."""
        return cls(
            uplink or steady(condition.uplink_bps / HEADER_SHARE),
            downlink or steady(condition.downlink_bps / HEADER_SHARE),
            condition.rtt_s,
            jitter_s=jitter_s,
            loss=loss,
            share=HEADER_SHARE,
        )

    def first_look(self, offset_s: float = 0.0, scale: float = 1.0) -> Link:
        """What a measurement at the very beginning finds."""
        rates = []
        for trace in self._payloads:
            carried = trace.nbits_by(offset_s + FIRST_LOOK_S) - trace.nbits_by(offset_s)
            rates.append(max(carried * scale / FIRST_LOOK_S, 1e3))
        return Link(rates[0], rates[1], self.rtt_s, self.fixed_s)

    def mean_link(self, scale: float = 1.0) -> Link:
        """What it carries in the long run."""
        up, down = (max(trace.mean_bps * scale, 1e3) for trace in self._payloads)
        return Link(up, down, self.rtt_s, self.fixed_s)

    def tcp_bps(self) -> float:
        """The rate of payload that loss leaves to a long transfer.

        Reno: 1.22 segments a round trip over the square root of the loss (Mathis et al., CCR
        1997). Cubic: RFC 9438, equation 6 with C = 0.4 and beta = 0.7, never below Reno. BBR
        takes no notice (what was lost is sent again).
        """
        if self.loss == 0:
            return math.inf
        if self.congestion == "bbr":
            return math.inf
        rtt_s = max(self.rtt_s, 1e-3)
        segments = 1.22 / math.sqrt(self.loss)
        if self.congestion == "cubic":
            segments = max(segments, 1.054 * (rtt_s / self.loss) ** 0.75)
        return segments * SEGMENT_NBYTES * 8 / rtt_s

    def _payload(self, trace: Trace) -> Trace:
        rates = np.minimum(trace.rates_bps * self.share * (1 - self.loss), self.tcp_bps())
        return Trace(trace.name, trace.times_s, rates, trace.source)


def steady(rate_bps: float) -> Trace:
    """A trace that never changes."""
    return Trace("steady", (0.0, 1.0), (rate_bps,))


@final
class Line:
    """One direction while a simulation runs: bytes in order, one transfer after the other.

    TCP's window starts at ten segments and doubles each round trip until the line is full;
    it halves with every timeout that the line lies idle (Linux's tcp_cwnd_restart). A window
    that leaves at once and is more than the queue holds loses packets: it shrinks, and grows
    by a segment a round trip from then on, so that a long payload goes out in rounds. The
    trace of payload begins at `offset_s`, its rates are multiplied by `scale`.
    """

    __slots__ = (
        "_delay_s",
        "_first_nbytes",
        "_handed_nbytes",
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
            window = self._threshold_nbytes = max(KEPT * window, self._first_nbytes)
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
            threshold = self._threshold_nbytes
            slow = window < threshold
            window = burst = min(2 * window, threshold) if slow else window + SEGMENT_NBYTES
        self._window_nbytes = min(window, self._full_nbytes(end_s))
        return end_s

    def _full_nbytes(self, at_s: float) -> float:
        """Where a window must end: what is under way in a round trip, and a full queue."""
        pipe_nbytes = self.rate_bps(at_s) * self._rtt_s / 8 if at_s < math.inf else 0.0
        return max(pipe_nbytes + self._queue_nbytes, self._first_nbytes)
