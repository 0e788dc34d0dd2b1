"""Confidence intervals by a block bootstrap: what would other stretches of time have said?

Requests that follow each other meet the same network, so whole blocks of time are drawn, not
single requests (Kuensch, "The jackknife and the bootstrap for general stationary
observations", Annals of Statistics 1989). Policies are compared over the same blocks: what a
hard stretch of a trace costs everybody is no uncertainty about who is better. The traces
themselves are given; nothing is claimed about others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: [replicates, blocks]: how often each block was drawn.
Draws = NDArray[np.int64]

#: Longer than the memory of a mobile link's rate, short enough for twelve in a minute.
BLOCK_S = 5.0
REPLICATES = 1000
#: Fewer blocks in all tell nothing about others: no interval is better than a narrow one.
MIN_BLOCKS = 8
#: Between them lie 95 %.
LOW, HIGH = 0.025, 0.975
#: More requests than these do not narrow a quantile's interval visibly, and take time.
MAX_SAMPLES = 40_000


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where 95 % of the replicates lie; NaN where they are too few."""

    value: float
    low: float
    high: float


def blocks_of(trace_s: Floats, start_s: float, end_s: float) -> tuple[Ints, int]:
    """Each moment's block, and how many blocks there are in [start_s, end_s]."""
    count = max(1, round((end_s - start_s) / BLOCK_S))
    width_s = max(end_s - start_s, 1e-9) / count
    index = np.floor((trace_s - start_s) / width_s).astype(np.int64)
    return np.clip(index, 0, count - 1), count


def draw(blocks: int, rng: np.random.Generator, *, replicates: int) -> Draws:
    """As many blocks as there are, drawn with replacement, `replicates` times."""
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates)


def resampled_means(latency_s: Floats, block: Ints, draws: Draws) -> Floats:
    """The mean latency in every replicate, [replicates]; NaN where no request is left."""
    blocks = draws.shape[1]
    sums = np.bincount(block, weights=latency_s, minlength=blocks)
    sizes = np.bincount(block, minlength=blocks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((draws @ sums) / (draws @ sizes))


def interval(value: float, replicates: Floats, *, blocks: int) -> Interval:
    """`value` with the percentile interval of its replicates, drawn from so many blocks."""
    finite = replicates[np.isfinite(replicates)]
    if blocks < MIN_BLOCKS or not len(finite):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(finite, (LOW, HIGH))
    return Interval(value, float(low), float(high))


def quantile_intervals(
    latency_s: Floats,
    weight: Floats,
    block: Ints,
    draws: Draws,
    shares: tuple[float, ...],
) -> tuple[Interval, ...]:
    """Quantiles of weighted latencies, with intervals.

    `block` [N] indexes the columns of `draws`, those of several cells side by side.
    """
    order = np.argsort(latency_s, kind="stable")
    estimates = _quantiles(latency_s[order], weight[order], shares)
    step = -(-len(order) // MAX_SAMPLES)
    order = order[step // 2 :: step]
    ranked, weights, blocks = latency_s[order], weight[order], block[order]
    found = np.array([_quantiles(ranked, weights * times[blocks], shares) for times in draws])
    return tuple(
        interval(float(value), found[:, at], blocks=draws.shape[1])
        for at, value in enumerate(estimates)
    )


def _quantiles(ranked: Floats, weight: Floats, shares: tuple[float, ...]) -> Floats:
    """Quantiles of ascending values; with equal weights they are numpy's, interpolated."""
    drawn = weight > 0
    ranked, weight = ranked[drawn], weight[drawn]
    if not len(ranked):
        return np.full(len(shares), np.nan)
    before = np.cumsum(weight) - weight
    return np.asarray(np.interp(shares, before / max(before[-1], 1e-300), ranked))
