"""How long edge and cloud take for the rest of a network, and how long to wait for either.

Pure: durations come in as values, smoothed by an exponential moving average.
"""

from __future__ import annotations

import math
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
        smoothed_s = smooth(self.measured_s.get(segment), seconds)
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


def smooth(known_s: float | None, seconds: float) -> float:
    """The moving average after one more measurement."""
    return seconds if known_s is None else known_s + GAIN * (seconds - known_s)


def room_waits(
    asked_s: float,
    *,
    timeout_s: float,
    deadline_at_s: float | None,
    whole_s: float | None,
    complete: bool,
) -> tuple[float, float]:
    """Until when a request asked for at `asked_s` waits for room, and until when for anything.

    At the first moment the edge runs all of it alone: so short before the deadline that it
    can just finish, or at once where nobody knows how long that takes (`whole_s`). At the
    second there is no use in it. An edge that is not `complete` has no first moment.
    """
    if deadline_at_s is None:
        late_s = asked_s + timeout_s
        return (late_s, math.inf) if complete else (math.inf, late_s)
    if not complete:
        return math.inf, deadline_at_s
    if whole_s is None:
        return asked_s, deadline_at_s
    return give_up_at(deadline_at_s, rest_s=whole_s), deadline_at_s
