"""Runs of one cell, the same model, trace and seed, held against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from midstream_lab.results.bootstrap import (
    Draws,
    Floats,
    Ints,
    blocks_of,
    draw,
    resampled_means,
)
from midstream_lab.results.rows import RunResult

ORACLE = "oracle"
RACE = "race"
#: The fixed placement that proved best, chosen per cell in hindsight.
BEST_FIXED = "best-fixed"

Cell = tuple[str, str, int]
#: Mean energy and mean latency of a request.
Point = tuple[float, float]


def is_fixed(policy: str) -> bool:
    """Return True if it holds one placement for the whole run."""
    return policy == "edge-only" or policy.startswith(("fixed:", "cloud-only"))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One run, as far as every policy of its cell saw that part of the trace.

    `block` [N] is each request's block of time; `means_s` [replicates] are the mean latencies
    that other draws of blocks would have given.
    """

    policy: str
    result: RunResult
    cell: Cell
    latency_s: Floats
    block: Ints
    means_s: Floats
    mean_s: float
    energy_j: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All runs that count, cell by cell, and the blocks drawn for each cell."""

    seen: tuple[Seen, ...]
    draws: Mapping[Cell, Draws]

    def of(self, cell: Cell) -> list[Seen]:
        return [each for each in self.seen if each.cell == cell]


def compare(results: Iterable[RunResult], *, seed: int, replicates: int) -> Comparison:
    """Every run cut to what its cell shares; `BEST_FIXED` added where fixed ones ran."""
    members: dict[Cell, list[RunResult]] = {}
    for each in sorted(results, key=lambda result: result.key):
        members.setdefault(each.key.cell, []).append(each)
    rng = np.random.default_rng(seed)
    seen: list[Seen] = []
    draws: dict[Cell, Draws] = {}
    for cell, runs in members.items():
        span = shared_span(each.rows["trace_s"] for each in runs)
        draws[cell] = draw(blocks_of(np.empty(0), *span)[1], rng, replicates=replicates)
        inside = [_see(each, span, draws[cell]) for each in runs]
        seen += [each for each in inside if len(each.latency_s)]
    return Comparison((*seen, *_best_fixed(seen)), draws)


def shared_span(trace_s: Iterable[Floats]) -> tuple[float, float]:
    """From where to where on the trace all runs were under way; empty if nowhere."""
    ends = [(float(each[0]), float(each[-1])) for each in trace_s if len(each)]
    if not ends:
        return 0.0, 0.0
    start_s = max(first for first, _ in ends)
    return start_s, max(start_s, min(last for _, last in ends))


def _see(result: RunResult, span: tuple[float, float], draws: Draws) -> Seen:
    rows = result.rows.where(result.rows.answered)
    rows = rows.where((rows["trace_s"] >= span[0]) & (rows["trace_s"] <= span[1]))
    latency_s = rows["latency_s"]
    block, _ = blocks_of(rows["trace_s"], *span)
    any_left = len(latency_s) > 0
    return Seen(
        policy=result.key.policy,
        result=result,
        cell=result.key.cell,
        latency_s=latency_s,
        block=block,
        means_s=resampled_means(latency_s, block, draws),
        mean_s=float(latency_s.mean()) if any_left else np.nan,
        energy_j=float(rows["energy_j"].mean()) if any_left else np.nan,
    )


def _best_fixed(seen: Iterable[Seen]) -> list[Seen]:
    best: dict[Cell, Seen] = {}
    for each in seen:
        if is_fixed(each.policy):
            known = best.get(each.cell)
            best[each.cell] = each if known is None or each.mean_s < known.mean_s else known
    return [replace(each, policy=BEST_FIXED) for each in best.values()]


def references(comparison: Comparison) -> dict[Cell, Seen]:
    """Return what regret is measured against, by cell: the oracle, where none ran the best
    policy.

    Where an oracle ran in some cells only, the others have no reference.
    """
    oracles = {each.cell: each for each in comparison.seen if each.policy == ORACLE}
    if oracles:
        return oracles
    ranked = sorted(comparison.seen, key=lambda each: -each.mean_s)
    return {each.cell: each for each in ranked}


def behind_equal_energy(each: Seen, rivals: Sequence[Seen]) -> float:
    """Return how much longer the mean latency is than a mixture of `rivals` needs on no more
    energy.

    Racing buys latency with energy, so what races less must not be held against what races
    always: half the requests may race and half may not. NaN where even the thriftiest rival
    spends more.
    """
    points = [(rival.energy_j, rival.mean_s) for rival in rivals]
    best_s = best_mixture_s(points, each.energy_j)
    return each.mean_s / best_s - 1


def best_mixture_s(points: Sequence[Point], energy_j: float) -> float:
    """The smallest mean latency of any mixture of `points` that spends `energy_j` at most."""
    # A hair more is no more: the same policy twice must not be behind itself by rounding.
    affordable = [p for p in points if p[0] <= energy_j * (1 + 1e-9)]
    if not affordable:
        return np.nan
    best_s = min(latency_s for _, latency_s in affordable)
    for low_j, low_s in affordable:
        for high_j, high_s in points:
            if high_j > energy_j and high_s < best_s:
                share = (energy_j - low_j) / (high_j - low_j)
                best_s = min(best_s, low_s + share * (high_s - low_s))
    return best_s
