"""The envelope: the winner by uplink bandwidth, a table of a few exact rows.

With the downlink, the delay and the loads given, a candidate's latency and energy are lines in
x = 1 / uplink_bps, and its pipelined period is the largest of a constant and two lines. The
winner can change only where two of these lines cross, or where one of them meets the deadline.
So all such x are computed, and between two neighbours one candidate wins throughout.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Unpack, final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.planning.planner import Goal, Planner
from midstream_partitioner.units import format_rate
from midstream_wire.errors import PlanError, UsageError

Floats = NDArray[np.float64]

#: Bandwidths closer than this (relative) are one.
ROUNDING = 1e-12


@final
@dataclass(frozen=True, slots=True)
class Row:
    """From `from_bps` up to the next row's, `k` segments on the edge and `codec` win.

    Where nothing meets the deadline, `in_time` is False, and the row names what would be best
    without one.
    """

    from_bps: float
    cut: str
    codec: str
    k: int
    label: str
    in_time: bool = True


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """Rows in ascending `from_bps`, for one objective and one downlink and delay."""

    rows: tuple[Row, ...]
    to_bps: float
    objective: str

    def at(self, uplink_bps: float) -> Row:
        """The row that holds at `uplink_bps`; the first one below the envelope's range."""
        starts = [row.from_bps for row in self.rows]
        return self.rows[max(bisect_right(starts, uplink_bps) - 1, 0)]

    def sentence(self) -> str:
        """ "Below 3.1 Mbit/s: edge-only; from 3.1 Mbit/s to 9.8 Mbit/s: ...; above: ..."."""
        ends = [format_rate(row.from_bps) for row in self.rows]
        parts = []
        for index, row in enumerate(self.rows):
            if len(self.rows) == 1:
                reach = "at every bandwidth"
            elif index == 0:
                reach = f"below {ends[1]}"
            elif index == len(self.rows) - 1:
                reach = f"from {ends[index]} on"
            else:
                reach = f"from {ends[index]} to {ends[index + 1]}"
            late = "" if row.in_time else " (misses the deadline)"
            parts.append(f"{reach}: {row.label}{late}")
        return "; ".join(parts)


@final
@dataclass(frozen=True, slots=True)
class _Lines:
    """By placement: value = max(floor, base + slope x, share latency) over latency's line.

    latency = late_base + late_slope x. `share` of it bounds the distance of two answers, with
    so many requests under way; 0 for the other objectives.
    """

    floor: Floats
    base: Floats
    slope: Floats
    late_base: Floats
    late_slope: Floats
    share: Floats

    def take(self, indices: NDArray[np.intp]) -> _Lines:
        """The lines of some of the placements, in their order."""
        columns = (getattr(self, each.name) for each in fields(self))
        return _Lines(*(column[indices] for column in columns))

    def dominated(self) -> NDArray[np.bool_]:
        """By placement: whether another is never worse, and better or earlier in the order.

        Such a placement wins nowhere. A codec that is slower and larger than another at the
        same cut is one, so that a long ladder costs little.
        """
        columns = np.stack([getattr(self, each.name) for each in fields(self)])
        never_worse = (columns[:, :, None] <= columns[:, None, :]).all(axis=0)
        late = columns[3:5]
        faster = (late[:, :, None] < late[:, None, :]).any(axis=0)
        earlier = np.tri(columns.shape[1], k=-1, dtype=bool).T
        return np.asarray((never_worse & (faster | earlier)).any(axis=0), dtype=np.bool_)

    def winner(self, x: float, deadline_s: float) -> tuple[int, bool]:
        """Index of the best placement at `x`, and whether it is in time."""
        latency_s = self.late_base + self.late_slope * x
        value = np.maximum(self.floor, self.base + self.slope * x)
        value = np.maximum(value, self.share * latency_s)
        in_time = latency_s <= deadline_s
        pool = np.flatnonzero(in_time) if in_time.any() else np.arange(len(value))
        # lexsort is stable: equals keep the order of the placements, as in a plan.
        best = pool[np.lexsort((latency_s[pool], value[pool]))[0]]
        return int(best), bool(in_time.any())

    def crossings(self, deadline_s: float) -> Floats:
        """Every x > 0 at which the winner may change, ascending."""
        window = self.share * self.late_base, self.share * self.late_slope
        bases = np.concatenate(
            [self.base, self.floor, self.late_base, window[0], [deadline_s]]
        )
        flat = np.zeros(len(self.floor))
        slopes = np.concatenate([self.slope, flat, self.late_slope, window[1], [0.0]])
        lines = np.unique(np.stack([bases, slopes]), axis=1)
        base, slope = lines[:, np.isfinite(lines[0])]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (base[:, None] - base[None, :]) / (slope[None, :] - slope[:, None])
        found: Floats = np.unique(x[np.isfinite(x) & (x > 0)])
        # Three lines through one point meet in up to three figures, apart by rounding only.
        distinct: Floats = found[np.diff(found, append=inf) > found * ROUNDING]
        return distinct


