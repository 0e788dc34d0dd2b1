"""Costs over sizes: what a profile says of sizes that it was not measured at.

The law: every cost is a sum of powers of the sizes with no negative share (a constant, the
size, its square, and products over several dimensions), fitted to what was measured by least
relative squares; and times what is left at the measured buckets, interpolated between
neighbours linearly in logarithms. So it gives back what was measured exactly, and goes on as
the powers do beyond it. A dimension that was measured at one size costs in proportion to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.costs.profile import Bucket, CodecCost, Profile, Stat
from midstream_partitioner.costs.sizes import Sizes, open_names
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec

Floats = NDArray[np.float64]

#: A size of 0 has no logarithm; it counts as less than 1.
_LEAST = 0.5
#: Costs of 0 count as this much of a second or a byte while others are not 0.
_TINY = 1e-9
#: Powers of each dimension: attention is a square, and nothing that networks do is more. Of
#: a dimension with two sizes only the first two can be told apart.
_POWERS = (0, 1, 2)
#: Dimensions that vary at a time; of more, the product of all decides.
_MOST_AXES = 3
#: A law of fewer terms is taken where it is not so many times further off, or than noise is.
_SIMPLER, _NOISE = 1.5, 0.03
#: What counts as 0 in the fit.
_SLOPE = 1e-9


@final
class Law:
    """The law by which costs measured at `points` go on at other sizes.

    `joined` takes all dimensions that vary as one, their product; so does a law over points
    that make no full grid.
    """

    def __init__(self, points: Sequence[Sizes], *, joined: bool = False) -> None:
        self._points = [dict(point) for point in points]
        self.names = [n for n in self._points[0] if all(n in p for p in self._points)]
        columns: dict[tuple[int, ...], list[str]] = {}
        for name in self.names:
            columns.setdefault(tuple(point[name] for point in self._points), []).append(name)
        self._fixed = {n: c[0] for c, ns in columns.items() if len(set(c)) == 1 for n in ns}
        #: Dimensions that always had one size together are one; an axis is a product of these.
        alike = [tuple(names) for column, names in columns.items() if len(set(column)) > 1]
        grid = math.prod(len({point[names[0]] for point in self._points}) for names in alike)
        self.is_grid = grid == len(self._points) and 1 < len(alike) <= _MOST_AXES
        whole = len(alike) > 1 and (joined or not self.is_grid)
        axes = [tuple(alike)] if whole else [(names,) for names in alike]
        self._axes = [
            (axis, np.array([self._log(axis, point) for point in self._points]))
            for axis in axes
        ]
        self._axes = [(axis, logs) for axis, logs in self._axes if np.ptp(logs) > 0]
        powers = [_POWERS[: len(np.unique(logs))] for _, logs in self._axes]
        self._powers = np.array(list(product(*powers)))

    def terms(self, sizes: Sizes) -> Floats:
        """[terms] the powers of `sizes` and their products, 1.0 at the largest measured."""
        return self._terms([self._log(axis, dict(sizes)) for axis, _ in self._axes])

    def design(self) -> Floats:
        """[points, terms] the same at all points."""
        every = zip(*(logs for _, logs in self._axes), strict=True)
        constant = [np.ones(1)] * len(self._points)  # where nothing varies
        return np.array([self._terms(each) for each in every] or constant)

    def weights(self, sizes: Sizes) -> Floats:
        """[points] shares of the points around `sizes`, which add up to 1."""
        weights = np.ones(len(self._points))
        for axis, logs in self._axes:
            weights *= _neighbours(logs, self._log(axis, dict(sizes)))
        weights /= weights.sum()
        return weights

    def proportion(self, sizes: Sizes) -> float:
        """Return how many times larger `sizes` are where one size alone was measured.

        Dimensions without names that are the same axis of several inputs, and have one size,
        count once.
        """
        given, ratios = dict(sizes), {}
        for name, size in self._fixed.items():
            now = given.get(name, size)
            axis = name.rpartition(":")[2] if ":" in name else name
            ratios[axis, size, now] = max(now, _LEAST) / max(size, _LEAST)
        return math.prod(ratios.values())

    def beyond(self, sizes: Sizes) -> tuple[str, ...]:
        """The dimensions whose size lies outside all that was measured."""
        found = {name: [point[name] for point in self._points] for name in self.names}
        return tuple(
            name
            for name, size in sizes
            if name in found and not min(found[name]) <= size <= max(found[name])
        )

    def _log(self, axis: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> float:
        """The axis' coordinate: the logarithm of the product of its dimensions."""
        first = self._points[0]
        return round(
            sum(
                math.log(max(sizes.get(name, first[name]), _LEAST)) / len(names)
                for names in axis
                for name in names
            ),
            9,
        )

    def _terms(self, logs: Sequence[float]) -> Floats:
        scaled = [x - each.max() for x, (_, each) in zip(logs, self._axes, strict=True)]
        terms: Floats = np.exp(self._powers @ np.array(scaled))
        return terms


