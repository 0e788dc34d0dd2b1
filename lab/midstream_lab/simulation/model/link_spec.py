"""The network between an edge and the cloud: what it can carry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import numpy as np

from midstream_lab.simulation.model.congestion_window import Congestion
from midstream_lab.traces.conditions import Condition
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.link import Link
from midstream_wire.errors import UsageError

#: Payload of a full segment, and its IP packet with headers and timestamps.
SEGMENT_NBYTES, PACKET_NBYTES = 1448, 1500
#: What HTTP/2's frames and packets that are not full add to a payload. This and the next were
#: measured over an emulated link of 2 Mbit/s and 40 ms, with 88 and 205 KB.
FRAMING = 0.004
#: Share of a link's rate that is payload: rates count IP packets, as the emulator does.
HEADER_SHARE = SEGMENT_NBYTES / PACKET_NBYTES / (1 + FRAMING)
#: What a session's software adds to an exchange, both directions together: threads that wake,
#: copies, decisions. Over loopback it is 2 ms (docs/results/benchmarks.md).
SOFTWARE_S = 0.0023
#: A queue that holds 100 ms at 20 Mbit/s: what home routers and base stations have and more.
QUEUE_NBYTES = 256 * 1024
#: A first measurement of the link covers so much of it.
FIRST_LOOK_S = 1.0


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
                raise UsageError(f"a link's {name} must be finite and from 0 up ({value!r})")
        if not 0 <= self.loss < 1:
            raise UsageError(f"a link's loss must be a share from 0 to 1 ({self.loss!r})")
        if not (self.queue_nbytes > 0 and 0 < self.share <= 1):
            raise UsageError(
                "a link needs a queue above 0 bytes and a share above 0 and up to 1 (not "
                f"{self.queue_nbytes!r} and {self.share!r})"
            )
        payloads = self._payload(self.uplink), self._payload(self.downlink)
        object.__setattr__(self, "_payloads", payloads)

    @property
    def payload_up(self) -> Trace:
        """Return what of the uplink is left for payload after headers and loss."""
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
        """Return what a measurement at the very beginning finds."""
        rates = []
        for trace in self._payloads:
            carried = trace.nbits_by(offset_s + FIRST_LOOK_S) - trace.nbits_by(offset_s)
            rates.append(max(carried * scale / FIRST_LOOK_S, 1e3))
        return Link(rates[0], rates[1], self.rtt_s, self.fixed_s)

    def mean_link(self, scale: float = 1.0) -> Link:
        """Return what it carries in the long run."""
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
