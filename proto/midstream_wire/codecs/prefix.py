"""Prefix codes of small magnitudes, rebuilt by both sides from two bytes.

A family of distributions with three parameters stands for a transmitted table:

    P(0)   = zero / 512                                      zero = 1, 3, ... 511
    P(m)  ~= prod over k in 1..m-1 of q * (k + r - 1) / k    m = 1..63, q = 1/32 .. 31/32

Zeros apart from the rest, a negative binomial (r = 1: a geometric one) for what is not zero.
Several magnitudes share one codeword, as whole bits are too coarse for most of them. All of it
is computed with integers, so that it comes out the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

#: Codewords have at most so many bits: tables of 8 KiB, which stay in the first-level cache.
MAX_BITS = 12
#: Magnitudes 0..62 have probabilities of their own; 63 stands for it and all above.
SYMBOLS = 64
#: Per mode: magnitudes to a codeword, and bits of each in its number. The greatest number that
#: these bits hold is the escape. In the last mode, that of runs, a number counts the zeros in
#: front of a magnitude that is none, which is an escape; RUN are zeros with nothing behind.
GROUPS = (1, 2, 4, 0)
WIDTHS = (6, 4, 2, 1)
RUN = 255

_ORDERS = (1, 2, 4, 8)  # r
TAILS = 16 * len(_ORDERS)
_UNUSED, _EIGHT = np.uint16(16 - MAX_BITS), np.uint16(8)
_ONE = 1 << 16  # what the probabilities of 1..63 sum to, about


@final
@dataclass(frozen=True, slots=True)
class Code:
    """One prefix code. `lookup` gives bits << 8 | number for whatever MAX_BITS bits come.

    The means say how much to read at a time, and nothing else depends on them.
    """

    group: int
    width: int
    words: NDArray[np.uint16]
    lengths: NDArray[np.uint8]
    lookup: NDArray[np.uint16]
    mean_bits: float
    mean_words: float

    def lengths_at(self, window: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Bits of the words that the 16 bits in `window` begin with."""
        lengths: NDArray[np.uint16] = self.lookup[window >> _UNUSED] >> _EIGHT
        return lengths

    def numbers_at(self, window: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Numbers of the words that the 16 bits in `window` begin with."""
        numbers: NDArray[np.uint8] = self.lookup[window >> _UNUSED].astype(np.uint8)
        return numbers

    @property
    def escape(self) -> int:
        """The least magnitude that the number does not tell."""
        return (1 << self.width) - 1


@lru_cache(TAILS)
def tail_of(tail: int) -> tuple[int, ...]:
    """Weights of the magnitudes 1..63 under the tail 16 * order + step; each is at least 1."""
    order, step = divmod(tail, 16)
    weights = [1 << 64]
    for k in range(1, SYMBOLS - 1):
        weights.append(weights[-1] * (2 * step + 1) * (k + _ORDERS[order] - 1) // (32 * k))
    total = sum(weights)
    return tuple(1 + weight * _ONE // total for weight in weights)


@lru_cache(1024)
def code_of(zero: int, shape: int) -> Code:
    """The code of these two bytes: P(0) = (2 * zero + 1) / 512, and mode << 6 | tail."""
    mode, tail = divmod(shape, TAILS)
    group, width = GROUPS[mode], WIDTHS[mode]
    if not group:
        joint = _run_weights(zero)
        return _canonical(_bits_of(joint), joint, group=group, width=width)
    weights = _weights_of(zero, tail, escape=(1 << width) - 1)
    joint = [1]
    for _ in range(group):
        # The first magnitude of a group in the lowest bits of the number.
        joint = [weight * other for weight in weights for other in joint]
    return _canonical(_bits_of(joint), joint, group=group, width=width)


def _weights_of(zero: int, tail: int, *, escape: int) -> list[int]:
    rest = tail_of(tail)
    chance = 2 * zero + 1
    each = [(512 - chance) * weight for weight in rest]
    return [chance * sum(rest), *each[: escape - 1], sum(each[escape - 1 :])]


def _run_weights(zero: int) -> list[int]:
    chance = 2 * zero + 1
    weights, power = [], 1 << 32
    for _ in range(RUN):
        weights.append(power * (512 - chance) >> 9)
        power = power * chance >> 9
    return [*weights, power]


def _bits_of(weights: list[int]) -> list[int]:
    """Lengths of Huffman's code, of at most MAX_BITS; of equal weights, the elder goes first.

    What is too long gets shorter once the weights are less unequal (as bzip2 does it).
    """
    # What weighs less than the longest word's share need not weigh that little.
    least = sum(weights) >> MAX_BITS
    weights = [weight + least // 4 + 1 for weight in weights]
    while True:
        lengths = _huffman(weights)
        if max(lengths) <= MAX_BITS:
            return lengths
        least = max(2 * least, 1)
        weights = [weight + least for weight in weights]


def _huffman(weights: list[int]) -> list[int]:
    """Lengths by the two queues of van Leeuwen (1976): leaves in order, and what is joined."""
    count = len(weights)
    order = sorted(range(count), key=weights.__getitem__)
    total = sum(weights) + 1
    leaves = [*(weights[number] for number in order), total, total]
    joined = [total] * (count + 1)
    parents = [0] * (2 * count - 1)
    leaf = node = 0
    for made in range(count - 1):
        weight = 0
        for _ in range(2):
            if leaves[leaf] <= joined[node]:
                weight += leaves[leaf]
                parents[order[leaf]] = count + made
                leaf += 1
            else:
                weight += joined[node]
                parents[count + node] = count + made
                node += 1
        joined[made] = weight
    depths = [0] * len(parents)
    for number in range(len(parents) - 2, -1, -1):
        depths[number] = depths[parents[number]] + 1
    return depths[:count]


def _canonical(bits: list[int], weights: list[int], *, group: int, width: int) -> Code:
    """Words in ascending order of length, then of number (RFC 1951, 3.2.2)."""
    lengths = np.array(bits, np.uint8)
    order = np.argsort(lengths, kind="stable")
    spans = np.left_shift(1, MAX_BITS - lengths[order].astype(np.int64))
    starts = np.cumsum(spans) - spans
    words = np.empty(lengths.size, np.uint16)
    words[order] = starts >> (MAX_BITS - lengths[order].astype(np.int64))
    entries = lengths[order].astype(np.uint16) << np.uint16(8) | order.astype(np.uint16)
    lookup = np.repeat(entries, spans)
    total = sum(weights)
    mean = sum(length * weight for length, weight in zip(bits, weights, strict=True)) / total
    for array in (words, lengths, lookup):
        array.setflags(write=False)
    # Of runs: how many of them there are to a magnitude.
    return Code(group, width, words, lengths, lookup, mean, weights[0] / total)
