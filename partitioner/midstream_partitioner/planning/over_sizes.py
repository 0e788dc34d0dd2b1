"""Plans over the sizes of a network's open dimensions: which one wins from which size on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.size_spans import Spans, nominal_sizes
from midstream_partitioner.costs.sizes import Sizes, listed
from midstream_partitioner.planning.plan import Candidate
from midstream_partitioner.planning.planner import Planner

#: Sizes of one dimension that are planned before the changes between them are looked for.
_STEPS = 24


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """From size `first` to `last` of a dimension, `k` segments on the edge and `codec` win."""

    first: int
    last: int
    cut: str
    codec: str
    k: int
    label: str


@final
@dataclass(frozen=True, slots=True)
class SizeCurve:
    """The winners along one dimension, or several tied by "=", the others as in `others`.

    `samples` are sizes with the candidate that wins there, ascending.
    """

    name: str
    others: Sizes
    pieces: tuple[Piece, ...]
    samples: tuple[tuple[int, Candidate], ...]

    def sentence(self) -> str:
        """ "over seq: from 8 to 143: edge-only; from 144 to 512: cloud-only raw"."""
        if len(self.pieces) == 1:
            parts = [f"at every size from {self.pieces[0].first} to {self.pieces[0].last}: "
                     f"{self.pieces[0].label}"]  # fmt: skip
        else:
            parts = [f"from {p.first} to {p.last}: {p.label}" for p in self.pieces]
        where = f" (at {listed(self.others)})" if self.others else ""
        return f"over {self.name}{where}: {'; '.join(parts)}"


def over_sizes(
    planner: Planner, link: Link, spans: Spans, *, queue_s: float = 0.0
) -> tuple[SizeCurve, ...]:
    """A curve for each dimension that `spans` gives several sizes of.

    Between sizes that are next to each other one plan wins throughout, unless it does so twice
    with another in between on less than a step. Raises `PlanError` where nothing is allowed.
    """
    nominal = dict(planner.sizes) | dict(nominal_sizes(spans))
    return tuple(
        _curve(planner, link, name, sizes, nominal, queue_s)
        for name, sizes in spans
        if not isinstance(sizes, int)
    )


def _curve(
    planner: Planner,
    link: Link,
    name: str,
    sizes: tuple[int, ...],
    nominal: dict[str, int],
    queue_s: float,
) -> SizeCurve:
    tied = name.split("=")
    others = tuple((other, size) for other, size in nominal.items() if other not in tied)

    def best(size: int) -> Candidate:
        if size not in known:
            here = tuple(sorted((*others, *((each, size) for each in tied))))
            known[size] = planner.at(here).plan(link, queue_s=queue_s).chosen
        return known[size]

    known: dict[int, Candidate] = {}
    steps = sorted({*sizes, *_between(sizes[0], sizes[-1])})
    samples = tuple((size, best(size)) for size in steps)
    starts = [steps[0]]
    for low, high in zip(steps, steps[1:], strict=False):
        starts += _changes(best, low, high)
    ends = [*(start - 1 for start in starts[1:]), steps[-1]]
    pieces = (
        Piece(first, last, (won := best(first)).cut, won.codec, won.k, won.label)
        for first, last in zip(starts, ends, strict=True)
    )
    return SizeCurve(name, others, tuple(pieces), samples)


def _between(low: int, high: int) -> list[int]:
    ratio = high / max(low, 1)
    return [round(max(low, 1) * ratio ** (at / _STEPS)) for at in range(1, _STEPS)]


def _changes(best: Callable[[int], Candidate], low: int, high: int) -> Iterator[int]:
    """The sizes in (low, high] from which on another placement wins than at the one before."""
    if _placement(best(low)) == _placement(best(high)):
        return
    if high - low == 1:
        yield high
        return
    middle = (low + high) // 2
    yield from _changes(best, low, middle)
    yield from _changes(best, middle, high)


def _placement(candidate: Candidate) -> tuple[int, str]:
    return candidate.k, candidate.codec
