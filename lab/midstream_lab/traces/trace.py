"""A trace: the rate of one direction of a link, constant from one moment to the next."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt

from midstream_wire.errors import UsageError

Floats = npt.NDArray[np.float64]

#: 28 hours in steps of 100 ms; each step takes about 100 bytes of memory.
MOST_STEPS = 1_000_000
#: No link is faster, and a sum over a trace stays far inside what a double holds.
MOST_BPS = 1e12


@final
@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A rate over time; after its end it begins again.

    `times_s` are the n + 1 edges of n steps, from 0.0 up; `rates_bps` are the n rates between
    them, zero where nothing passes. Both are kept as read-only float64 arrays. `source` says
    where the figures come from. Raises `UsageError` for anything else.
    """

    name: str
    times_s: Floats
    rates_bps: Floats
    source: str = ""
    _edges_s: tuple[float, ...] = field(init=False, repr=False)
    #: Bits through by each edge: what makes `finish_s` a search instead of a walk.
    _bits: tuple[float, ...] = field(init=False, repr=False)
    _rates: tuple[float, ...] = field(init=False, repr=False)

    def __init__(
        self,
        name: str,
        times_s: Sequence[float] | Floats,
        rates_bps: Sequence[float] | Floats,
        source: str = "",
    ) -> None:
        times, rates = _frozen(times_s), _frozen(rates_bps)
        _check(name, times, rates)
        bits = np.concatenate(([0.0], np.cumsum(np.diff(times) * rates)))
        for field_name, value in (
            ("name", name),
            ("times_s", times),
            ("rates_bps", rates),
            ("source", source),
            ("_edges_s", tuple(times.tolist())),
            ("_bits", tuple(bits.tolist())),
            ("_rates", tuple(rates.tolist())),
        ):
            object.__setattr__(self, field_name, value)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trace)
            and (self.name, self._edges_s) == (other.name, other._edges_s)
            and (self.source, self._rates) == (other.source, other._rates)
        )

    def __hash__(self) -> int:
        return hash((self.name, self._edges_s, self._rates))

    @property
    def duration_s(self) -> float:
        return self._edges_s[-1]

    @property
    def mean_bps(self) -> float:
        return self._bits[-1] / self.duration_s

    def rate_at(self, at_s: float) -> float:
        """The rate at a moment, which may lie beyond the end."""
        step = bisect_right(self._edges_s, at_s % self.duration_s) - 1
        return self._rates[min(step, len(self._rates) - 1)]

    def nbits_by(self, at_s: float) -> float:
        """Return how many bits can have passed from 0 until `at_s`."""
        rounds, at_s = divmod(at_s, self.duration_s)
        step = min(bisect_right(self._edges_s, at_s), len(self._rates)) - 1
        inside = self._bits[step] + (at_s - self._edges_s[step]) * self._rates[step]
        return rounds * self._bits[-1] + inside

    def finish_s(self, start_s: float, nbytes: float) -> float:
        """Return when `nbytes` that begin at `start_s` are through, with the link to
        themselves.

        O(log n). `math.inf` if nothing ever passes.
        """
        if nbytes <= 0:
            return start_s
        whole = self._bits[-1]
        if whole == 0:
            return math.inf
        wanted = self.nbits_by(start_s) + 8 * nbytes
        # The last round is one that ends with the last bit or after it, never at its start.
        rounds = math.ceil(wanted / whole) - 1
        rest = min(max(wanted - rounds * whole, 0.0), whole)
        step = max(bisect_left(self._bits, rest) - 1, 0)
        inside_s = (rest - self._bits[step]) / self._rates[step] if self._rates[step] else 0.0
        end_s = rounds * self.duration_s + self._edges_s[step] + inside_s
        return max(start_s, end_s)

    def silent_since(self, at_s: float) -> float:
        """The beginning of the silence in which `at_s` lies; `at_s` itself where there is
        none, minus infinity where nothing ever passes.
        """
        rounds, inside_s = divmod(at_s, self.duration_s)
        first = step = min(bisect_right(self._edges_s, inside_s), len(self._rates)) - 1
        since_s = at_s
        while self._rates[step] == 0:
            since_s = rounds * self.duration_s + self._edges_s[step]
            rounds, step = (rounds, step - 1) if step else (rounds - 1, len(self._rates) - 1)
            if step == first:
                return -math.inf
        return since_s

    def resampled(self, step_s: float) -> Trace:
        """The same bits in steps of `step_s` (the last may be shorter)."""
        if not (step_s > 0 and math.isfinite(step_s)):
            raise UsageError(f"a step must be above zero and finite (not {step_s!r} s)")
        count = math.ceil(self.duration_s / step_s - 1e-9)
        if count > MOST_STEPS:
            raise UsageError(
                f"a trace must have at most {MOST_STEPS} steps ({self.duration_s:g} s in "
                f"steps of {step_s:g} s have {count}): take a longer step"
            )
        edges = np.append(np.arange(count) * step_s, self.duration_s)
        bits = np.interp(edges, self.times_s, np.array(self._bits))
        return Trace(self.name, edges, np.diff(bits) / np.diff(edges), self.source)

    def scaled(self, factor: float) -> Trace:
        """All rates times `factor`."""
        if not (factor > 0 and math.isfinite(factor)):
            raise UsageError(f"a factor must be above zero and finite (not {factor!r})")
        return Trace(self.name, self.times_s, self.rates_bps * factor, self.source)

    def cut(self, from_s: float, to_s: float) -> Trace:
        """The piece between two moments inside the trace, from 0 on."""
        if not 0 <= from_s < to_s <= self.duration_s:
            raise UsageError(
                f"a piece must lie within 0 s and {self.duration_s:g} s and have a length "
                f"(not {from_s:g} s to {to_s:g} s)"
            )
        inner = self.times_s[(self.times_s > from_s) & (self.times_s < to_s)]
        edges = np.concatenate(([from_s], inner, [to_s]))
        steps = np.searchsorted(self.times_s, edges[:-1], side="right") - 1
        return Trace(self.name, edges - from_s, self.rates_bps[steps], self.source)

    def looped(self, duration_s: float) -> Trace:
        """As long as asked for: repeated from its beginning, or only that beginning."""
        if not (duration_s > 0 and math.isfinite(duration_s)):
            raise UsageError(
                f"a duration must be above zero and finite (not {duration_s!r} s)"
            )
        rounds = math.ceil(duration_s / self.duration_s)
        if rounds * len(self._rates) > MOST_STEPS:
            raise UsageError(
                f"a trace must have at most {MOST_STEPS} steps ({self.name} repeated for "
                f"{duration_s:g} s has more): resample it, or ask for less"
            )
        starts = np.arange(rounds)[:, None] * self.duration_s + self.times_s[:-1]
        edges = np.append(starts.ravel(), rounds * self.duration_s)
        whole = Trace(self.name, edges, np.tile(self.rates_bps, rounds), self.source)
        return whole.cut(0.0, min(duration_s, whole.duration_s))


