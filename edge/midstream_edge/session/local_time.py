"""Times that edge and cloud take for the rest of a model, and waits derived from them.

Pure: durations come in as values, smoothed by an exponential moving average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

from midstream_partitioner.costs.sizes import Sizes

#: How long the cloud may take for a request that has no deadline of its own.
TIMEOUT_S = 5.0

#: Weight of a new measurement: the last ten or so count, as in TCP's smoothed round trip
#: (RFC 6298 uses 1/8 for the same purpose).
GAIN = 1 / 8

#: Share of the predicted local time, and seconds, kept in hand for its spread.
MARGIN_SHARE = 0.1
MARGIN_S = 0.003


#: Sizes of which measured times are remembered, each a quarter of an octave wide.
MOST_SIZES = 64

#: What is known beforehand: seconds of the rest by its first segment, at any sizes or at some.
DeclaredRest = Mapping[int, float] | Callable[[Sizes], Mapping[int, float]]


@final
@dataclass(frozen=True, slots=True)
class LocalPace:
    """Seconds per segment as measured, and per first segment as declared beforehand.

    Both are for requests of certain sizes, where the network leaves dimensions open.
    """

    segment_count: int
    declared_s: DeclaredRest = field(default_factory=dict)
    measured_s: Mapping[Sizes, Mapping[int, float]] = field(default_factory=dict)

    def observe(self, segment: int, seconds: float, sizes: Sizes = ()) -> LocalPace:
        """The pace after `segment` took `seconds` for a request of `sizes`."""
        bucket = quarter_octaves(sizes)
        others = {key: each for key, each in self.measured_s.items() if key != bucket}
        known = self.measured_s.get(bucket, {})
        smoothed_s = {**known, segment: smooth(known.get(segment), seconds)}
        if len(others) >= MOST_SIZES:
            del others[next(iter(others))]  # the one not seen for longest
        return replace(self, measured_s={**others, bucket: smoothed_s})

    def rest_s(self, first: int, sizes: Sizes = ()) -> float | None:
        """Predicted time of the segments from `first` on; `None` where nothing is known.

        What was not measured at these sizes is what was declared for them, else it is in
        proportion to the nearest sizes that were. Without `sizes`, the latest count.
        """
        measured_s = self._measured(first, quarter_octaves(sizes))
        if measured_s is not None:
            return measured_s
        if callable(self.declared_s):
            return self.declared_s(sizes).get(first)
        volume = _volume(quarter_octaves(sizes))
        latest = reversed(list(self.measured_s))
        nearest = sorted(latest, key=lambda b: abs(_volume(b) - volume) if sizes else 0.0)
        for bucket in nearest:
            there_s = self._measured(first, bucket)
            if there_s is not None:
                return there_s * volume / _volume(bucket) if sizes else there_s
        return self.declared_s.get(first)

    def _measured(self, first: int, bucket: Sizes) -> float | None:
        known_s = self.measured_s.get(bucket, {})
        rest = range(first, self.segment_count)
        return sum(known_s[at] for at in rest) if all(at in known_s for at in rest) else None


def quarter_octaves(sizes: Sizes) -> Sizes:
    """The sizes, in quarters of an octave."""
    return tuple((name, round(4 * math.log2(max(size, 1)))) for name, size in sizes)


def _volume(bucket: Sizes) -> float:
    """The product of all sizes of a bucket."""
    return math.exp2(sum(at for _, at in bucket) / 4)


def give_up_at(deadline_at_s: float, *, rest_s: float, busy_s: float = 0.0) -> float:
    """Last moment at which the edge can begin the rest and still meet the deadline.

    `busy_s` is what the compute thread may be held up by: the head it is running.
    """
    return deadline_at_s - rest_s * (1 + MARGIN_SHARE) - busy_s - MARGIN_S


def left_s(rest_s: float, ran_s: float) -> float:
    """Seconds that a local rest still takes after `ran_s`, where `rest_s` were predicted.

    One that is overdue is taken to need as long again as it is late: something holds the
    device up, and nobody knows for how long.
    """
    return abs(rest_s - ran_s)


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
    """Return until when a request asked for at `asked_s` waits for room, and until when for
    anything.

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


@final
class Again:
    """The rule for sending requests again once a lost link is back: those that the cloud has
    answered sooner than the edge comes to them.

    Asked in the order of the requests; each that goes makes the cloud's answers to the next
    ones later, and each that stays the edge's.
    """

    __slots__ = ("_before_s", "_local_s", "_sent")

    def __init__(self) -> None:
        self._sent = 0
        self._before_s = self._local_s = 0.0

    def is_sooner(self, rest_s: float | None, cloud_s: float | None) -> bool:
        """True where the next request should go: `rest_s` are left of its local rest, and
        `cloud_s` its like took from sending to the reply; None where that is unknown."""
        self._before_s = self._local_s
        self._local_s += math.inf if rest_s is None else rest_s
        return (self._sent + 1) * (cloud_s or 0.0) < self._local_s

    def note_sent(self) -> None:
        """It has gone: the edge need not come to it."""
        self._sent += 1
        self._local_s = self._before_s
