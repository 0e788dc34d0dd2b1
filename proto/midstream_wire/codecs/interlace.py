"""Planes of small magnitudes in three passes, each of which knows its neighbours.

    1 3 1 3      1: no context
    3 2 3 2      2: sum of the 4 diagonal neighbours, which are in pass 1
    1 3 1 3      3: sum of the 4 direct neighbours, which are in passes 1 and 2

A scan would know as much of each element, but one element at a time. Here what a pass needs is
there as a whole, on both sides, so that arrays do it. Beyond the edges everything is zero.

    body  = 0                                          all of the block is zero
          | 1  edges u16  (zero u8  shape u8) * (2 + edges set)  words  signs

`edges` tells which of EDGES part the sums into classes. The codes (see prefix) are those of
pass 1 and of each class. Words (see bits) come pass after pass, class after class, and after
each pass what its escapes exceed theirs by, plus 1, in the gamma code. `signs` are the bits of
what is not zero, in C order, a set bit for a negative number, filled up to whole bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from midstream_wire.codecs.bits import BitReader, gamma_words, write_bits
from midstream_wire.codecs.fitting import shapes_of, split_classes
from midstream_wire.codecs.prefix import RUN, SYMBOLS, Code, code_of
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

#: Where sums of four neighbours' magnitudes (each at most 63) may be parted into classes.
EDGES = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40)
#: The greatest magnitude that the words can hold, whatever the code.
MAX_MAGNITUDE = 65_000

_FRONT = struct.Struct("<BH")
_CLIP = SYMBOLS - 1
_FINE = np.searchsorted(EDGES, np.arange(256), side="right").astype(np.uint8)

_Bytes = NDArray[np.uint8]


class Lattice(NamedTuple):
    """Every other row and column of planes: those from `row` and `column` on."""

    row: int
    column: int

    def of(self, planes: Array) -> Array:
        """A view of the lattice in `planes` [P, H, W]."""
        return planes[:, self.row :: 2, self.column :: 2]


# Pass by pass.
_PASSES = ((Lattice(0, 0),), (Lattice(1, 1),), (Lattice(0, 1), Lattice(1, 0)))


def pack_planes(magnitudes: Array, negative: Array | None) -> list[bytes | memoryview]:
    """The body of `magnitudes` [P, H, W], int32 up to MAX_MAGNITUDE, and of their signs."""
    if not magnitudes.any():
        return [b"\0"]
    small = np.minimum(magnitudes, _CLIP).astype(np.uint8)
    framed = np.pad(small, ((0, 0), (1, 1), (1, 1)))
    gathered = [_gather(small, lattices) for lattices in _PASSES]
    sums = [_FINE[_sums(framed, number)] for number in (1, 2)]
    joint = np.concatenate(sums) * np.intp(SYMBOLS) + np.concatenate(gathered[1:])
    counts = np.bincount(joint, minlength=(len(EDGES) + 1) * SYMBOLS).reshape(-1, SYMBOLS)
    edges, parted = split_classes(counts)
    shapes = shapes_of(np.stack([np.bincount(gathered[0], minlength=SYMBOLS), *parted]))
    codes = [code_of(*shape) for shape in shapes]
    words: list[Array] = []
    lengths: list[Array] = []
    for number, lattices in enumerate(_PASSES):
        order, sizes = _by_class(sums[number - 1], edges) if number else (None, None)
        values = _gather(magnitudes, lattices)
        some = _pass_words(values, order, sizes, codes)
        words += some[0]
        lengths += some[1]
    signs = b"" if negative is None else np.packbits(negative[magnitudes > 0]).tobytes()
    front = _FRONT.pack(1, edges) + b"".join(bytes(shape) for shape in shapes)
    return [front, write_bits(words, lengths), signs]


def _pass_words(
    values: Array, order: Array | None, sizes: list[int] | None, codes: list[Code]
) -> tuple[list[Array], list[Array]]:
    """(words, lengths) of one pass: those of each class, then of the escapes."""
    if order is None or sizes is None:
        return class_words(codes[:1], [values])
    return class_words(codes[1:], np.split(values[order], np.cumsum(sizes)[:-1]))


def class_words(
    codes: Sequence[Code], classes: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """(words, lengths) of the magnitudes in each class, then of the escapes of all."""
    words, lengths, beyond = [], [], []
    for code, run in zip(codes, classes, strict=True):
        numbers = _numbers_of(run, code)
        words.append(code.words[numbers])
        lengths.append(code.lengths[numbers])
        beyond.append(run[run >= code.escape] - (code.escape - 1))
    escapes = np.concatenate(beyond)
    if escapes.size:
        more = gamma_words(escapes)
        words += more[0]
        lengths += more[1]
    return words, lengths


def _numbers_of(run: Array, code: Code) -> Array:
    """The numbers of groups of magnitudes, the last filled up with zeros; or of runs."""
    if not code.group:
        return _runs_of(run)
    groups = -(-run.size // code.group)
    symbols = np.zeros(groups * code.group, np.uint8)
    np.minimum(run, code.escape, out=symbols[: run.size], casting="unsafe")
    numbers = symbols[:: code.group].copy()
    for place in range(1, code.group):
        numbers |= symbols[place :: code.group] << np.uint8(place * code.width)
    return numbers


def _runs_of(run: Array) -> Array:
    """The zeros in front of each magnitude that is none, in numbers up to RUN."""
    places = np.append(np.flatnonzero(run), run.size)
    whole, rest = np.divmod(np.diff(places, prepend=-1) - 1, RUN)
    # Behind the last one RUN may reach beyond the end.
    whole[-1] += rest[-1] > 0
    ends = np.cumsum(whole + 1) - 1
    numbers = np.full(int(ends[-1]) + 1, RUN, np.uint8)
    numbers[ends] = rest
    return numbers[:-1]


def unpack_planes(body: memoryview, shape: tuple[int, int, int]) -> tuple[Array, memoryview]:
    """(magnitudes [P, H, W] as int32, what follows the words). Raises CodecError."""
    magnitudes = np.zeros(shape, np.int32)
    if body[0] == 0:
        return magnitudes, body[1:]
    edges, codes, rest = _parse_front(body)
    reader = BitReader(rest)
    planes, height, width = shape
    framed = np.zeros((planes, height + 2, width + 2), np.uint8)
    inner = framed[:, 1:-1, 1:-1]
    for number, lattices in enumerate(_PASSES):
        parts = [lattice.of(magnitudes).shape for lattice in lattices]
        if number:
            order, sizes = _by_class(_FINE[_sums(framed, number)], edges)
            found = np.empty(order.size, np.int32)
            found[order] = read_classes(reader, codes[1:], sizes)
        else:
            found = read_classes(reader, codes[:1], [int(np.prod(parts[0]))])
        start = 0
        for lattice, part in zip(lattices, parts, strict=True):
            count = int(np.prod(part))
            lattice.of(magnitudes)[...] = found[start : start + count].reshape(part)
            start += count
            lattice.of(inner)[...] = np.minimum(lattice.of(magnitudes), _CLIP)
    return magnitudes, rest[reader.nbytes :]


def _parse_front(body: memoryview) -> tuple[int, list[Code], memoryview]:
    if body[0] != 1 or len(body) < _FRONT.size:
        raise CodecError(
            f"interlaced planes must begin with 0, or with 1 and edges (not {body[0]})"
        )
    edges: int = _FRONT.unpack_from(body)[1]
    if edges >> len(EDGES):
        raise CodecError(f"interlaced planes must have {len(EDGES)} edges (not {edges:#06x})")
    end = _FRONT.size + 2 * (2 + edges.bit_count())
    if len(body) < end:
        raise CodecError(f"interlaced planes must tell {end} bytes of codes (not {len(body)})")
    pairs = body[_FRONT.size : end]
    return edges, [code_of(*pairs[at : at + 2]) for at in range(0, len(pairs), 2)], body[end:]


def read_classes(reader: BitReader, codes: Sequence[Code], sizes: Sequence[int]) -> Array:
    """Return what `class_words` wrote: magnitudes, class after class. Raises CodecError."""
    found = np.empty(sum(sizes), np.int32)
    places = []
    start = 0
    for code, size in zip(codes, sizes, strict=True):
        run = found[start : start + size]
        if size and not code.group:
            nonzero = reader.runs(code, size)
            run[:] = 0
            run[nonzero] = 1
            places.append(start + nonzero)
        elif size:
            numbers = reader.numbers(code, -(-size // code.group))
            shifts = np.arange(0, 8, code.width, dtype=np.uint8)[: code.group]
            run[:] = (numbers[:, None] >> shifts & np.uint8(code.escape)).reshape(-1)[:size]
            places.append(start + np.flatnonzero(run == code.escape))
        start += size
    escaped = np.concatenate(places) if places else np.empty(0, np.int64)
    if escaped.size:
        found[escaped] += reader.gammas(escaped.size).astype(np.int32) - 1
    return found


def _gather(planes: Array, lattices: tuple[Lattice, ...]) -> Array:
    """The elements of `lattices`, flat: one lattice after the other, each in C order."""
    parts = [lattice.of(planes).reshape(-1) for lattice in lattices]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _sums(framed: _Bytes, number: int) -> _Bytes:
    """Return what the neighbours of the elements of pass `number` sum to; at most 252."""
    sums = [_sum_around(framed, lattice, diagonal=number == 1) for lattice in _PASSES[number]]
    return np.concatenate([each.reshape(-1) for each in sums])


def _sum_around(framed: _Bytes, lattice: Lattice, *, diagonal: bool) -> _Bytes:
    if diagonal:
        around = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    else:
        around = [(-1, 0), (0, -1), (0, 1), (1, 0)]
    height, width = framed.shape[1] - 2, framed.shape[2] - 2
    total = np.zeros_like(lattice.of(framed[:, 1:-1, 1:-1]))
    for down, right in around:
        shifted = framed[:, 1 + down :, 1 + right :][:, :height, :width]
        total += lattice.of(shifted)
    return total


def _by_class(fine: _Bytes, edges: int) -> tuple[Array, list[int]]:
    """(indices of elements, class after class; how many are in each class)"""
    bits = [edges >> index & 1 for index in range(len(EDGES))]
    merged = np.cumsum([0, *bits]).astype(np.uint8)
    classes = merged[fine]
    order = np.argsort(classes, kind="stable")
    return order, np.bincount(classes, minlength=sum(bits) + 1).tolist()
