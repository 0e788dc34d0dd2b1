"""The budget of probes: when to measure a silent link, and with how many bytes.

While all requests run on the edge nothing is heard of the link, and its getting better would
go unnoticed. So a few bytes are sent now and then: at most so many in any 24 hours, and never
more than a small part of a link at once. Pure: moments come in as values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from midstream_edge.link.observations import LinkState
from midstream_partitioner.units import format_nbytes, parse_nbytes
from midstream_wire.errors import UsageError

#: How often the link is looked at: a break or a silence is noticed so much later.
TICK_S = 0.05

#: What probes may send in any 24 hours, unless another budget is given.
DAY_NBYTES = 50e6
#: Part of a day's budget that may be spent at any time of it; the rest is earned evenly. It is
#: five minutes of probing at the full pace, and earned again in a little over two hours.
STOCK = 0.1
#: What probes may take of the uplink while there is stock: bytes a second.
PACE_NBYTES_PER_S = 0.13e6 / 8
#: Unused pace is kept for this long, so that one probe can be longer than usual.
KEEP_S = 2.0
#: A link that has said nothing for so long is asked: a rise is noticed within twice that.
SILENT_S = 0.45
#: A probe should take so long at the rate believed, to be told from jitter.
PROBE_S = 0.02
#: Less than two segments measure the delay and nothing else. More than TCP's initial window
#: (ten segments, RFC 6928, to which an idle connection falls back) measures slow start: the
#: rest waits for acknowledgements, and the link looks as fast as a round trip lets it.
LEAST_NBYTES, MOST_NBYTES = 2 * 1460, 9 * 1448
#: What framing adds to a probe and its answer, about.
OVERHEAD_NBYTES = 128

_DAY_S = 86400.0


@final
@dataclass(frozen=True, slots=True)
class ProbeBudget:
    """The bytes that probes may still send, and when the link was last heard.

    `day_nbytes` bounds what they send in any 24 hours; 0: nothing is probed. The budget is
    earned from `at_s` on, or from whatever moment it is told of first.
    """

    at_s: float = float("-inf")
    day_nbytes: float = DAY_NBYTES
    allowance_nbytes: float = 0.0
    drawn_nbytes: float = 0.0
    heard_at_s: float = float("-inf")
    traffic_nbytes: int = 0
    probed_nbytes: int = 0

    def __post_init__(self) -> None:
        least_nbytes = (LEAST_NBYTES + OVERHEAD_NBYTES) / STOCK
        if self.day_nbytes and not least_nbytes <= self.day_nbytes < float("inf"):
            raise UsageError(
                f"a budget for probes must be 0, or at least {format_nbytes(least_nbytes)} a "
                f"day, of which one probe is a tenth (not {self.day_nbytes:g} bytes): allow "
                "more, or switch them off with 0"
            )

    @property
    def share(self) -> float:
        """The probes' part of all that was sent; 0.0 before anything was."""
        total_nbytes = self.traffic_nbytes + self.probed_nbytes
        return self.probed_nbytes / total_nbytes if total_nbytes else 0.0

    @property
    def stock_nbytes(self) -> float:
        """The most that is ever kept of a day's budget."""
        return STOCK * self.day_nbytes

    @property
    def left_nbytes(self) -> float:
        """Return what may be sent now."""
        return min(self.allowance_nbytes, self.stock_nbytes - self.drawn_nbytes)

    def heard(self, at_s: float, nbytes: int) -> ProbeBudget:
        """The budget after a request has sent `nbytes` and its answer has come."""
        heard_at_s = max(self.heard_at_s, at_s) if nbytes >= LEAST_NBYTES else self.heard_at_s
        return replace(
            self.earned(at_s),
            heard_at_s=heard_at_s,
            traffic_nbytes=self.traffic_nbytes + nbytes,
        )

    def probed(self, at_s: float, nbytes: int) -> ProbeBudget:
        """The budget after a probe of `nbytes` was sent."""
        earned, spent_nbytes = self.earned(at_s), nbytes + OVERHEAD_NBYTES
        return replace(
            earned,
            allowance_nbytes=earned.allowance_nbytes - spent_nbytes,
            drawn_nbytes=earned.drawn_nbytes + spent_nbytes,
            heard_at_s=max(self.heard_at_s, at_s),
            probed_nbytes=self.probed_nbytes + spent_nbytes,
        )

    def earned(self, at_s: float) -> ProbeBudget:
        """The budget at a later moment at which nothing was sent."""
        gone_s = max(0.0, at_s - self.at_s)
        allowance_nbytes = self.allowance_nbytes + PACE_NBYTES_PER_S * gone_s
        regained_nbytes = (1 - STOCK) * self.day_nbytes / _DAY_S * gone_s
        return replace(
            self,
            at_s=max(self.at_s, at_s),
            allowance_nbytes=min(allowance_nbytes, PACE_NBYTES_PER_S * KEEP_S),
            drawn_nbytes=max(0.0, self.drawn_nbytes - regained_nbytes),
        )


def parse_budget(text: str) -> float:
    """Bytes a day from "50MB/day", or 0 from "0"; otherwise raises `UsageError`."""
    size, _, period = text.partition("/")
    if text.strip() == "0":
        return 0.0
    if period.strip() != "day":
        raise UsageError(
            f"a budget for probes must be a size a day (not {text!r}): write 50MB/day, or 0 "
            "for none"
        )
    return ProbeBudget(day_nbytes=parse_nbytes(size.strip())).day_nbytes


def probe_due(
    budget: ProbeBudget, now_s: float, *, uplink_bps: float, link: LinkState = "connected"
) -> int:
    """Bytes of a probe to send now; 0 while the link speaks, is not well, or the budget lacks.

    `uplink_bps` is what the link is believed to carry.
    """
    if link != "connected" or now_s - budget.heard_at_s < SILENT_S or not budget.day_nbytes:
        return 0
    most_nbytes = min(MOST_NBYTES, budget.stock_nbytes - OVERHEAD_NBYTES)
    nbytes = int(min(max(uplink_bps * PROBE_S / 8, LEAST_NBYTES), most_nbytes))
    return nbytes if nbytes + OVERHEAD_NBYTES <= budget.earned(now_s).left_nbytes else 0


def probe_tells(handed_nbytes: int, now_nbytes: int) -> bool:
    """Say if a probe measured the link and nothing else.

    `handed_nbytes` is what requests had handed over when the probe left, `now_nbytes` when
    its answer came. A request that leaves in between shares the line with the probe, and its
    encoder and decoder the processors that read the clocks; and it tells of the link itself.
    """
    return now_nbytes == handed_nbytes
