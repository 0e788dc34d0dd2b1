"""Codewords of a few bits in a row, written and read by whole arrays.

A prefix code is read word by word, as each tells only where the next begins. Here every
position's word is looked up, whether one begins there or not, which gives every position's
successor; successors of successors, up to five times over, give the 32nd word from anywhere.
Few steps then lead through the whole, and the words between are filled in by arrays again.
This is pointer jumping (Wyllie 1979): some 20 operations on arrays instead of one per word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from midstream_wire.codecs.prefix import RUN, Code
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

# Positions looked at in one go: what belongs to them stays in the second-level cache.
_SPAN = 1 << 14
_LEAST_SPAN = 1 << 8
_MOST_DOUBLINGS = 5
# So many steps, one by one, take no longer than another doubling of them.
_FEW_STEPS = 64
# Zeros behind the last byte, so that a window may begin at any position.
_PADDING = bytes(8 + _SPAN // 8)
_POSITIONS = np.arange(_SPAN + 32)

_Words = NDArray[np.uint16]

_SHIFTS = np.arange(8, 0, -1, dtype=np.uint32)

#: (16 bits from each position) -> length of the word that would begin there, 1 to 32
Lengths = Callable[[_Words], Array]


class _Span(NamedTuple):
    """The 16 bits from each position on, where words begin, what follows each position."""

    window: _Words
    places: Array
    after: Array


def write_bits(words: Sequence[Array], lengths: Sequence[Array]) -> bytes:
    """`words` of `lengths` (0 to 16) bits, the highest bit first, filled up with zeros."""
    word = np.concatenate(words).astype(np.int64)
    length = np.concatenate(lengths).astype(np.int64)
    ends = np.cumsum(length)
    starts = ends - length
    # Each word lies in at most two cells of 16 bits. Sums of disjoint bits are exact.
    shifted = word << (32 - length - (starts & 15))
    cells = starts >> 4
    count = int(ends[-1] + 15 >> 4) + 1
    high = np.bincount(cells, shifted >> 16, minlength=count)
    low = np.bincount(cells, shifted & 0xFFFF, minlength=count)
    high[1:] += low[:-1]
    return high.astype(">u2").tobytes()[: int(ends[-1] + 7 >> 3)]


def gamma_words(numbers: Array) -> tuple[list[Array], list[Array]]:
    """(words, lengths) of Elias' gamma code of `numbers` from 1 to 65535 (Elias 1975)."""
    numbers = numbers.astype(np.int64)
    zeros = np.frexp(numbers.astype(np.float64))[1].astype(np.int64) - 1
    words = np.stack([np.zeros_like(numbers), numbers], axis=1).reshape(-1)
    lengths = np.stack([zeros, zeros + 1], axis=1).reshape(-1)
    return [words], [lengths]


