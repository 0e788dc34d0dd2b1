"""Offset of the cloud's clock from the edge's, and a request's times by it.

Both sides read monotonic clocks of unknown origin. The offset between them is estimated as
NTP does it (RFC 5905): each exchange gives an offset that is wrong by at most half its delay
(section 8), so the exchange of the lowest delay is kept, and an old one loses against a new
one at the rate at which clocks drift apart (PHI, section 11.1: 15 ppm).

Nothing here reads a clock: readings come in as values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from midstream_partitioner.costs.timings import Timings

#: How fast two clocks may drift apart, in seconds per second (RFC 5905, PHI).
DRIFT = 15e-6
#: So many exchanges are remembered, the shortest of which counts (RFC 5905, the clock filter).
LATELY = 8


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """Four readings in seconds: sent and answered on the edge's clock, the middle two on the
    cloud's. The delay leaves out what the cloud took to answer. `empty`: it carried nothing,
    and nothing was on its way before it."""

    sent_s: float
    received_s: float
    replied_s: float
    answered_s: float
    empty: bool = False

    @property
    def delay_s(self) -> float:
        """Time on the link, both ways; never negative."""
        there_s = self.replied_s - self.received_s
        return max(0.0, self.answered_s - self.sent_s - there_s)

    @property
    def offset_s(self) -> float:
        """Cloud clock minus edge clock, exact where both ways take equally long."""
        return ((self.received_s - self.sent_s) + (self.replied_s - self.answered_s)) / 2


@final
@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """The best exchange seen so far, `None` before the first, and the last empty ones.

    The offset needs the best there ever was. What an empty way takes needs one of lately: a
    phone that changes networks has another path from then on.
    """

    best: Exchange | None = None
    lately: tuple[Exchange, ...] = ()

    def observe(self, exchange: Exchange) -> ClockEstimate:
        """The estimate after `exchange`; one with impossible readings changes nothing."""
        if not math.isfinite(exchange.offset_s):
            return self
        lately = (*self.lately[1 - LATELY :], exchange) if exchange.empty else self.lately
        if self.best is None:
            return ClockEstimate(exchange, lately)
        age_s = exchange.answered_s - self.best.answered_s
        if exchange.delay_s / 2 <= self.best.delay_s / 2 + DRIFT * age_s:
            return ClockEstimate(exchange, lately)
        return ClockEstimate(self.best, lately)

    def to_edge(self, cloud_s: float) -> float | None:
        """A reading of the cloud's clock on the edge's; `None` without an estimate."""
        return None if self.best is None else cloud_s - self.best.offset_s

    def gone_s(self, received_s: float) -> float | None:
        """Return when what the cloud received at `received_s` had left the edge, on its clock,
        if its way up took as long as that of the shortest empty exchange of lately; `None`
        without.

        Exact however that exchange's delay was divided between the two ways: what its offset
        lends to one of them falls out of the difference.
        """
        if not self.lately:
            return None
        least = min(self.lately, key=lambda each: each.delay_s)
        return received_s - (least.received_s - least.sent_s)


@final
@dataclass(frozen=True, slots=True)
class CloudTimes:
    """The cloud's report on one request: its figures, and its clock when it finished."""

    finished_s: float
    queue_s: float
    decode_s: float
    tail_s: float


def split_timings(
    clock: ClockEstimate,
    cloud: CloudTimes,
    *,
    head_s: float,
    encode_s: float,
    total_s: float,
    answered_s: float,
) -> Timings:
    """Timings of a request that the cloud answered; they add up to `total_s`.

    The cloud's figures stand as given while they fit into the time that head and encoding
    leave. What is left besides is the link's: `downlink_s` runs from the cloud's finish to the
    answer by the estimated clock (half of the rest without one), and `uplink_s` is the
    remainder, so it also holds waiting for the link and what the cloud did not account for. No
    field is ever negative, whatever the peer claims.
    """
    left_s = max(0.0, total_s - head_s - encode_s)
    served: list[float] = []
    for claimed_s in (cloud.tail_s, cloud.decode_s, cloud.queue_s):
        served.append(min(max(0.0, claimed_s), left_s))
        left_s -= served[-1]
    finished_s = clock.to_edge(cloud.finished_s)
    downlink_s = left_s / 2 if finished_s is None else answered_s - finished_s
    downlink_s = min(max(0.0, downlink_s), left_s)
    tail_s, decode_s, queue_s = served
    return Timings(
        head_s=head_s,
        encode_s=encode_s,
        uplink_s=left_s - downlink_s,
        queue_s=queue_s,
        decode_s=decode_s,
        tail_s=tail_s,
        downlink_s=downlink_s,
    )
