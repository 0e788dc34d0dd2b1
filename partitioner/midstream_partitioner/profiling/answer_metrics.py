"""Metrics of answers: distance from the whole model's, and accuracy of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.compare import EXACT
from midstream_partitioner.costs.calibration import (
    MOST_DEVIATION,
)
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

Floats = NDArray[np.float64]


#: (outputs by name, label) -> how good they are; the more, the better, 1 being perfect.
Score = Callable[[Mapping[str, Array], object], float]


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """A model's accuracy metric: a name, and a score for one sample's outputs.

    `score` is given the label; without labels, the unsplit network's outputs.
    """

    name: str
    score: Score


def deviation(
    expected: Mapping[str, Array], given: Mapping[str, Array]
) -> tuple[float, float, float]:
    """(relative L2, cosine, agreement) of one sample's outputs: of several, the worst of each.

    Relative to the Euclidean norm of what was expected, at most `MOST_DEVIATION`. Agreement
    is the share of places whose largest entry along the last axis stays; largest to rounding
    counts. Outputs without such an axis agree where whole numbers and booleans are equal.
    """
    pairs = [(array, given[name]) for name, array in expected.items()]
    found = [_deviation(*pair) for pair in pairs] or [(0.0, 1.0, 1.0)]
    l2, cosine, agreement = zip(*found, strict=True)
    return max(l2), min(cosine), min(agreement)


def _deviation(expected: Array, given: Array) -> tuple[float, float, float]:
    if expected.shape != given.shape:
        return MOST_DEVIATION, 0.0, 0.0
    if expected.tobytes() == given.tobytes():
        return 0.0, 1.0, 1.0
    agreement = _agreement(expected, given)
    reference, value = (np.ravel(a).astype(np.float64) for a in (expected, given))
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    wide = np.isfinite(reference) & np.isfinite(value)
    if not (same | wide).all():
        return MOST_DEVIATION, 0.0, agreement
    reference, value = reference[wide], value[wide]
    norm, other = float(np.linalg.norm(reference)), float(np.linalg.norm(value))
    off = float(np.linalg.norm(value - reference))
    if norm == 0 or other == 0:
        return (0.0, 1.0, agreement) if off == 0 else (MOST_DEVIATION, 0.0, agreement)
    cosine = float(reference @ value) / (norm * other)
    return min(off / norm, MOST_DEVIATION), cosine, agreement


def _agreement(expected: Array, given: Array) -> float:
    if expected.size == 0:
        return 1.0
    if expected.ndim < 2 or expected.shape[-1] < 2:
        exact = expected.dtype.kind in "iub"
        return float((expected == given).mean()) if exact else 1.0
    wanted, found = (np.argmax(array, axis=-1)[..., None] for array in (expected, given))
    top, picked = (
        np.take_along_axis(expected, at, axis=-1).astype(np.float64) for at in (wanted, found)
    )
    close = top - picked <= EXACT * np.abs(top)
    return float(((wanted == found) | close).mean())


def scores_output(part: Partition) -> str:
    """The output that labels are about: a row of scores for every sample."""
    for spec in part.outputs:
        if len(spec.shape) == 2 and "float" in spec.dtype and spec.shape[1] != 1:
            return spec.name
    came = ", ".join(f"{spec.name}: {spec}" for spec in part.outputs)
    raise UsageError(
        f"labels need an output of scores [batch, classes] (the model gives {came}): give "
        "--metric python:module:function instead"
    )


def rank_scores(scores: Array, labels: Array) -> tuple[float, float]:
    """Shares of rows whose label comes first, and among the first five."""
    told = np.asarray(labels).reshape(-1)
    if told.dtype.kind not in "iuf" or not np.array_equal(told, np.trunc(told)):
        raise UsageError(
            f"labels must be whole numbers, classes of the model (not {told.tolist()[:4]}): "
            "give those, or a metric that takes these"
        )
    wanted = told.astype(np.int64)
    count, classes = scores.shape
    if len(wanted) != count or wanted.min() < 0 or wanted.max() >= classes:
        raise UsageError(
            f"labels must be classes from 0 to {classes - 1}, one a sample (not "
            f"{wanted.tolist()[:4]} for {count}): give the labels of these data"
        )
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    first = np.argmax(scores, axis=1) == wanted
    above = (scores > own).sum(axis=1)
    return float(first.mean()), float((above < 5).mean()) if classes > 5 else np.nan


def score_answer(metric: Metric, outputs: Mapping[str, Array], label: object) -> float:
    try:
        value = float(metric.score(outputs, label))
    except Exception as error:  # whatever the user's function raises
        raise UsageError(
            f"the metric {metric.name} must return a number for outputs and label, and "
            f"raised {type(error).__name__}: {error}"
        ) from None
    if not np.isfinite(value):
        raise UsageError(f"the metric {metric.name} must return a finite number (not {value})")
    return value


def mean_of(values: Floats) -> float | None:
    mean = float(values.mean())
    return mean if np.isfinite(mean) else None


def points_lost(whole: float | None, score: float | None) -> float | None:
    return None if whole is None or score is None else 100 * (whole - score)
