"""The grid that an array is quantized to: what ec and ecc compute before the first block.

    q = sign(x) * floor(|x| / step + 0.5 - theta)

All of it is rounded to what goes over the wire before anything is quantized.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

import numpy as np

from midstream_wire.codecs.base import Encoding
from midstream_wire.codecs.channels import Layout, runs
from midstream_wire.codecs.planes import scratch
from midstream_wire.codecs.ranges import finite_range
from midstream_wire.codecs.symbols import MIDDLE, pack_symbols
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

_F32 = np.dtype("<f4")
_U8 = np.dtype(np.uint8)
# Elements quantized at a time: their floats stay in the second-level cache.
_CHUNK = 1 << 16

FIXED = struct.Struct("<fBbB")  # step, theta, delta, signed
# theta and delta are in 256ths of a step.
UNIT = 256
# Plain rounding: a dead zone saves bits, but shrinks what the next layer sums. On a trained
# ResNet-20, 0.2 lost a point of agreement at an equal rate (docs/results/codecs.md).
_THETA = 0
_MAX_THETA = 128
# Steps such that every number computed from them is finite, and none subnormal.
_MIN_STEP, _MAX_STEP = 2.0**-60, 2.0**90
# Peaks of which the squares, and sums of them, are well within float32.
_SQUARABLE = (1e-10, 1e14)
# The greatest magnitude of q: float32 counts no further, nor would anyone pay for it.
_MAX_SYMBOL = 2.0**22
# A channel's step is the greatest one by so many eighths of an octave finer: a byte each.
_ROOTS = np.array(
    [float.fromhex(each) for each in (
        "0x1p0", "0x1.d5818ep-1", "0x1.ae89fap-1", "0x1.8ace54p-1",
        "0x1.6a09e6p-1", "0x1.4bfdaep-1", "0x1.306fe0p-1", "0x1.172b84p-1",
    )], _F32
)  # fmt: skip
_FINER = np.ldexp(np.tile(_ROOTS, 32), -(np.arange(256) // 8)).astype(_F32)
# No channel's step is finer than its peak by more than this, be its deviation ever so small.
_FINEST_TO_PEAK = 2.0**-20
# Where no more of the squares is left as variance, float32 was too coarse: it is computed once
# more, in float64.
_CANCELLED = 1e-3
# The length of a dot product.
_RUN = 1024
_ONES = {np.dtype(each): np.ones((_RUN, 1), each) for each in ("<f4", "<f8")}
# delta is estimated from so many elements, from so many places.
_SAMPLE, _PLACES = 2048, 16


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that both sides compute with.

    theta and delta are in 256ths of a step; `finer` has a byte for each channel, or is empty.
    """

    layout: Layout
    step: float
    signed: bool
    theta: int
    delta: int
    finer: bytes

    @property
    def steps(self) -> Array:
        """The channels' steps, float32; of one where there is one for all."""
        if not self.finer:
            return np.array([self.step], _F32)
        return np.float32(self.step) * _FINER[np.frombuffer(self.finer, np.uint8)]

    def pack(self) -> bytes:
        """The codec's parameters."""
        return FIXED.pack(self.step, self.theta, self.delta, self.signed) + self.finer

    def magnitudes(self, flat: Array, places: Array, start: int = 0) -> Array:
        """|flat[places]| in steps, float32; flat[0] is element `start` of the array."""
        inverse = np.float32(1) / self.steps
        if self.finer:
            inverse = inverse[(start + places) // self.layout.inner % self.layout.channels]
        return np.abs((flat.take(places) * inverse).astype(_F32, copy=False))

    def scaled(self, inverse: Array, values: Array, start: int) -> Array:
        """`values`, the first of them element `start`, in steps: float32, scratch memory."""
        out = scratch("scaled", _F32, values.size)
        if len(inverse) == 1:
            return np.multiply(values, inverse, out=out, casting="same_kind")
        layout = self.layout
        for run, channels in runs(
            start, values.size, inner=layout.inner, channels=layout.channels
        ):
            into = out[run].reshape(len(channels), -1)
            rows = values[run].reshape(into.shape)
            np.multiply(rows, inverse[channels, None], out=into, casting="same_kind")
        return out


def parse_grid(params: bytes, layout: Layout) -> Grid:
    """The grid that Grid.pack() wrote, for an array of this layout. Raises CodecError."""
    channels = layout.channels if layout.channels > 1 else 0
    if len(params) != FIXED.size + channels:
        raise CodecError(
            f"ec and ecc must have {FIXED.size} bytes of parameters and one for each of "
            f"{channels} channels (not {len(params)})"
        )
    step, theta, delta, signed = FIXED.unpack_from(params)
    if not _MIN_STEP <= step <= _MAX_STEP:
        raise CodecError(f"ec and ecc must have a step from 2**-60 to 2**90 (not {step})")
    if theta > _MAX_THETA or signed > 1:
        raise CodecError(
            f"ec and ecc must have a theta of at most {_MAX_THETA} and a sign of 0 or 1 "
            f"(not {theta} and {signed})"
        )
    return Grid(layout, step, bool(signed), theta, delta, params[FIXED.size :])


def grid_of(array: Array, layout: Layout, dial: float) -> Grid | None:
    """The grid for steps of `dial` standard deviations; None where there can be none."""
    found = finite_range(array)
    if found is None:
        return None
    peak = max(abs(found[0]), abs(found[1]))
    if peak > _MAX_STEP:
        return None
    rows = array.reshape(layout)
    if not _SQUARABLE[0] < peak < _SQUARABLE[1]:
        rows = rows.astype(np.float64)
    if layout.channels == 1:
        deviation, steps = _deviation(rows.reshape(-1)), None
        step = max(dial * deviation, _FINEST_TO_PEAK * peak)
    else:
        peaks, deviations = _spread(rows)
        steps = np.maximum(dial * deviations, _FINEST_TO_PEAK * peaks)
        deviation, step = float(deviations.max()), float(steps.max())
    step = float(np.float32(step))
    if not (_MIN_STEP <= step <= _MAX_STEP and deviation * _MAX_SYMBOL > peak):
        return None
    finer = b"" if steps is None else _finer(step, steps)
    grid = Grid(layout, step, found[0] < 0, _THETA, 0, finer)
    return replace(grid, delta=_mass_residual(grid, array.reshape(-1)))


def encoding_of(grid: Grid) -> Encoding:
    """Return how arrays are encoded under `grid`."""
    inverse = np.float32(1) / grid.steps
    theta = grid.theta / UNIT

    def encode_block(block: Array, start: int) -> list[bytes | memoryview]:
        def magnitudes(places: Array) -> Array:
            scaled = grid.magnitudes(block, places, start)
            return (scaled + np.float32(0.5 - theta)).astype(np.int32)

        symbols = scratch("symbols", _U8, block.size)
        for at in range(0, block.size, _CHUNK):
            values = block[at : at + _CHUNK]
            scaled = grid.scaled(inverse, values, start + at)
            quantize(scaled, symbols[at : at + _CHUNK], theta=theta, signed=grid.signed)
        return pack_symbols(symbols, signed=grid.signed, magnitudes=magnitudes)

    return Encoding(grid.pack(), encode_block)


def quantize(scaled: Array, symbols: Array, *, theta: float, signed: bool) -> None:
    """Write min(q, 255), or if signed, MIDDLE + q clipped to a byte. Overwrites `scaled`.

    Casting truncates, which for what is not negative is floor.
    """
    if signed and theta:
        dead = scratch("dead", _F32, scaled.size)
        np.clip(scaled, np.float32(-theta), np.float32(theta), out=dead)
        np.subtract(scaled, dead, out=scaled)
    np.add(scaled, np.float32(MIDDLE + 0.5 if signed else 0.5 - theta), out=scaled)
    # Looking for what is too large is faster than clipping.
    if scaled.max() >= 256 or (signed and scaled.min() < 0):
        np.clip(scaled, np.float32(0.5 if signed else 0), np.float32(255.5), out=scaled)
    np.copyto(symbols, scaled, casting="unsafe")


def _deviation(flat: Array) -> float:
    """The standard deviation.

    By dot products, which take a third of the time of sums: of runs, as for more than 10,000
    elements BLAS would wake up threads.
    """
    whole = flat.size - flat.size % _RUN
    parts = [flat[:whole].reshape(-1, 1, _RUN), flat[whole:].reshape(1, 1, -1)]
    mean = square = 0.0
    for part in parts[: 1 + (whole < flat.size)]:
        ones = _ONES[flat.dtype][: part.shape[2]]
        mean += float(np.matmul(part, ones).sum(dtype=np.float64)) / flat.size
        turned = part.transpose(0, 2, 1)
        square += float(np.matmul(part, turned).sum(dtype=np.float64)) / flat.size
    variance = square - mean * mean
    if not variance > _CANCELLED * square:
        variance = float(flat.astype(np.float64).var())
    return math.sqrt(variance)


def _finer(step: float, steps: Array) -> bytes:
    """By how many eighths of an octave each of `steps` is finer than `step`."""
    octaves = np.log2(step / np.maximum(steps, step * 2.0**-32))
    eighths: Array = np.clip(np.rint(8 * octaves), 0, 255)
    return eighths.astype(np.uint8).tobytes()


def _spread(rows: Array) -> tuple[Array, Array]:
    """(peaks, standard deviations) of the channels of `rows` [outer, channels, inner]."""
    outer, _, inner = rows.shape
    count = outer * inner
    low, high = rows.min(axis=(0, 2)), rows.max(axis=(0, 2))
    peaks = np.maximum(abs(low), abs(high)).astype(np.float64)
    mean = rows.sum(axis=(0, 2)).astype(np.float64) / count
    square = np.einsum("oci,oci->c", rows, rows).astype(np.float64) / count
    variance = square - mean * mean
    for channel in np.flatnonzero((peaks > 0) & ~(variance > _CANCELLED * square)):
        variance[channel] = rows[:, channel].astype(np.float64).var()
    return peaks, np.sqrt(variance)


def _mass_residual(grid: Grid, flat: Array) -> int:
    """Return what to take from each |q| that is not 0 so that the sum of magnitudes stays, in
    256ths.

    Elements that round to 0 count as well: what they lose, the others make up for, because
    the next layer sums them all. By a sample.
    """
    scaled = grid.magnitudes(flat, sample_places(flat.size, _SAMPLE))
    numbers = np.floor(scaled + np.float32(0.5 - grid.theta / UNIT))
    excess = float(np.subtract(numbers, scaled, out=scaled).sum())
    shift = round(UNIT * excess / max(int(np.count_nonzero(numbers)), 1))
    return max(-128, min(127, shift))


@lru_cache(maxsize=64)
def sample_places(size: int, most: int) -> Array:
    """Indices of runs spread over `size` elements, `most` in all; of all if fewer."""
    if size <= most:
        return np.arange(size)
    run = most // _PLACES
    starts = np.linspace(0, size - run, _PLACES).astype(np.intp)
    return (starts[:, None] + np.arange(run)).reshape(-1)
