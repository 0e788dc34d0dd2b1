"""A payload of a size that is asked for: the finest step that fits.

Steps are tried on a sample first, by the entropy of its numbers; what real encoding made of
the first answers corrects the estimate for the next. Three real encodings find the step to a
few per cent; only where none of them fits, coarser ones follow.
"""

from __future__ import annotations

import math

import numpy as np

from midstream_wire.codecs.channels import Layout
from midstream_wire.codecs.grid import UNIT, Grid, encoding_of, grid_of, sample_places
from midstream_wire.tensors import Array

_TRIALS = 3
# What leaves less than this of the payload unused is good enough.
_GOOD = 0.98
# Aimed at, so that the next estimate has room to be wrong.
_AIM = 0.99
_SAMPLE = 1 << 14
_HALVINGS = 16
# What a step grows by where three trials did not fit; squared each time.
_GROWTH = 1.05
# An estimate of nothing could not be corrected.
_LEAST = 1e-6
# Numbers beyond share a bin: what they cost is lost among the rest.
_MAX_NUMBER = 4095


def fitting_grid(
    array: Array,
    layout: Layout,
    *,
    dials: tuple[float, float],
    most_nbytes: int,
    block_elements: int,
) -> Grid | None:
    """The grid of the finest step within `dials` found whose bodies have `most_nbytes` in all.

    The coarsest step's, should that have more. None where no grid can be.
    """
    finest, coarsest = dials
    unit = grid_of(array, layout, 1.0)
    if unit is None:
        return None
    flat = array.reshape(-1)
    sample = unit.magnitudes(flat, sample_places(flat.size, _SAMPLE))
    best: Grid | None = None
    dial = coarsest
    made: list[tuple[float, float]] = []
    for _ in range(_TRIALS):
        aim = _estimate_for(_AIM * most_nbytes / flat.size, made)
        dial = _dial_for(aim, sample, unit, dials)
        grid = grid_of(array, layout, dial)
        if grid is None:
            return None
        nbytes = _bodies_nbytes(grid, flat, block_elements)
        if nbytes <= most_nbytes:
            best = grid if best is None or grid.step < best.step else best
            if nbytes >= _GOOD * most_nbytes or dial <= finest:
                break
        made.append((max(_nbytes_each(sample, dial, unit), _LEAST), nbytes / flat.size))
    growth = _GROWTH
    while best is None:
        dial, growth = min(growth * dial, coarsest), growth * growth
        grid = grid_of(array, layout, dial)
        if grid is None or dial >= coarsest:
            return grid
        if _bodies_nbytes(grid, flat, block_elements) <= most_nbytes:
            best = grid
    return best


def _bodies_nbytes(grid: Grid, flat: Array, block_elements: int) -> int:
    """The length of all bodies, by encoding them."""
    encode_block = encoding_of(grid).encode_block
    return sum(
        len(part)
        for start in range(0, flat.size, block_elements)
        for part in encode_block(flat[start : start + block_elements], start)
    )


def _estimate_for(nbytes_each: float, made: list[tuple[float, float]]) -> float:
    """The estimate that stands for so many real bytes, by (estimate, real) of those `made`.

    Between two of them, or beyond, reality is taken for a power of the estimate.
    """
    if not made or nbytes_each <= 0:
        return nbytes_each
    estimate, real = made[-1]
    slope = 1.0
    if len(made) > 1 and made[-2][0] != estimate and made[-2][1] != real:
        slope = math.log(made[-2][1] / real) / math.log(made[-2][0] / estimate)
    # Points that lie close together tell little of the slope.
    return float(estimate * (nbytes_each / real) ** (1 / min(max(slope, 0.5), 2.0)))


def _dial_for(
    nbytes_each: float, sample: Array, unit: Grid, dials: tuple[float, float]
) -> float:
    """The least dial at which an element is estimated to take no more than `nbytes_each`."""
    low, high = map(math.log, dials)
    if _nbytes_each(sample, dials[0], unit) <= nbytes_each:
        return dials[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _nbytes_each(sample, math.exp(middle), unit) <= nbytes_each:
            high = middle
        else:
            low = middle
    return math.exp(high)


def _nbytes_each(sample: Array, dial: float, unit: Grid) -> float:
    """The entropy of the numbers that `sample`, in steps of `unit`, would become; in bytes."""
    numbers = sample / np.float32(dial) + np.float32(0.5 - unit.theta / UNIT)
    counts = np.bincount(np.minimum(numbers, _MAX_NUMBER).astype(np.int32))
    shares = counts[counts > 0] / sample.size
    signs = 1 - counts[0] / sample.size if unit.signed else 0.0
    return float(signs - shares @ np.log2(shares)) / 8
