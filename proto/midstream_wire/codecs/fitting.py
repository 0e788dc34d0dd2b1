"""The encoder's choice of classes and codes for interlaced planes (see interlace, prefix).

Counts say what every distribution of the family would cost, so all of them are tried. Nothing
here need come out the same elsewhere: the choice is written into the block.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from midstream_wire.codecs.prefix import GROUPS, SYMBOLS, TAILS, WIDTHS, tail_of
from midstream_wire.tensors import Array

# What a class has to save, in bits: its two bytes, and the time that its words take.
_CLASS_BITS = 32.0
# Chances of a zero that codes are made for, in 256ths, so that the same codes come again: each
# takes longer to make than a small tensor to encode. This costs less than 0.001 bits.
_ZEROS = np.unique(np.rint(255 / (1 + np.exp(-np.linspace(-6, 6, 49)))).astype(int))
_NEAREST = _ZEROS[np.abs(np.arange(256)[:, None] - _ZEROS).argmin(axis=1)]
# Of 1, 2, ... in Elias' gamma code.
_GAMMA_BITS = 2.0 * np.floor(np.log2(np.arange(1, SYMBOLS + 1))) + 1


def split_classes(counts: Array) -> tuple[int, list[Array]]:
    """(edges that part the fine classes, counts of magnitudes in each class between them)

    `counts` are those of the fine classes. Of all ways to part them into runs, this is the
    cheapest, by dynamic programming.
    """
    classes = len(counts)
    until = np.concatenate([np.zeros((1, SYMBOLS)), counts.cumsum(axis=0)])
    starts, ends = np.triu_indices(classes)
    costs = np.zeros((classes, classes))
    costs[ends, starts] = _costs_of(until[ends + 1] - until[starts]) + _CLASS_BITS
    best, cuts = [0.0], [0]
    for row in costs.tolist():
        options = [before + cost for before, cost in zip(best, row, strict=False)]
        best.append(min(options))
        cuts.append(options.index(best[-1]))
    edges, bounds, end = 0, [classes], classes
    while cuts[end]:
        end = cuts[end]
        edges |= 1 << (end - 1)
        bounds.append(end)
    bounds = [0, *reversed(bounds)]
    return edges, [until[high] - until[low] for low, high in pairwise(bounds)]


def shapes_of(counts: Array) -> list[tuple[int, int]]:
    """The two bytes of the code for each row of counts of magnitudes."""
    zeros = _zeros_of(counts)
    tails = (counts[:, 1:] @ _tail_costs().T).argmin(axis=1)
    modes = _modes_of(counts)
    return [
        (int(zero), int(mode) * TAILS + int(tail))
        for zero, mode, tail in zip(zeros, modes, tails, strict=True)
    ]


def _zeros_of(counts: Array) -> Array:
    share = counts[:, 0] / np.maximum(counts.sum(axis=1), 1)
    zeros: Array = _NEAREST[np.minimum(256 * share, 255).astype(int)]
    return zeros


def _costs_of(counts: Array) -> Array:
    """Bits that rows of counts take under the best codes of the family."""
    chance = (2 * _zeros_of(counts) + 1) / 512
    zeros, rest = counts[:, 0], counts[:, 1:].sum(axis=1)
    tails = (counts[:, 1:] @ _tail_costs().T).min(axis=1)
    costs: Array = -zeros * np.log2(chance) - rest * np.log2(1 - chance) + tails
    return costs


@cache
def _tail_costs() -> Array:
    """Bits of the magnitudes 1..63 under each tail: [TAILS, 63]"""
    weights = np.array([tail_of(tail) for tail in range(TAILS)], np.float64)
    costs: Array = -np.log2(weights / weights.sum(axis=1, keepdims=True))
    return costs


def _modes_of(counts: Array) -> Array:
    """The modes that take the fewest bits, by an estimate of what whole bits waste."""
    total = np.maximum(counts.sum(axis=1), 1)
    costs = []
    for group, width in zip(GROUPS, WIDTHS, strict=True):
        escape = (1 << width) - 1
        beyond = counts[:, escape:]
        kept = np.column_stack([counts[:, :escape], beyond.sum(axis=1)]) / total[:, None]
        entropy = -(kept * np.log2(np.maximum(kept, 1e-12))).sum(axis=1)
        gamma = beyond @ _GAMMA_BITS[: SYMBOLS - escape] / total
        waste = _waste(kept[:, 0] ** group) / group if group else 0.1 * (1 - kept[:, 0])
        costs.append(entropy + gamma + waste)
    modes: Array = np.argmin(costs, axis=0)
    return modes


def _waste(greatest: Array) -> Array:
    """Bits by which Huffman's code exceeds the entropy, by the greatest probability.

    Above one half the bound by Gallager (1978) is met nearly; below it is far from being met.
    """
    likely = np.clip(greatest, 0.5, 1 - 1e-9)
    rest = 1 - likely
    bound = 2 - likely + likely * np.log2(likely) + rest * np.log2(rest)
    waste: Array = np.where(greatest <= 0.5, 0.035, bound)
    return waste