def check_sized(profile: Profile, specs: Sequence[TensorSpec]) -> None:
    """Raise `UsageError` for a profile that does not say which sizes it was measured at."""
    names = open_names(specs)
    if names and not profile.sizes:
        raise UsageError(
            f"the profile of {profile.device.label()} must say which sizes of "
            f"{', '.join(names)} it was measured at, and was written before profiles did: "
            "measure it again with `midstream profile`"
        )


@final
class Curve:
    """A profile as a function of the sizes that a request has."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._buckets = profile.buckets

    @cached_property
    def law(self) -> Law:
        """Return how its costs go on at other sizes: by their product, where that tells as
        much.

        Pictures of one area cost alike whatever their sides; texts of one number of tokens do
        not where few are long.
        """
        law = Law(self.sizes)
        if not law.is_grid:
            return law
        joined = Law(self.sizes, joined=True)
        told = max(self._misfit(law), _NOISE)
        return joined if self._misfit(joined) <= _SIMPLER * told else law

    def _misfit(self, law: Law) -> float:
        """Return how far the sum of powers is off, in logarithms, for the time of all
        segments.
        """
        whole_s = np.array([[max(_whole_s(b.segments), _TINY)] for b in self._buckets])
        design = law.design()
        fitted = design @ _least_squares(design, whole_s).T
        return float(np.sqrt(np.mean(np.log(whole_s / np.maximum(fitted, _TINY)) ** 2)))

    @property
    def sizes(self) -> tuple[Sizes, ...]:
        """The bindings that were measured."""
        return tuple(bucket.sizes for bucket in self._buckets)

    def at(self, sizes: Sizes) -> Profile:
        """The profile of inputs with `sizes`; of one that was measured, just that.

        Dimensions that `sizes` leaves out have the profile's first sizes.
        """
        wanted = tuple(sorted((dict(self.profile.sizes) | dict(sizes)).items()))
        for bucket in self._buckets:
            if bucket.sizes == wanted or not bucket.sizes:
                return self.profile.holding(bucket)
        return self.profile.holding(self._interpolated(wanted))

    def told(self, sizes: Sizes, whose: str) -> str:
        """Return where figures for `sizes` go beyond what was measured; "" where they do
        not.
        """
        given = dict(sizes)
        found = []
        for name in self.law.beyond(sizes):
            measured = sorted({dict(each)[name] for each in self.sizes})
            ends = f"{measured[0]} to {measured[-1]}" if len(measured) > 1 else measured[0]
            found.append(f"{name}={given[name]} lies beyond the {ends} that {whose} profile "
                         f"was measured at: profile with --size {name}=LOW..HIGH")  # fmt: skip
        return "; ".join(found)

    def left_out(self) -> tuple[tuple[Sizes, float], ...]:
        """Return what the law says of each inner bucket without it: predicted over measured,
        less 1.

        The time of all segments together. Along each dimension the buckets of one size are
        left out at a time; the gap is then twice as wide as those that plans bridge.
        """
        found: dict[Sizes, float] = {}
        for name in self.law.names:
            levels = sorted({dict(bucket.sizes)[name] for bucket in self._buckets})
            for level in levels[1:-1]:
                out = [b for b in self._buckets if dict(b.sizes)[name] == level]
                first, *others = [b for b in self._buckets if b not in out]
                rest = Curve(self.profile.holding(first, others))
                for bucket in out:
                    predicted_s = _whole_s(rest.at(bucket.sizes).segments)
                    error = predicted_s / max(_whole_s(bucket.segments), _TINY) - 1
                    found[bucket.sizes] = max(error, found.get(bucket.sizes, 0.0), key=abs)
        return tuple(found.items())

    def _interpolated(self, sizes: Sizes) -> Bucket:
        values = self._values(sizes)
        timed, priced = 3 * self._segment_count, 3 * len(self._codecs)
        segments_s, codecs, rest = np.split(values, [timed, timed + priced])
        nbytes = [round(value) for value in rest.tolist()]
        replies = len(self.profile.replies_nbytes)
        return Bucket(
            sizes,
            tuple(
                Stat(median_s, low_s, high_s, 0)
                for median_s, low_s, high_s in segments_s.reshape(-1, 3).tolist()
            ),
            tuple(
                _resized(cost, *figures)
                for cost, figures in zip(
                    self._codecs, codecs.reshape(-1, 3).tolist(), strict=True
                )
            ),
            tuple(nbytes[:replies]),
            tuple(nbytes[replies:]),
        )

    def _values(self, sizes: Sizes) -> Floats:
        """[costs] at `sizes`, in the order of `_table`."""
        law, (shares, left) = self.law, self._fit
        values: Floats = shares @ law.terms(sizes) * np.exp(law.weights(sizes) @ left)
        values *= law.proportion(sizes)
        return values

    @cached_property
    def _fit(self) -> tuple[Floats, Floats]:
        """[costs, terms] shares of the powers, [points, costs] logarithms of what is left."""
        table, design = self._table, self.law.design()
        shares = _least_squares(design, np.maximum(table, _TINY))
        shares[(table == 0).all(axis=0)] = 0.0
        fitted = np.maximum(design @ shares.T, _TINY)
        return shares, np.log(np.maximum(table, _TINY) / fitted)

    @cached_property
    def _segment_count(self) -> int:
        return min(len(bucket.segments) for bucket in self._buckets)

    @cached_property
    def _codecs(self) -> list[CodecCost]:
        """The first bucket's costs of what all buckets have."""
        known = [{(c.cut, c.codec) for c in bucket.codecs} for bucket in self._buckets]
        shared = set.intersection(*known)
        return [cost for cost in self._buckets[0].codecs if (cost.cut, cost.codec) in shared]

    @cached_property
    def _table(self) -> Floats:
        """[points, costs]: times of segments, costs of codecs, replies, crossings."""
        return np.array([self._row(bucket) for bucket in self._buckets], dtype=np.float64)

    def _row(self, bucket: Bucket) -> list[float]:
        stats = bucket.segments[: self._segment_count]
        costs = {(cost.cut, cost.codec): cost for cost in bucket.codecs}
        row = [each for s in stats for each in (s.median_s, s.low_s, s.high_s)]
        for shared in self._codecs:
            cost = costs[shared.cut, shared.codec]
            row += [cost.payload_nbytes, cost.encode_s, cost.decode_s]
        crossings = len(self.profile.crossings_nbytes)
        return [*row, *bucket.replies_nbytes, *bucket.crossings_nbytes[:crossings]]


