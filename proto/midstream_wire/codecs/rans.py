"""An arithmetic coder for symbols of known probabilities: rANS (Duda 2013, arXiv 1311.2540).

One state, 16 bits written or read at a time, number by number in plain Python: 0.2 us a
symbol, which for a few thousand of them is less than arrays would take. The coder is a stack,
so the last symbol is encoded first.

    coded = state u32  u16 *          little-endian; what the decoder takes up first is first

The state begins, and once all is decoded ends, as FLOOR: a reader that lost its way is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_wire.errors import CodecError

#: Frequencies of the symbols of one table sum to 2**PRECISION.
PRECISION = 12
TOTAL = 1 << PRECISION
FLOOR = 1 << 16

_MASK = TOTAL - 1
_WORD = 16
_STATE_NBYTES = 4


def table_of(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Frequencies of symbols that came so often: each at least 1, together TOTAL.

    `counts` are at most TOTAL numbers, none below 0, not all 0.
    """
    spare = TOTAL - len(counts)
    shares = counts / counts.sum() * spare
    whole = np.floor(shares).astype(np.int64)
    # What rounding down leaves over goes where most was cut off.
    behind = np.argsort(whole - shares, kind="stable")[: spare - int(whole.sum())]
    whole[behind] += 1
    frequencies: NDArray[np.uint16] = (whole + 1).astype(np.uint16)
    return frequencies


def encode_symbols(frequencies: Sequence[int], starts: Sequence[int]) -> bytes:
    """Symbols by their frequencies and by what the frequencies in front of them sum to."""
    state = FLOOR
    words: list[int] = []
    for frequency, start in zip(reversed(frequencies), reversed(starts), strict=True):
        if state >= frequency << (32 - PRECISION):
            words.append(state & 0xFFFF)
            state >>= _WORD
        whole, rest = divmod(state, frequency)
        state = (whole << PRECISION) + rest + start
    words.reverse()
    return state.to_bytes(_STATE_NBYTES, "little") + np.array(words, "<u2").tobytes()


@final
class Table:
    """A decoder's table: the symbol of each of TOTAL slots."""

    __slots__ = ("frequencies", "starts", "symbols")

    def __init__(self, frequencies: NDArray[np.uint16]) -> None:
        sizes = frequencies.astype(np.int64)
        self.frequencies: list[int] = sizes.tolist()
        self.starts: list[int] = (np.cumsum(sizes) - sizes).tolist()
        self.symbols = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes).tobytes()


@final
class SymbolReader:
    """Decodes what `encode_symbols` wrote at the front of `data`. Raises CodecError."""

    def __init__(self, data: memoryview) -> None:
        if len(data) < _STATE_NBYTES:
            raise CodecError(
                f"coded symbols must have {_STATE_NBYTES} bytes (not {len(data)})"
            )
        self._state = int.from_bytes(data[:_STATE_NBYTES], "little")
        rest = data[_STATE_NBYTES:]
        self._words: list[int] = np.frombuffer(rest[: len(rest) & ~1], "<u2").tolist()
        self._at = 0

    @property
    def nbytes(self) -> int:
        """Return how many bytes were read so far."""
        return _STATE_NBYTES + 2 * self._at

    def read(self, tables: Iterable[Table]) -> NDArray[np.uint8]:
        """The next symbols, each by the table that comes with it."""
        state, at, words = self._state, self._at, self._words
        found = bytearray()
        put = found.append
        try:
            for table in tables:
                slot = state & _MASK
                symbol = table.symbols[slot]
                put(symbol)
                state = (
                    table.frequencies[symbol] * (state >> PRECISION)
                    + slot
                    - table.starts[symbol]
                )
                if state < FLOOR:
                    state = state << _WORD | words[at]
                    at += 1
        except IndexError:
            raise CodecError("coded symbols must be complete (some are missing)") from None
        self._state, self._at = state, at
        return np.frombuffer(found, np.uint8)

    def finish(self) -> None:
        """Raise CodecError unless all that was coded has been read, and rightly."""
        if self._state != FLOOR:
            raise CodecError("coded symbols must end where they began: they are damaged")