def _frozen(values: Sequence[float] | Floats) -> Floats:
    copied = np.array(values, dtype=np.float64)
    copied.setflags(write=False)
    return copied


def _check(name: str, times_s: Floats, rates_bps: Floats) -> None:
    if times_s.ndim != 1 or rates_bps.ndim != 1 or len(times_s) != len(rates_bps) + 1:
        raise UsageError(
            "a trace must have one more time than rates: the edges of its steps "
            f"({name} has {times_s.size} times and {rates_bps.size} rates)"
        )
    if not 1 <= len(rates_bps) <= MOST_STEPS:
        raise UsageError(
            f"a trace must have 1 to {MOST_STEPS} steps ({name} has {len(rates_bps)})"
        )
    if times_s[0] != 0 or not np.isfinite(times_s).all() or (np.diff(times_s) <= 0).any():
        raise UsageError(f"the times of a trace must rise from 0 ({name}'s do not)")
    wrong = ~((rates_bps >= 0) & (rates_bps <= MOST_BPS))  # also what is no number
    if wrong.any():
        at = int(np.argmax(wrong))
        raise UsageError(
            f"the rates of a trace must lie within 0 and 1 Tbit/s ({name} has "
            f"{float(rates_bps[at])!r} bit/s at {times_s[at]:g} s)"
        )
