"""The place of channels in a flat array, for codecs that keep parameters of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from midstream_wire.tensors import Array


class Layout(NamedTuple):
    """An array as [outer, channels, inner]; parameters are per channel."""

    outer: int
    channels: int
    inner: int


def layout_of(shape: tuple[int, ...], *, least: int, most: int) -> Layout:
    """Channels along axis 1 (of arrays of less than two dimensions: along the last axis).

    One channel of everything where a channel would have less than `least` elements, or where
    there would be more than `most` of them: these would not earn their parameters.
    """
    size = math.prod(shape)
    if shape:
        axis = min(1, len(shape) - 1)
        channels = shape[axis]
        if channels * least <= size and channels <= most:
            return Layout(math.prod(shape[:axis]), channels, math.prod(shape[axis + 1 :]))
    return Layout(1, 1, size)


def runs(
    start: int, count: int, *, inner: int, channels: int
) -> Iterator[tuple[slice, Array]]:
    """Cut the `count` elements from `start` on where rows of `inner` elements begin.

    Yields at most three runs, each with the channel of each of its rows: the rest of a row,
    whole rows, the beginning of a row. Slices are relative to `start`.
    """
    stop = start + count
    position = start
    while position < stop:
        row, within = divmod(position, inner)
        whole = 0 if within else (stop - position) // inner
        end = position + whole * inner if whole else min(stop, (row + 1) * inner)
        rows = np.arange(row, row + max(whole, 1)) % channels
        yield slice(position - start, end - start), rows
        position = end
