"""half: float16 in two planes. Eleven significant bits, values up to 65504."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding, plain
from midstream_wire.codecs.exact import refuse_params
from midstream_wire.codecs.planes import pack_words, scratch, unpack_words
from midstream_wire.codecs.ranges import finite_range
from midstream_wire.tensors import DTYPES, Array

_MAX = 65504.0  # the greatest float16
_WORDS = np.dtype("<u2")
_U32 = np.uint32


@final
@dataclass(frozen=True, slots=True)
class Half(Codec):
    """Rounds to the nearest float16, ties to even; error at most half of its last place."""

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in ("float32", "float64")

    def error_bound(self, array: Array) -> float | None:
        array = plain(array)
        peak = self._peak(array) if self.accepts(array.dtype.name, array.shape) else None
        # Half a unit in the last place: 2**-11 of the value, 2**-25 among the subnormals.
        return 0.0 if peak is None else max(peak * 2.0**-11, 2.0**-25)

    def begin(self, array: Array) -> Encoding | None:
        if self._peak(array) is None:
            return None
        return Encoding(b"", lambda block, _: pack_words(_to_half(block)))

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        refuse_params(self, params)
        table = _table(dtype)

        def decode_block(body: memoryview, out: Array, start: int) -> None:
            words = scratch("words", _WORDS, out.size)
            unpack_words(body, words)
            # mode="clip" writes straight into out; no index is ever out of range.
            np.take(table, words, out=out, mode="clip")

        return decode_block

    @staticmethod
    def _peak(array: Array) -> float | None:
        """The largest magnitude; None where float16 cannot hold the array, or it is empty."""
        found = finite_range(array)
        if found is None:
            return None
        peak = max(abs(found[0]), abs(found[1]))
        return peak if peak <= _MAX else None


@cache
def _table(dtype: str) -> Array:
    """Every float16 as `dtype`, by its bits: six times as fast as numpy's own cast."""
    return np.arange(1 << 16, dtype=_WORDS).view("<f2").astype(DTYPES[dtype])


def _to_half(block: Array) -> Array:
    """The bits of `block`, of magnitudes up to 65504, as float16: `<u2`, in scratch memory."""
    words = scratch("words", _WORDS, block.size)
    if block.dtype.itemsize == 8:
        np.copyto(words.view("<f2"), block, casting="unsafe")
        return words
    # numpy casts float32 to float16 one by one (0.6 GB/s); integers in vectors take a quarter
    # of the time. After F. Giesen's float_to_half_fast3_rtne (public domain).
    bits = block.view("<u4")
    magnitude = scratch("magnitude", bits.dtype, bits.size)
    rounded = scratch("rounded", bits.dtype, bits.size)
    normal = scratch("normal", bits.dtype, bits.size)
    np.bitwise_and(bits, _U32(0x7FFF_FFFF), out=magnitude)
    # Normal numbers, from 2**-14 on: move the exponent's bias from 127 to 15 (modulo 2**32),
    # round 13 bits off, ties to even by adding the bit that will be the last.
    np.maximum(magnitude, _U32(113 << 23), out=normal)
    np.right_shift(normal, _U32(13), out=rounded)
    np.bitwise_and(rounded, _U32(1), out=rounded)
    np.add(rounded, normal, out=rounded)
    np.add(rounded, _U32((((15 - 127) << 23) + 0xFFF) & 0xFFFF_FFFF), out=rounded)
    np.right_shift(rounded, _U32(13), out=rounded)
    # Subnormal ones: adding 0.5 makes the adder round at the right place. For normal numbers
    # this gives more than the above, so the lesser is right; a masked copy would take as long
    # as everything else together.
    np.add(magnitude.view("<f4"), np.float32(0.5), out=magnitude.view("<f4"))
    np.subtract(magnitude, _U32(126 << 23), out=magnitude)
    np.minimum(rounded, magnitude, out=rounded)
    np.right_shift(bits, _U32(16), out=magnitude)
    np.bitwise_and(magnitude, _U32(0x8000), out=magnitude)
    np.bitwise_or(rounded, magnitude, out=rounded)
    np.copyto(words, rounded, casting="unsafe")
    return words