def _resized(cost: CodecCost, payload: float, encode_s: float, decode_s: float) -> CodecCost:
    ratio = payload / cost.payload_nbytes if cost.payload_nbytes else 1.0
    return replace(
        cost,
        payload_nbytes=round(payload),
        encode_s=encode_s,
        decode_s=decode_s,
        payloads_nbytes=tuple(round(ratio * each) for each in cost.payloads_nbytes),
    )


def _least_squares(design: Floats, table: Floats) -> Floats:
    """[costs, terms] shares >= 0 of least relative squares; [points, ...] come in, all > 0."""
    return np.array([_nonnegative(design / column[:, None]) for column in table.T])


def _nonnegative(scaled: Floats) -> Floats:
    """[terms] x >= 0 with the least |scaled x - 1|^2 (Lawson and Hanson 1974, chapter 23)."""
    goal = np.ones(len(scaled))
    x = np.zeros(scaled.shape[1])
    free = np.zeros(len(x), dtype=bool)
    for _ in range(3 * len(x)):
        slope = scaled.T @ (goal - scaled @ x)
        slope[free] = 0.0
        if slope.max() <= _SLOPE:
            break
        free[slope.argmax()] = True
        while True:
            tried = np.zeros(len(x))
            tried[free] = np.linalg.lstsq(scaled[:, free], goal, rcond=None)[0]
            below = free & (tried <= 0)
            if not below.any():
                break
            steps = x[below] / np.maximum(x[below] - tried[below], 1e-300)
            x += steps.min() * (tried - x)
            free &= x > _SLOPE * x.max()
            x[~free] = 0.0
        x = tried
    return x


def _neighbours(logs: Floats, at: float) -> Floats:
    """[points] weights of linear interpolation; beyond the ends the end counts."""
    levels = np.unique(logs)
    upper = int(levels.searchsorted(at).clip(1, len(levels) - 1))
    low, high = levels[upper - 1], levels[upper]
    share = min(max((at - low) / (high - low), 0.0), 1.0)
    alike = np.array([np.count_nonzero(logs == each) for each in logs])
    weights: Floats = np.where(logs == low, 1 - share, 0.0) + np.where(
        logs == high, share, 0.0
    )
    weights /= alike
    return weights


def _whole_s(segments: Sequence[Stat]) -> float:
    return sum(stat.median_s for stat in segments)