@final
class BitReader:
    """Reads words from the front of `data`. Raises CodecError where it ends too early."""

    def __init__(self, data: memoryview) -> None:
        self._bytes = np.frombuffer(b"".join((data, _PADDING)), np.uint8)
        self._size = 8 * len(data)
        self._at = 0
        # The 16 bits from each position from `_first` on.
        self._first = 0
        self._ahead: _Words = np.empty(0, np.uint16)

    @property
    def nbytes(self) -> int:
        """The bytes read so far, the one in the middle of which we are included."""
        return (self._at + 7) // 8

    def numbers(self, code: Code, count: int) -> Array:
        """The next `count` numbers under `code`, uint8."""
        found = np.empty(count, np.uint8)
        done = 0
        while done < count:
            some = self._look(code.lengths_at, count - done, mean_bits=code.mean_bits)
            few = code.numbers_at(some.window[some.places])
            self._pass(some, few.size)
            found[done : done + few.size] = few
            done += few.size
        return found

    def runs(self, code: Code, size: int) -> Array:
        """Return where, by a `code` of runs, the next `size` magnitudes are not 0: int64."""
        found = []
        covered = 0
        while covered < size:
            count = 1 + int((size - covered) * code.mean_words)
            some = self._look(code.lengths_at, count, mean_bits=code.mean_bits)
            numbers = code.numbers_at(some.window[some.places]).astype(np.int64)
            ends = covered + np.cumsum(numbers + (numbers < RUN))
            taken = min(int(np.searchsorted(ends, size)) + 1, numbers.size)
            self._pass(some, taken)
            covered = int(ends[taken - 1])
            found.append(ends[:taken][numbers[:taken] < RUN] - 1)
        places = np.concatenate(found)
        if places.size and places[-1] >= size:
            raise CodecError(f"a run must end within its class of {size} (not {places[-1]})")
        return places

    def gammas(self, count: int) -> Array:
        """The next `count` numbers in Elias' gamma code, int64."""
        found = np.empty(count, np.int64)
        done = 0
        while done < count:
            some = self._look(_gamma_lengths, count - done, mean_bits=3.0)
            zeros = _zeros_in_front(some.window[some.places])
            if (zeros == 16).any():
                raise CodecError("a gamma code must have at most 15 zeros in front")
            self._pass(some, zeros.size)
            few = some.window[some.places + zeros].astype(np.int64) >> (15 - zeros)
            found[done : done + few.size] = few
            done += few.size
        return found

    def _look(self, lengths: Lengths, count: int, *, mean_bits: float) -> _Span:
        """Return what lies before us: some of the next `count` words, at least one."""
        if self._at >= self._size:
            raise CodecError("a block's codewords must be complete (some are missing)")
        span = min(_SPAN, max(_LEAST_SPAN, int(1.06 * mean_bits * count)))
        window = self._windows(span + 16)
        after = _POSITIONS[: span + 32].copy()
        after[:span] += lengths(window[:span])
        return _Span(window, _chain(after, span, count), after)

    def _pass(self, some: _Span, count: int) -> None:
        """Go on behind the first `count` words of `some`."""
        self._at += int(some.after[some.places[count - 1]])
        if self._at > self._size:
            raise CodecError("a block's codewords must be complete (the last one is cut off)")

    def _windows(self, count: int) -> _Words:
        """The 16 bits from each of the next `count` positions on."""
        if self._at + count > self._first + self._ahead.size:
            begin = self._at // 8
            most = min(2 * _SPAN, max(self._size - self._at, 0) + count + 8)
            some = self._bytes[begin : begin + most // 8 + 3].astype(np.uint32)
            three = some[:-2] << np.uint32(16) | some[1:-1] << np.uint32(8) | some[2:]
            self._ahead = (three[:, None] >> _SHIFTS).astype(np.uint16).reshape(-1)
            self._first = 8 * begin
        skip = self._at - self._first
        return self._ahead[skip : skip + count]


def _zeros_in_front(window: _Words) -> Array:
    """Return how many of the 16 bits are zeros in front of the first one; 16 if all."""
    return 16 - np.frexp(window.astype(np.float32))[1]


def _gamma_lengths(window: _Words) -> Array:
    return 2 * np.minimum(_zeros_in_front(window), 15) + 1


def _chain(after: Array, span: int, count: int) -> Array:
    """The first `count` places below `span` on the way from 0, each `after` the one before.

    Places from `span` on are their own successors.
    """
    jumps = [after]
    doublings = min(_MOST_DOUBLINGS, max(count // _FEW_STEPS, 1).bit_length() - 1)
    for _ in range(doublings):
        jumps.append(jumps[-1][jumps[-1]])
    far = jumps.pop().data
    anchors = []
    place = 0
    for _ in range(-(-count >> doublings)):
        if place >= span:
            break
        anchors.append(place)
        place = far[place]
    places = np.array(anchors)
    for jump in reversed(jumps):
        both = np.empty((places.size, 2), np.int64)
        both[:, 0] = places
        both[:, 1] = jump[places]
        places = both.reshape(-1)
    return places[: min(count, int(places.searchsorted(span)))]
