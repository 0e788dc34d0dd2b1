"""The data behind the report's timelines: few numbers a request, few requests a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from midstream_lab.results.rows import Rows, RunResult

#: More points than a screen has columns are thinned; a page holds so many runs.
MAX_POINTS = 700
MAX_BANDWIDTHS = 600
MAX_RUNS = 240

WHERE = ("cloud", "edge", "edge-before-cloud", "edge-after-cloud-failed")


def placement_of(rows: Rows) -> NDArray[Any]:
    """ "cut codec" of every request."""
    return np.asarray(np.char.add(np.char.add(rows["cut"], " "), rows["codec"]))


def placements(results: Iterable[RunResult]) -> dict[str, tuple[str, ...]]:
    """By model, all placements that were used, from the edge's end to the cloud's."""
    depth: dict[str, dict[str, int]] = {}
    for each in results:
        known = depth.setdefault(each.key.model, {})
        names, counts = placement_of(each.rows).tolist(), each.rows["k"].tolist()
        known |= dict(zip(names, counts, strict=True))
    return {
        model: tuple(sorted(known, key=lambda name: (-known[name], name)))
        for model, known in depth.items()
    }


def timelines(
    results: Sequence[RunResult], ordered: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """One entry per run for the page's script, the first seeds first."""
    chosen = sorted(results, key=lambda each: (each.key.seed, each.key))[:MAX_RUNS]
    return [
        _timeline(each, ordered[each.key.model]) for each in chosen if each.rows.answered.any()
    ]


def _timeline(result: RunResult, ordered: Sequence[str]) -> dict[str, Any]:
    kept = _thinned(result.rows)
    index = {name: at for at, name in enumerate(ordered)}
    bandwidth = np.asarray(result.facts.bandwidth, dtype=np.float64).reshape(-1, 2)
    step = -(-len(bandwidth) // MAX_BANDWIDTHS) or 1
    shift_s = float(np.median(kept["trace_s"] - kept["at_s"]))
    return {
        "model": result.key.model,
        "trace": result.key.trace,
        "policy": result.key.policy,
        "seed": result.key.seed,
        "shift": _rounded([shift_s], 3)[0],
        "t": _rounded(kept["at_s"], 2),
        "ms": _rounded(kept["latency_s"] * 1e3, 1),
        "o": [index[name] for name in placement_of(kept).tolist()],
        "w": [WHERE.index(where) if where in WHERE else 0 for where in kept["where"].tolist()],
        "h": kept["hedged"].astype(int).tolist(),
        "b": _rates(kept["belief_bps"]),
        "lo": _rates(kept["belief_low_bps"]),
        "hi": _rates(kept["belief_high_bps"]),
        "bt": _rounded(bandwidth[::step, 0], 2),
        "bw": _rates(bandwidth[::step, 1]),
        "cuts": [
            _rounded([at_s + shift_s, at_s + shift_s + lasts_s], 2)
            for at_s, lasts_s in result.facts.cuts
        ],
    }


def _thinned(rows: Rows) -> Rows:
    """At most `MAX_POINTS`: of neighbours the slowest stays, so that no trouble is hidden."""
    rows = rows.where(rows.answered)
    count = len(rows)
    if count <= MAX_POINTS:
        return rows
    group = np.arange(count) * MAX_POINTS // count
    order = np.lexsort((-rows["latency_s"], group))
    first = np.unique(group[order], return_index=True)[1]
    mask = np.zeros(count, dtype=np.bool_)
    mask[order[first]] = True
    return rows.where(mask)


def _rounded(values: Iterable[float], digits: int) -> list[float | None]:
    return [
        round(value, digits) if np.isfinite(value) else None for value in map(float, values)
    ]


def _rates(values: Iterable[float]) -> list[float | None]:
    """Mbit/s to three figures."""
    return [
        float(f"{value / 1e6:.3g}") if np.isfinite(value) else None
        for value in map(float, values)
    ]
