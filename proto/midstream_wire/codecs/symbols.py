"""Small integers, most of them zero: packed, entropy-coded, with those too large apart.

    body = kind u8   [symbols_nbytes u24]   symbols   [escapes]

A symbol has 2, 4 or 8 bits. Two or four of them in a byte, first in the lowest bits, let
zstd's Huffman stage see an alphabet of pairs or quadruples: so it spends less than a bit on
each. Where all numbers of a block have symbols, these are all. Else the greatest one is the
escape, and how far a number is from those that have symbols stands behind them.

    packing      unsigned q: symbol = q      signed q: symbol = q + b
    1: 2 bits    0..2, escape 3              b = 1,   -1..1, escape 3
    2: 4 bits    0..14, escape 15            b = 7,   -7..7, escape 15
    3: 8 bits    0..254, escape 255          b = 126, -126..126, escape 253

zigzag would do as well as b: entropy coding knows no order. Adding is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from midstream_wire.codecs import bare
from midstream_wire.codecs.planes import scratch
from midstream_wire.codecs.static import EDGES, TABLES
from midstream_wire.tensors import Array

#: Where signed symbols are still bytes of their own, this one is zero.
MIDDLE = 128

_U8 = np.dtype(np.uint8)
BITS = (0, 2, 4, 8)  # by packing
_BIAS = (0, 1, 7, 126)
WIDTHS = (0, 1, 2, 4)  # of an escape, in bytes, by the number on the wire
STORED, ZSTD, STATIC = 0, 1, 2  # and 3, 4, 5: further static tables
LENGTH_NBYTES = 3

# Blocks of up to so many symbols try a static table: it stands for the 20 to 60 bytes in which
# zstd describes its own.
_STATIC_SYMBOLS = 8192
# Of blocks of up to so many symbols the next wider packing is tried, too: few escapes are not
# worth a table of their own, so that they take whole bytes.
_TRIED_SYMBOLS = 4096
# The packing is chosen by this many symbols, from so many places.
_SAMPLE = 8192
_SAMPLE_PLACES = 8
# Fewer bytes of escapes are not worth a table of their own.
_SQUEEZED_NBYTES = 16
# The greatest share of escapes that a packing may have: an escape costs time and a byte.
_MAX_ESCAPES = {1: 0.15, 2: 0.15}

_Bytes = NDArray[np.uint8]

#: (indices of symbols) -> magnitudes of their numbers, for those that a byte cannot hold.
Magnitudes = Callable[[Array], Array]


def pack_symbols(
    symbols: _Bytes, *, signed: bool, magnitudes: Magnitudes
) -> list[bytes | memoryview]:
    """The body of `symbols`, at least one: min(q, 255), or if signed, MIDDLE + q clipped.

    `magnitudes` is asked for numbers of which 0 (if signed) and 255 do not tell all.
    """
    zero = MIDDLE if signed else 0
    low, high = int(symbols.min()), int(symbols.max())
    if low == high == zero:
        return [b"\0"]
    packing = choose_packing(symbols, signed)
    parts = _body(symbols, packing, (low, high), signed=signed, magnitudes=magnitudes)
    if symbols.size <= _TRIED_SYMBOLS and packing < 3:
        wider = _body(symbols, packing + 1, (low, high), signed=signed, magnitudes=magnitudes)
        return min(parts, wider, key=lambda each: sum(map(len, each)))
    return parts


def _body(
    symbols: _Bytes,
    packing: int,
    extremes: tuple[int, int],
    *,
    signed: bool,
    magnitudes: Magnitudes,
) -> list[bytes | memoryview]:
    bias, most = codes_of(packing, signed)
    low, high = extremes
    least = MIDDLE - bias if signed else 0
    # What a byte may have been too narrow for needs an escape as well.
    escaped = low < least or high > least + most or high == 255
    codes = _codes(symbols, least, packing, most if escaped else None)
    width, escapes, squeezed = 0, b"", None
    if escaped:
        places = np.equal(codes[: symbols.size], _U8.type(most)).nonzero()[0]
        numbers = symbols.take(places)
        clipped = high == 255 or (signed and low < MIDDLE - 126)
        beyond = magnitudes(places) if clipped else None
        width, escapes = _pack_escapes(_behind(numbers, beyond, bias, most, signed=signed))
        if len(escapes) > _SQUEEZED_NBYTES:
            squeezed = bare.compress(np.frombuffer(escapes, np.uint8))
    coding, data = _encode(pack(codes, packing), packing, symbols, signed=signed)
    kind = packing | coding << 2 | width << 5 | (squeezed is not None) << 7
    parts: list[bytes | memoryview] = [bytes((kind,))]
    if width:
        parts.append(len(data).to_bytes(LENGTH_NBYTES, "little"))
    return [*parts, data, squeezed if squeezed is not None else escapes]


def codes_of(packing: int, signed: bool) -> tuple[int, int]:
    """(what is added to a number, the greatest symbol: the escape, if a block has any)"""
    bias = _BIAS[packing] if signed else 0
    return bias, 2 * bias + 1 if signed else (1 << BITS[packing]) - 1


def choose_packing(symbols: _Bytes, signed: bool) -> int:
    """The narrowest packing with few enough escapes, by a sample."""
    sample = symbols
    if symbols.size > 2 * _SAMPLE:
        runs = symbols[: symbols.size - symbols.size % _SAMPLE_PLACES]
        sample = runs.reshape(_SAMPLE_PLACES, -1)[:, : _SAMPLE // _SAMPLE_PLACES]
    for packing, share in _MAX_ESCAPES.items():
        bias, most = codes_of(packing, signed)
        codes = sample - _U8.type(MIDDLE - bias) if signed else sample
        if np.count_nonzero(codes >= most) <= share * sample.size:
            return packing
    return 3


def _codes(symbols: _Bytes, least: int, packing: int, most: int | None) -> _Bytes:
    """`symbols` from `least` on, up to `most`, in scratch memory, filled up to whole bytes."""
    per_byte = 8 // BITS[packing]
    codes: _Bytes = scratch("codes", _U8, -(-symbols.size // per_byte) * per_byte)
    codes[symbols.size :] = 0
    codes, whole = codes[: symbols.size], codes
    if least:
        # What is below wraps around, far above what has a symbol.
        symbols = np.subtract(symbols, _U8.type(least), out=codes)
    if most is not None:
        np.clip(symbols, _U8.type(0), _U8.type(most), out=codes)
    elif not least:
        np.copyto(codes, symbols)
    return whole


def _behind(
    symbols: _Bytes, beyond: Array | None, bias: int, most: int, *, signed: bool
) -> Array:
    """Return what stands for escaped `symbols`; `beyond` are magnitudes, if bytes do not tell
    all.
    """
    numbers: Array = symbols.astype(np.int16) - MIDDLE if signed else symbols
    found = np.abs(numbers) if signed else numbers
    if beyond is not None:
        # These were computed once more, so that rounding may have left them less by one.
        clipped = 127 if signed else 255
        found = np.where(found >= clipped, np.maximum(beyond, clipped), found)
    found -= found.dtype.type(most - bias)
    return np.bitwise_or(found << 1, numbers < 0) if signed else found


def pack(codes: _Bytes, packing: int) -> _Bytes:
    if packing == 3:
        return codes
    # One multiplication moves every symbol of a word to its place in the word's highest byte.
    factor = {1: 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6, 2: 1 << 8 | 1 << 4}[packing]
    word = np.dtype("<u4" if packing == 1 else "<u2")
    words = codes.view(word)
    np.multiply(words, word.type(factor), out=words)
    np.right_shift(words, word.type(8 * word.itemsize - 8), out=words)
    packed: _Bytes = scratch("packed", _U8, words.size)
    np.copyto(packed, words, casting="unsafe")
    return packed


def _encode(
    packed: _Bytes, packing: int, symbols: _Bytes, *, signed: bool
) -> tuple[int, bytes | memoryview]:
    """Return how the packed symbols are coded, and so coded: the shortest of what is tried."""
    coding, data = STORED, None
    if symbols.size > _STATIC_SYMBOLS or packing == 3:
        coding, data = ZSTD, bare.compress(packed)
    else:
        level = _level(symbols, packing, signed=signed)
        coding, data = STATIC + level, bare.compress(packed, TABLES[packing, signed][level])
        # zstd prefers the table that it has for the shortest inputs, be it as unfit as it may.
        own = bare.compress(packed)
        if own is not None and (data is None or len(own) < len(data)):
            coding, data = ZSTD, own
    return (STORED, packed.tobytes()) if data is None else (coding, data)


def _level(symbols: _Bytes, packing: int, *, signed: bool) -> int:
    """The static table made for symbols of this mean magnitude."""
    mean = np.abs(symbols.view(np.int8) ^ np.int8(-128)) if signed else symbols
    return int(np.searchsorted(EDGES[packing, signed], float(mean.mean())))


def _pack_escapes(found: Array) -> tuple[int, bytes]:
    """(number of the width, planes of bytes, the lowest first)"""
    top = int(found.max())
    width = 1 if top < 1 << 8 else 2 if top < 1 << 16 else 3
    if width == 1:
        return width, found.astype(np.uint8, copy=False).tobytes()
    planes = found.astype("<u4").view(np.uint8).reshape(-1, 4).T[: WIDTHS[width]]
    return width, planes.tobytes()
