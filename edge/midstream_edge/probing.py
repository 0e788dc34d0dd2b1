"""When to ask a silent link how fast it is, and with how many bytes.

While all requests run on the edge nothing is heard of the link, and its getting better would
go unnoticed. So a few bytes are sent now and then, within a budget: 1 % of the traffic or
0.13 Mbit/s, whichever is more. Pure: moments come in as values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from midstream_edge.policies.values import LinkState

#: What probes may take of the uplink: bytes a second, or this share of all bytes sent.
BUDGET_NBYTES_PER_S = 0.13e6 / 8
BUDGET_SHARE = 0.01
#: Unused budget is kept for this long, so that one probe can be longer than usual.
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


@final
@dataclass(frozen=True, slots=True)
class ProbeBudget:
    """What probes may still send, and when the link last said something."""

    at_s: float
    allowance_nbytes: float = 0.0
    heard_at_s: float = float("-inf")
    traffic_nbytes: int = 0
    probed_nbytes: int = 0

    @property
    def share(self) -> float:
        """The probes' part of all that was sent; 0.0 before anything was."""
        total_nbytes = self.traffic_nbytes + self.probed_nbytes
        return self.probed_nbytes / total_nbytes if total_nbytes else 0.0

    def heard(self, at_s: float, nbytes: int) -> ProbeBudget:
        """The budget after a request has sent `nbytes` and its answer has come."""
        earned = self._earned(at_s, nbytes)
        heard_at_s = max(self.heard_at_s, at_s) if nbytes >= LEAST_NBYTES else self.heard_at_s
        return replace(
            earned, heard_at_s=heard_at_s, traffic_nbytes=self.traffic_nbytes + nbytes
        )

    def probed(self, at_s: float, nbytes: int) -> ProbeBudget:
        """The budget after a probe of `nbytes` was sent."""
        earned = self._earned(at_s, 0)
        spent_nbytes = nbytes + OVERHEAD_NBYTES
        return replace(
            earned,
            allowance_nbytes=earned.allowance_nbytes - spent_nbytes,
            heard_at_s=max(self.heard_at_s, at_s),
            probed_nbytes=self.probed_nbytes + spent_nbytes,
        )

    def _earned(self, at_s: float, nbytes: int) -> ProbeBudget:
        gone_s = max(0.0, at_s - self.at_s)
        earned_nbytes = max(BUDGET_NBYTES_PER_S * gone_s, BUDGET_SHARE * nbytes)
        allowance_nbytes = min(
            self.allowance_nbytes + earned_nbytes, BUDGET_NBYTES_PER_S * KEEP_S
        )
        return replace(self, at_s=max(self.at_s, at_s), allowance_nbytes=allowance_nbytes)


def probe_due(
    budget: ProbeBudget, now_s: float, *, uplink_bps: float, link: LinkState = "connected"
) -> int:
    """Bytes of a probe to send now; 0 while the link speaks, is not well, or the budget lacks.

    `uplink_bps` is what the link is believed to carry.
    """
    if link != "connected" or now_s - budget.heard_at_s < SILENT_S:
        return 0
    nbytes = int(min(max(uplink_bps * PROBE_S / 8, LEAST_NBYTES), MOST_NBYTES))
    left_nbytes = budget._earned(now_s, 0).allowance_nbytes
    return nbytes if nbytes + OVERHEAD_NBYTES <= left_nbytes else 0