def envelope(
    partition: Partition,
    edge: Profile,
    cloud: Profile,
    link: Link,
    *,
    queue_s: float = 0.0,
    from_bps: float = 0.0,
    to_bps: float = inf,
    **goal: Unpack[Goal],
) -> Envelope:
    """Return the winners over uplinks from `from_bps` to `to_bps`; all else of `link` stays.

    Raises `PlanError` if the constraints leave no candidate at any bandwidth, and `UsageError`
    as `Planner` does.
    """
    planner = Planner(partition, edge, cloud, **goal)
    return envelope_of(planner, link, queue_s=queue_s, from_bps=from_bps, to_bps=to_bps)


def envelope_of(
    planner: Planner,
    link: Link,
    *,
    queue_s: float = 0.0,
    from_bps: float = 0.0,
    to_bps: float = inf,
) -> Envelope:
    """As `envelope`, from a planner that is there already.

    O(n^3) in the n candidates that no other beats at every bandwidth, which are few.
    """
    if not 0 <= from_bps < to_bps:
        raise UsageError(
            f"an envelope must span a range of bandwidths (not {from_bps:g} to {to_bps:g} "
            "bit/s): give the lower end first"
        )
    if not planner.allowed:
        planner.plan(link, queue_s=queue_s)  # raises, naming the nearest miss
    lines = _lines(planner, link, queue_s)
    able = np.flatnonzero(~lines.dominated())
    lines = lines.take(able)
    rows = [
        _row(planner.allowed[able[index]], edge_bps, in_time)
        for edge_bps, (index, in_time) in _pieces(lines, planner.deadline_s, from_bps, to_bps)
    ]
    if not any(row.in_time for row in rows):
        raise PlanError(
            f"a candidate must meet the deadline of {planner.deadline_s:g} s at some "
            f"bandwidth from {from_bps:g} to {to_bps:g} bit/s, and none does: allow more time"
        )
    kept = rows[:1] + [
        row for before, row in zip(rows, rows[1:], strict=False) if not _same(before, row)
    ]
    return Envelope(tuple(kept), to_bps, planner.objective)


def _pieces(
    lines: _Lines, deadline_s: float, from_bps: float, to_bps: float
) -> Iterator[tuple[float, tuple[int, bool]]]:
    """Return where each piece begins, in bit/s from the slowest up, and who wins inside it."""
    slowest = 1 / from_bps if from_bps > 0 else inf
    fastest = 1 / to_bps
    inner = lines.crossings(deadline_s)
    inner = inner[(inner > fastest) & (inner < slowest)]
    bounds = [fastest, *inner.tolist(), slowest]
    for low, high in reversed(list(zip(bounds, bounds[1:], strict=False))):
        # Any x inside will do; beyond the last crossing there is no upper end to halve.
        x = (low + high) / 2 if high < inf else (2 * low or 1.0)
        yield (from_bps if high == slowest else 1 / high), lines.winner(x, deadline_s)


def _row(placement: Placement, from_bps: float, in_time: bool) -> Row:
    return Row(from_bps, placement.cut, placement.codec, placement.k, placement.label, in_time)


def _same(one: Row, other: Row) -> bool:
    return one == replace(other, from_bps=one.from_bps)


def _lines(planner: Planner, link: Link, queue_s: float) -> _Lines:
    """Every allowed placement's lines, read off at an infinite uplink (x = 0)."""
    free = replace(link, uplink_bps=inf)
    placements = planner.allowed
    latency = [placement.estimate(free, queue_s).total_s for placement in placements]
    bits = [8.0 * placement.payload_nbytes for placement in placements]
    nowhere = [-inf] * len(placements)
    share = [0.0] * len(placements)
    if planner.objective == "latency":
        columns = (nowhere, latency, bits)
    elif planner.objective == "energy":
        joules = [
            placement.energy_j(planner.device, free, queue_s) for placement in placements
        ]
        columns = (nowhere, joules, [planner.device.tx_w * count for count in bits])
    else:
        pipeline = planner.pipeline
        steady = [placement.steady_s(free, pipeline) for placement in placements]
        columns = (steady, [0.0] * len(placements), bits)
        share = [1 / pipeline.window] * len(placements)
    return _Lines(*(np.array(values) for values in (*columns, latency, bits, share)))
