"""From bodies of symbols (see symbols) back to floats."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from midstream_wire.codecs import bare
from midstream_wire.codecs.planes import scratch
from midstream_wire.codecs.static import TABLES
from midstream_wire.codecs.symbols import BITS, LENGTH_NBYTES, STATIC, STORED, WIDTHS, codes_of
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

# Decoded at a time: floats are still in the second-level cache when escapes are sought.
_CHUNK = 1 << 16

_Bytes = NDArray[np.uint8]
_BOOL = np.dtype(bool)
_INDEX = np.dtype(np.intp)


@final
@dataclass(slots=True)
class Unpacker:
    """Turns bodies into floats of `dtype`: sign(q) * (|q| - delta) * step, and 0 for 0.

    Tables of what each byte stands for are made when they are first needed.
    """

    dtype: np.dtype[Any]
    signed: bool
    delta: float
    step: float
    _tables: dict[tuple[int, bool], Array] = field(default_factory=dict)

    def unpack(self, body: memoryview, out: Array) -> None:
        """Fill the flat `out`, of at least one element, from `body`. Raises CodecError."""
        kind = body[0]
        packing, coding, width = kind & 3, kind >> 2 & 7, kind >> 5 & 3
        if not packing:
            if len(body) != 1 or kind:
                raise CodecError("a block of zeros must be a single 0")
            out.fill(0)
            return
        known = coding <= (STATIC + 3 if packing < 3 else 1) and (width or kind < 0x80)
        if not known:
            raise CodecError(f"a block of symbols must be of a known kind (not {kind:#04x})")
        packed, rest = self._symbols_of(body, packing, out.size)
        if len(rest) and not width:
            raise CodecError(
                f"a block without escapes must have none ({len(rest)} bytes more)"
            )
        places = self._expand(packed, out, packing, escapes=bool(width))
        if width:
            self._put_escapes(rest, out, places, kind)

    def _symbols_of(
        self, body: memoryview, packing: int, size: int
    ) -> tuple[_Bytes, memoryview]:
        """(packed symbols, what follows them)"""
        coding, width = body[0] >> 2 & 7, body[0] >> 5 & 3
        count = -(-size * BITS[packing] // 8)
        start = 1 + (LENGTH_NBYTES if width else 0)
        length = int.from_bytes(body[1:start], "little") if width else len(body) - start
        if len(body) < start + length:
            raise CodecError(f"{length} bytes of symbols must fit into {len(body)} of a block")
        data, rest = body[start : start + length], body[start + length :]
        if coding == STORED:
            if length != count:
                raise CodecError(f"packed symbols must be {count} bytes (not {length})")
            return np.frombuffer(data, np.uint8), rest
        known = TABLES[packing, self.signed][coding - STATIC] if coding >= STATIC else b""
        return bare.decompress(data, count, known), rest

    def _expand(self, packed: _Bytes, out: Array, packing: int, *, escapes: bool) -> Array:
        """Fill `out`; `escapes`, if there are any, become infinite. Returns where they are."""
        table = self._table(packing, escapes=escapes)
        per_byte = table.shape[1]
        whole = out.size - out.size % per_byte
        found = scratch("infinite", _BOOL, out.size if escapes else 0)
        for start in range(0, whole, _CHUNK):
            chunk = out[start : min(start + _CHUNK, whole)]
            few = packed[start // per_byte :][: chunk.size // per_byte]
            # take() would allocate the indices anew each time.
            indices = scratch("indices", _INDEX, few.size)
            np.copyto(indices, few)
            # mode="clip" writes straight into out; no index is ever out of range.
            table.take(indices, axis=0, out=chunk.reshape(-1, per_byte), mode="clip")
            if escapes:
                np.equal(chunk, np.inf, out=found[start : start + chunk.size])
        if whole < out.size:
            out[whole:] = table[packed[-1], : out.size - whole]
            if escapes:
                np.equal(out[whole:], np.inf, out=found[whole:])
        return found.nonzero()[0]

    def _table(self, packing: int, *, escapes: bool) -> Array:
        """Return what each byte stands for: [256, symbols per byte]"""
        table = self._tables.get((packing, escapes))
        if table is None:
            bias, escape = codes_of(packing, self.signed)
            magnitudes, signs = _numbers(BITS[packing], bias, self.dtype)
            values = self._values(magnitudes, 0, signs)
            values[bias] = 0
            if escapes:
                values[escape:] = np.inf
            table = values.take(_symbols_in_bytes(BITS[packing]))
            self._tables[packing, escapes] = table
        return table

    def _values(self, magnitudes: Array, more: int, signs: Array | None) -> Array:
        """Return what numbers of `magnitudes` and `more`, none of them 0, stand for."""
        values: Array = magnitudes + self.dtype.type(more - self.delta)
        values *= self.dtype.type(self.step)
        if signs is not None:
            values *= signs
        return values

    def _put_escapes(self, rest: memoryview, out: Array, places: Array, kind: int) -> None:
        """Replace the infinities at `places`."""
        packing, width, squeezed = kind & 3, WIDTHS[kind >> 5 & 3], kind >> 7
        nbytes = len(places) * width
        if not nbytes:
            raise CodecError("a block must have a width of escapes only if it has escapes")
        if squeezed:
            data = bare.decompress(rest, nbytes)
        elif len(rest) == nbytes:
            data = np.frombuffer(rest, np.uint8)
        else:
            raise CodecError(f"{len(places)} escapes must be {nbytes} bytes (not {len(rest)})")
        behind = _integers(data, width)
        bias, escape = codes_of(packing, self.signed)
        signs = None
        if self.signed:
            signs = 1 - 2 * (behind & 1).astype(self.dtype)
            behind = behind >> 1
        out[places] = self._values(behind.astype(self.dtype), escape - bias, signs)


def _integers(data: _Bytes, width: int) -> Array:
    """Those of which `data` holds all lowest bytes, then all second ones, and so on."""
    if width == 1:
        return data
    found = np.zeros((data.size // width, 4), np.uint8)
    found[:, :width] = data.reshape(width, -1).T
    return found.view("<u4").reshape(-1)


@cache
def _numbers(bits: int, bias: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """(magnitudes, signs) of the numbers that symbols stand for"""
    numbers = np.arange(1 << bits) - bias
    return np.abs(numbers).astype(dtype), np.sign(numbers).astype(dtype)


@cache
def _symbols_in_bytes(bits: int) -> Array:
    """The symbols in each byte, the first in the lowest bits: [256, 8 // bits]"""
    every = np.arange(256)[:, None]
    symbols: Array = every >> np.arange(0, 8, bits) & ((1 << bits) - 1)
    return symbols.astype(np.intp)
