"""Contexts of elements: the known neighbours, and the values that they let expect.

Planes are coded in five passes over their lattices (see prior). A pass predicts magnitudes
from what the passes before have told, with weights, and parts them into classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from midstream_wire.codecs.rans import TOTAL, Table
from midstream_wire.tensors import Array

MAX_CLASSES = 64

#: The symbol of magnitudes that have none of their own.
ESCAPE = 15
SYMBOLS = ESCAPE + 1

#: Greater magnitudes predict what this one does. Sums stay below 2**24, as float32 has it.
MOST_TOLD = 15
#: How far around an element neighbours are weighed.
MARGIN = 2

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Neighbours = tuple[tuple[int, int], ...]


class Lattice(NamedTuple):
    """Every `stride`-th row and column of planes, from `row` and `column` on."""

    stride: int
    row: int
    column: int

    def of(self, planes: Array, *, down: int = 0, right: int = 0, margin: int = 0) -> Array:
        """A view of the lattice in `planes` [C, N, H, W], or of what lies beside it."""
        height, width = (size - 2 * margin for size in planes.shape[2:])
        top, left = margin + self.row + down, margin + self.column + right
        return planes[
            :,
            :,
            top : top + height - self.row : self.stride,
            left : left + width - self.column : self.stride,
        ]


class Pass(NamedTuple):
    """Lattices coded together, and where around their elements is known by then."""

    lattices: tuple[Lattice, ...]
    around: Neighbours


def _diagonal(far: int) -> Neighbours:
    return (-far, -far), (-far, far), (far, -far), (far, far)


def _direct(far: int) -> Neighbours:
    return (-far, 0), (far, 0), (0, -far), (0, far)


_KNIGHT = tuple((a * m, b * n) for m, n in ((1, 2), (2, 1)) for a in (-1, 1) for b in (-1, 1))

PASSES = (
    Pass((Lattice(4, 0, 0),), ()),
    Pass((Lattice(4, 2, 2),), _diagonal(2)),
    Pass((Lattice(4, 0, 2), Lattice(4, 2, 0)), _direct(2)),
    Pass((Lattice(2, 1, 1),), _diagonal(1)),
    Pass((Lattice(2, 0, 1), Lattice(2, 1, 0)), (*_direct(1), *_KNIGHT)),
)


@final
@dataclass(frozen=True, eq=False)
class Expectation:
    """The expectation of one pass.

    `weights` [C, neighbours * C], whole numbers as float32; `bias` [C]; `edges` in ascending
    order part the predictions into classes; `frequencies` [classes, SYMBOLS] sum to TOTAL.
    """

    weights: Floats
    bias: Ints
    edges: Ints
    frequencies: NDArray[np.uint16]

    def predict(self, known: Floats, lattice: Lattice, around: Neighbours) -> Ints:
        """Predictions for the elements of `lattice` [C, N * h * w], from `known` (framed)."""
        channels = known.shape[0]
        beside = [lattice.of(known, down=d, right=r, margin=MARGIN) for d, r in around]
        size = lattice.of(known, margin=MARGIN)[0].size
        if not beside:
            return np.repeat(self.bias[:, None], size, axis=1)
        told = np.stack(beside).reshape(len(around) * channels, size)
        made: Ints = (self.weights @ told).astype(np.int64) + self.bias[:, None]
        return made

    def classes(self, predictions: Ints) -> NDArray[np.uint8]:
        """The class of each prediction."""
        found = np.searchsorted(self.edges, predictions, side="right")
        return found.astype(np.uint8)

    @cached_property
    def tables(self) -> list[Table]:
        """Return what a decoder looks up for each class."""
        return [Table(each) for each in self.frequencies]


def read_expectation(
    rest: memoryview, channels: int, around: int
) -> tuple[Expectation, memoryview]:
    """(what `Prior.to_bytes` wrote of one pass, what follows); `ValueError`, `IndexError`."""
    count = rest[0]
    if not 1 <= count <= MAX_CLASSES:
        raise ValueError("a number of classes")
    at = 1
    arrays = []
    sizes = {
        "i1": channels * channels * around,
        "<i4": channels + count - 1,
        "<u2": count * SYMBOLS,
    }
    for dtype, size in sizes.items():
        arrays.append(np.frombuffer(rest, dtype, size, at) if size else np.zeros(0, dtype))
        at += arrays[-1].nbytes
    weights = arrays[0].astype(np.float32).reshape(channels, around * channels)
    bias, edges = np.split(arrays[1].astype(np.int64), [channels])
    frequencies = arrays[2].astype(np.uint16).reshape(count, SYMBOLS)
    sums = frequencies.sum(axis=1, dtype=np.int64)
    if (np.diff(edges) < 0).any() or (sums != TOTAL).any() or not frequencies.all():
        raise ValueError("edges or frequencies")
    return Expectation(weights, bias, edges, frequencies), rest[at:]


def framed(magnitudes: Array) -> Floats:
    """Return what `magnitudes` [C, N, H, W] tell, as float32, with zeros around each plane."""
    planes = np.minimum(magnitudes, MOST_TOLD)
    edge = (MARGIN, MARGIN)
    return np.pad(planes.astype(np.float32), ((0, 0), (0, 0), edge, edge))
