"""How long the rest of a network takes on the edge, and when to stop waiting for the cloud.

Pure: durations come in as values, smoothed per segment by an exponential moving average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

#: How long the cloud may take for a request that has no deadline of its own.
TIMEOUT_S = 5.0

#: Weight of a new measurement: the last ten or so count, as in TCP's smoothed round trip
#: (RFC 6298 uses 1/8 for the same purpose).
GAIN = 1 / 8

#: Share of the predicted local time, and seconds, kept in hand for its spread.
MARGIN_SHARE = 0.1
MARGIN_S = 0.003


@final
@dataclass(frozen=True, slots=True)
class LocalPace:
    """Seconds per segment as measured, and per first segment as declared beforehand."""

    segment_count: int
    declared_s: Mapping[int, float] = field(default_factory=dict)
    measured_s: Mapping[int, float] = field(default_factory=dict)

    def observe(self, segment: int, seconds: float) -> LocalPace:
        """The pace after `segment` took `seconds`."""
        known_s = self.measured_s.get(segment, seconds)
        smoothed_s = known_s + GAIN * (seconds - known_s)
        return replace(self, measured_s={**self.measured_s, segment: smoothed_s})

    def rest_s(self, first: int) -> float | None:
        """Predicted time of the segments from `first` on; `None` where nothing is known."""
        rest = range(first, self.segment_count)
        if all(segment in self.measured_s for segment in rest):
            return sum(self.measured_s[segment] for segment in rest)
        return self.declared_s.get(first)


def give_up_at(deadline_at_s: float, *, rest_s: float, busy_s: float = 0.0) -> float:
    """Last moment at which the edge can begin the rest and still meet the deadline.

    `busy_s` is what the compute thread may be held up by: the head it is running.
    """
    return deadline_at_s - rest_s * (1 + MARGIN_SHARE) - busy_s - MARGIN_S
