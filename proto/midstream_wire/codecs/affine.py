"""int8 and int8c: eight bits per element, x = q * scale + offset, then zstd.

q is 0..255. Scale and offset are float32, and rounded to it before anything is quantized, so
that both sides compute with the same numbers. There are 254 steps between the least and the
greatest value; the one left over lets the grid be shifted so that zero stays exactly zero,
which activations after a ReLU, and padding, are full of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding, plain
from midstream_wire.codecs.channels import Layout, layout_of, runs
from midstream_wire.codecs.header import MAX_PARAMS_NBYTES
from midstream_wire.codecs.narrow import FLOATS, rounding, widened
from midstream_wire.codecs.planes import pack_words, scratch, unpack_words
from midstream_wire.codecs.ranges import finite_range
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array, dtype_of

_STEPS = 254
# Differences of values up to here, and all that follows from them, stay finite in float32.
_MAX = 2.0**126
# The least scale: its inverse is finite, and it is no subnormal number.
_MIN_SCALE = 2.0**-120
# The least scale relative to the values: a finer grid would drown in float32's own rounding.
_MIN_RELATIVE_SCALE = 2.0**-20
# A channel of fewer elements does not earn the 8 bytes of its own scale and offset.
_MIN_CHANNEL_ELEMENTS = 16
_PARAMS = np.dtype([("scale", "<f4"), ("offset", "<f4")])
_U8 = np.dtype(np.uint8)


@final
@dataclass(frozen=True, slots=True)
class Affine(Codec):
    """Affine quantization to 8 bits, with one scale and offset per tensor or per channel.

    Channels lie along axis 1 (of tensors of less than two dimensions: along the last axis).
    Where they are too small to pay for their parameters, the tensor has one pair.
    """

    per_channel: bool = False

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in FLOATS

    def error_bound(self, array: Array) -> float | None:
        """Half a step, plus the rounding of float32 at the magnitude of the values."""
        array = plain(array)
        dtype = dtype_of(array)
        if not self.accepts(dtype, array.shape):
            return 0.0
        array = widened(self, array)
        found = self._ranges(array)
        if found is None:
            return 0.0
        low, high = found
        peak = np.maximum(abs(low), abs(high))
        scale = _params_of(low, high)["scale"].astype(np.float64)
        # Quantizing rounds four times, by 2**-24 of at most 256 steps each; restoring once,
        # by 2**-24 of the value.
        bound = float((0.5001 * scale + 2.0**-23 * peak).max())
        return bound + rounding(dtype, float(peak.max()) + bound)

    def begin(self, array: Array) -> Encoding | None:
        found = self._ranges(array)
        if found is None:
            return None
        params = _params_of(*found)
        inner = self._layout(array.shape).inner
        inverse = np.float32(1) / params["scale"]

        def encode_block(block: Array, start: int) -> list[bytes | memoryview]:
            steps = scratch("steps", block.dtype, block.size)
            quantized = scratch("quantized", _U8, block.size)
            for run, channels in runs(start, block.size, inner=inner, channels=len(params)):
                into = steps[run].reshape(len(channels), -1)
                values = block[run].reshape(into.shape)
                np.subtract(values, params["offset"][channels, None], out=into)
                np.multiply(into, inverse[channels, None], out=into)
            # Casting truncates, so that adding a half rounds; nothing is outside 0..255.9.
            np.add(steps, block.dtype.type(0.5), out=steps)
            np.copyto(quantized, steps, casting="unsafe")
            return pack_words(quantized, noise=True)

        return Encoding(params.tobytes(), encode_block)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        layout = self._layout(shape)
        if len(params) != layout.channels * _PARAMS.itemsize:
            raise CodecError(
                f"codec {self.id} must have {layout.channels} scales and offsets for shape "
                f"{list(shape)} (not {len(params)} bytes)"
            )
        pairs = np.frombuffer(params, _PARAMS)
        with np.errstate(invalid="ignore"):  # a signalling NaN is told by a cast
            furthest = 255 * abs(pairs["scale"].astype(np.float64)) + abs(pairs["offset"])
        if not (furthest <= np.finfo(np.float32).max).all():
            raise CodecError(f"codec {self.id} must have scales and offsets of finite numbers")

        def decode_block(body: memoryview, out: Array, start: int) -> None:
            quantized = scratch("quantized", _U8, out.size)
            unpack_words(body, quantized, noise=True)
            np.copyto(out, quantized)
            for run, channels in runs(
                start, out.size, inner=layout.inner, channels=layout.channels
            ):
                values = out[run].reshape(len(channels), -1)
                np.multiply(values, pairs["scale"][channels, None], out=values)
                np.add(values, pairs["offset"][channels, None], out=values)

        return decode_block

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        if not self.per_channel:
            return Layout(1, 1, math.prod(shape))
        most = MAX_PARAMS_NBYTES // _PARAMS.itemsize
        return layout_of(shape, least=_MIN_CHANNEL_ELEMENTS, most=most)

    def _ranges(self, array: Array) -> tuple[Array, Array] | None:
        """Least and greatest value per channel, in float64; None where 8 bits cannot do."""
        found = finite_range(array)
        if found is None or max(abs(found[0]), abs(found[1])) > _MAX:
            return None
        layout = self._layout(array.shape)
        if layout.channels == 1:
            return np.array([found[0]]), np.array([found[1]])
        by_row = array.reshape(-1, layout.channels, layout.inner)
        low = by_row.min(axis=2).min(axis=0).astype(np.float64)
        high = by_row.max(axis=2).max(axis=0).astype(np.float64)
        return low, high


def _params_of(low: Array, high: Array) -> Array:
    """Scale and offset, as they go over the wire, for each of the ranges [low, high]."""
    peak = np.maximum(abs(low), abs(high))
    least = np.maximum(peak * _MIN_RELATIVE_SCALE, _MIN_SCALE)
    scale = np.maximum((high - low) / _STEPS, least).astype("<f4")
    # Round up to 16 significant bits: 8 more make every q * scale exact in float32.
    bits = scale.view("<u4")
    bits += np.uint32(0xFF)
    bits &= np.uint32(0xFFFF_FF00)
    # Zero at a whole number of steps. Rounding that number up keeps `low` at or above 0.
    zero = np.ceil(-low / scale)
    params = np.empty(len(low), _PARAMS)
    params["scale"] = scale
    params["offset"] = np.where((low <= 0) & (high >= 0), 0.0 - zero * scale, low)
    return params
