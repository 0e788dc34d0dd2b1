"""Rounding so that the next layers notice little: noise shaping at the encoder.

What rounding adds to an activation goes through the layers behind it, which mix neighbours
and channels: errors in some directions cancel there, in others they add up. A metric G,
measured on samples, says how much an error e of a patch moves what crosses the next cut: the
square of the response is about e'Ge. The nearest whole numbers are then not the best ones.
Number after number is chosen anew, given the errors of all the others, as in "GPTQ" (Frantar
et al., arXiv 2210.17323) and in decoders of lattices (Babai 1986). The decoder need not know.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_wire.errors import ModelError
from midstream_wire.tensors import Array

Floats = NDArray[np.float32]
#: Maps a batch of one tensor [B, ...] to what becomes of it, [B, ...].
Response = Callable[[Array], Array]

#: Numbers in one patch: G has the square of it.
MOST_NUMBERS = 512
#: Samples whose response is measured; the same numbers are at other places in each.
SAMPLES = 24

_SWEEPS = 2
#: Numbers chosen between two updates of all errors' effects.
_BLOCK = 32
#: Share of a mean entry that is added to the diagonal: no error goes unnoticed.
_RIDGE = 0.03
_FRONT = struct.Struct("<6sBH")
_MAGIC = b"shape1"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The weight of errors of a patch: `matrix` [C * side * side] squared, symmetric.

    Numbers of a patch are in the order of channel, row, column. The mean of the diagonal is 1.
    """

    side: int
    matrix: Floats

    def shape(self, scaled: Floats, *, signed: bool) -> Floats:
        """Whole numbers near `scaled` [C, N, H, W]; unless `signed`, none below 0.

        Rows and columns beyond the last whole patch are rounded plainly.
        """
        chosen = np.rint(scaled)
        side = self.side
        height, width = (size // side * side for size in scaled.shape[2:])
        if not (height and width):
            return chosen
        wanted = _patches(scaled[:, :, :height, :width], side)
        found = _patches(chosen[:, :, :height, :width], side)
        self._choose(wanted, found, lowest=-math.inf if signed else 0.0)
        channels, count = scaled.shape[:2]
        parts = found.reshape(channels, side, side, count, height // side, width // side)
        back = parts.transpose(0, 3, 4, 1, 5, 2).reshape(channels, count, height, width)
        chosen[:, :, :height, :width] = back
        return chosen

    def _choose(self, wanted: Floats, found: Floats, *, lowest: float) -> None:
        """Change `found` [numbers, patches] towards the least error by this metric."""
        matrix = self.matrix
        inverse = 1 / np.diag(matrix)
        effect = matrix @ (wanted - found)
        for _ in range(_SWEEPS):
            for start in range(0, len(found), _BLOCK):
                block = slice(start, start + _BLOCK)
                inside, here = matrix[block, block], effect[block]
                change = np.zeros_like(here)
                for at in range(len(here)):
                    old = found[start + at]
                    best = old + here[at] * inverse[start + at]
                    new = np.maximum(np.rint(best), lowest)
                    change[at] = new - old
                    if change[at].any():
                        here -= np.outer(inside[:, at], change[at])
                        found[start + at] = new
                here += inside @ change
                effect -= matrix[:, block] @ change

    def to_bytes(self) -> bytes:
        """Return what `metric_of` reads: little-endian, the matrix in half precision."""
        front = _FRONT.pack(_MAGIC, self.side, len(self.matrix))
        return front + self.matrix.astype("<f2").tobytes()


def metric_of(data: memoryview, channels: int) -> Metric:
    """Return what `Metric.to_bytes` wrote for so many channels; `ModelError` if it is not."""
    size = len(data) - _FRONT.size
    magic, side, numbers = _FRONT.unpack_from(data) if size >= 0 else (b"", 0, 0)
    if magic != _MAGIC or not side or numbers != channels * side**2 or size != 2 * numbers**2:
        raise ModelError(
            "a metric must be as `midstream calibrate` writes it, and end with its matrix: "
            "calibrate again"
        )
    matrix = np.frombuffer(data, "<f2", offset=_FRONT.size).astype(np.float32)
    matrix = matrix.reshape(numbers, numbers)
    if not (np.isfinite(matrix).all() and np.diag(matrix).min() > 0):
        raise ModelError("a metric must be of finite numbers, its diagonal above 0")
    return Metric(side, matrix)


def side_for(channels: int) -> int:
    """The side of patches of so many channels; 0 where even one place has too many numbers."""
    return next((side for side in (4, 2, 1) if channels * side**2 <= MOST_NUMBERS), 0)


def fit_metric(
    samples: Sequence[Array], step: float, responses: Sequence[Response]
) -> Metric | None:
    """The metric of a tensor, from a few `samples` [1, C, H, W] of it.

    `responses` map what stands in the place of each to what then crosses the next cut. Errors
    are of half a `step`. None where nothing responds, or planes are smaller than a patch.
    """
    channels, *sides = samples[0].shape[1:]
    side = side_for(channels)
    if not side or min(sides) < side:
        return None
    numbers = np.arange(channels * side**2)
    rows, columns = np.divmod(numbers % side**2, side)
    rng = np.random.default_rng(0)
    matrix = np.zeros((len(numbers),) * 2)
    for sample, respond in zip(samples[:SAMPLES], responses, strict=False):
        top, left = (side * int(rng.integers(size // side)) for size in sample.shape[2:])
        changed = np.repeat(sample, len(numbers), axis=0)
        changed[numbers, numbers // side**2, top + rows, left + columns] += step / 2
        moved = (respond(changed) - respond(sample)).reshape(len(numbers), -1)
        matrix += moved.astype(np.float64) @ moved.T
    mean = np.trace(matrix) / len(numbers)
    if not 0 < mean < np.inf:
        return None
    whole = matrix / mean + _RIDGE * np.eye(len(numbers))
    return Metric(side, (whole / (1 + _RIDGE)).astype(np.float32))


def _patches(planes: Floats, side: int) -> Floats:
    """`planes` [C, N, H, W] by the numbers of a patch: [C * side * side, patches]."""
    channels, count, height, width = planes.shape
    parts = planes.reshape(channels, count, height // side, side, width // side, side)
    flat = parts.transpose(0, 3, 5, 1, 2, 4).reshape(channels * side**2, -1)
    return np.ascontiguousarray(flat, np.float32)
