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
    """Whether the largest entry along the last axis stands at the same place everywhere.

    Where several entries are the largest to rounding (`EXACT`), any of their places will do.
    """
    return all(
        name in given and _same_argmax(made, given[name])
        for name, made in expected.items()
        if made.ndim and made.size
    )


def _same_argmax(expected: Array, given: Array) -> bool:
    if expected.shape != given.shape:
        return False
    wanted, found = (np.argmax(array, axis=-1)[..., None] for array in (expected, given))
    differ = wanted != found
    if not differ.any():
        return True
    top, picked = (
        np.take_along_axis(expected, at, axis=-1)[differ].astype(np.float64)
        for at in (wanted, found)
    )
    return bool((top - picked <= EXACT * np.abs(top)).all())


def _error(expected: Array, given: Array | None) -> float:
    if given is None or expected.shape != given.shape:
        return math.inf
    if expected.tobytes() == given.tobytes():
        return 0.0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    reference, value = expected.astype(wide), given.astype(wide)
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    if same.all():
        return 0.0
    difference = np.abs(value[~same] - reference[~same]).max()
    if not math.isfinite(difference):
        return math.inf
    finite = np.abs(reference[np.isfinite(reference)])
    return float(difference) / (float(finite.max(initial=0.0)) or 1.0)
