"""Distances between two answers of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_wire.tensors import Array

#: Two ways of computing the same network may differ by this much, relative to the largest
#: output: onnxruntime optimises across what a cut keeps apart, which reorders sums.
EXACT = 1e-5


@final
@dataclass(frozen=True, slots=True)
class Apart:
    """The distance of one output from what it should be; infinite where it cannot be told.

    `relative` is `absolute` over the output's largest magnitude. `moved` is by how much, on
    the same scale, the entry that is the largest now was smaller than the one that should be:
    0 where the largest entry along the last axis stands at the same place everywhere.
    """

    absolute: float
    relative: float
    moved: float

    def __or__(self, other: Apart) -> Apart:
        """Return the worse of both."""
        return Apart(
            max(self.absolute, other.absolute),
            max(self.relative, other.relative),
            max(self.moved, other.moved),
        )


def apart(expected: Array, given: Array | None) -> Apart:
    """Compare one output; NaNs and infinities equal themselves."""
    if given is None or expected.shape != given.shape:
        return Apart(math.inf, math.inf, math.inf)
    if expected.tobytes() == given.tobytes():
        return Apart(0.0, 0.0, 0.0)
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    reference, value = expected.astype(wide), given.astype(wide)
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    if same.all():
        return Apart(0.0, 0.0, 0.0)
    absolute = float(np.abs(value[~same] - reference[~same]).max())
    absolute = absolute if math.isfinite(absolute) else math.inf
    finite = np.abs(reference[np.isfinite(reference)])
    scale = float(finite.max(initial=0.0)) or 1.0
    return Apart(absolute, absolute / scale, _moved(expected, given) / scale)


def relative_error(expected: Mapping[str, Array], given: Mapping[str, Array]) -> float:
    """Largest difference over all outputs, each relative to its own largest magnitude.

    0.0 for equal outputs, NaNs and infinities included; infinite where one side has a number
    and the other none, where an output is missing, and where shapes differ.
    """
    errors = (apart(made, given.get(name)).relative for name, made in expected.items())
    return max(errors, default=0.0)


def argmax_equal(expected: Mapping[str, Array], given: Mapping[str, Array]) -> bool:
    """Return True if the largest entry along the last axis stands at the same place
    everywhere.

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
    top, picked = _largest(expected, given)
    return bool((top - picked <= EXACT * np.abs(top)).all())


def _moved(expected: Array, given: Array) -> float:
    if not expected.ndim or not expected.size or expected.dtype.kind == "c":
        return 0.0
    top, picked = _largest(expected, given)
    gap = float((top - picked).max(initial=0.0))
    return gap if math.isfinite(gap) else math.inf


def _largest(expected: Array, given: Array) -> tuple[Array, Array]:
    """Return what should be the largest entry, and what was picked, wherever these are not
    one.
    """
    wanted, found = (np.argmax(array, axis=-1)[..., None] for array in (expected, given))
    differ = wanted != found
    top, picked = (
        np.take_along_axis(expected, at, axis=-1)[differ].astype(np.float64)
        for at in (wanted, found)
    )
    return top, picked
