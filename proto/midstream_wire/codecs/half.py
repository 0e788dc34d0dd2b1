"""half: float16 in two planes. Eleven significant bits, values up to 65504."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding, plain
from midstream_wire.codecs.exact import refuse_params
from midstream_wire.codecs.planes import pack_words, read_words, scratch
from midstream_wire.codecs.ranges import finite_range
from midstream_wire.tensors import DTYPES, Array

_MAX = 65504.0  # the greatest float16
_WORDS = np.dtype("<u2")
_U32 = np.uint32
_SIGN = 1 << 31


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
        return Encoding(b"", _encode_block)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        refuse_params(self, params)
        table = _table(dtype)

        def decode_block(body: memoryview, out: Array, start: int) -> None:
            words, places = read_words(body, out.size, _WORDS, noise=True)
            if places is None:
                # mode="clip" writes straight into out; no index is ever out of range.
                table.take(words, out=out, mode="clip")
            else:
                out.fill(0)
                out[places] = table.take(words, mode="clip")

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


def _encode_block(block: Array, start: int) -> list[bytes | memoryview]:
    """Zeros are left out before there is anything to compute."""
    bits = block.view(f"<u{block.dtype.itemsize}")
    return pack_words(bits, noise=True, convert=_to_half)


def _to_half(bits: Array) -> Array:
    """The bits of floats of magnitudes up to 65504, as float16: `<u2`, in scratch memory."""
    words = scratch("words", _WORDS, bits.size)
    if bits.dtype.itemsize == 8:
        np.copyto(words.view("<f2"), bits.view("<f8"), casting="unsafe")
        return words
    # numpy casts float32 to float16 one by one; integers in vectors take a fifth of the time.
    # Moves the exponent's bias from 127 to 15 (modulo 2**32), and rounds 13 bits off, ties to
    # even by adding the bit that will be the last. After F. Giesen's float_to_half_fast3_rtne
    # (public domain).
    rounded = scratch("rounded", bits.dtype, bits.size)
    np.right_shift(bits, _U32(13), out=rounded)
    np.bitwise_and(rounded, _U32(1), out=rounded)
    np.add(rounded, bits, out=rounded)
    np.add(rounded, _U32((((15 - 127) << 23) + 0xFFF) & 0xFFFF_FFFF), out=rounded)
    np.right_shift(rounded, _U32(13), out=rounded)
    np.copyto(words, rounded, casting="unsafe")
    if bits.max(initial=0) >= _SIGN:
        np.right_shift(bits, _U32(16), out=rounded)
        np.bitwise_and(rounded, _U32(0x8000), out=rounded)
        np.bitwise_and(words, _WORDS.type(0x7FFF), out=words)
        signs = scratch("signs", _WORDS, bits.size)
        np.copyto(signs, rounded, casting="unsafe")
        np.bitwise_or(words, signs, out=words)
    # Subnormal numbers, below 2**-14, are few.
    np.left_shift(bits, _U32(1), out=rounded)
    few = np.less(rounded, _U32(113 << 24)).nonzero()[0]
    words[few] = bits.take(few).view("<f4").astype("<f2").view(_WORDS)
    return words
