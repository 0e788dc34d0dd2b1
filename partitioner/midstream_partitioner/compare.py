"""How far two answers of a network lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from midstream_wire.tensors import Array

#: Two ways of computing the same network may differ by this much, relative to the largest
#: output: onnxruntime optimises across what a cut keeps apart, which reorders sums.
EXACT = 1e-5


def relative_error(expected: Mapping[str, Array], given: Mapping[str, Array]) -> float:
    """Largest difference over all outputs, each relative to its own largest magnitude.

    0.0 for equal outputs, NaNs and infinities included; infinite where one side has a number
    and the other none, where an output is missing, and where shapes differ.
    """
    errors = (_error(made, given.get(name)) for name, made in expected.items())
    return max(errors, default=0.0)


def argmax_equal(expected: Mapping[str, Array], given: Mapping[str, Array]) -> bool:
    """Whether the largest entry along the last axis stands at the same place everywhere."""
    return all(
        name in given
        and np.array_equal(np.argmax(made, axis=-1), np.argmax(given[name], axis=-1))
        for name, made in expected.items()
        if made.ndim and made.size
    )


def _error(expected: Array, given: Array | None) -> float:
    if given is None or expected.shape != given.shape:
        return math.inf
    if expected.tobytes() == given.tobytes():
        return 0.0
    reference, value = expected.astype(np.float64), given.astype(np.float64)
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    if same.all():
        return 0.0
    difference = np.abs(value[~same] - reference[~same]).max()
    if not math.isfinite(difference):
        return math.inf
    finite = np.abs(reference[np.isfinite(reference)])
    return float(difference) / (float(finite.max(initial=0.0)) or 1.0)
