"""From weights in files to memory on a device and back, by what a profile has measured.

Another partition of the same network takes about as much where its heads hold as many weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.partition.partition import Partition


def weights_of(part: Partition, count: int | None = None) -> list[int]:
    """Return by k, up to `count` segments or all, the weights in files of segments [0, k)."""
    last = len(part.segments) if count is None else count
    return [part.weight_nbytes(0, k) for k in range(last + 1)]


def expected_memory(old: Partition, profile: Profile, part: Partition) -> tuple[int, ...]:
    """Return `Profile.memory_nbytes` of `part`, as `profile` of `old` lets expect; () if not.

    Between heads that were measured, in proportion to their weights.
    """
    if not profile.memory_nbytes:
        return ()
    weights, memory = _measured(old, profile)
    heads = weights_of(part)
    found = np.interp(heads, weights, memory)
    return (0, *(round(float(nbytes)) for nbytes in found[1:]))


def most_weights(part: Partition, profile: Profile, within_nbytes: float) -> float:
    """Return how many weights a head may hold that takes at most so much memory."""
    if not profile.memory_nbytes:
        return within_nbytes
    weights, memory = _measured(part, profile)
    if within_nbytes >= memory[-1]:
        whole = len(profile.memory_nbytes) > len(part.segments)
        return float("inf") if whole else weights[-1]
    return float(np.interp(within_nbytes, memory, weights, left=0.0))


def _measured(part: Partition, profile: Profile) -> tuple[Sequence[float], Sequence[float]]:
    """Weights and memory of heads; of several with equal weights, the one that takes most."""
    taken: dict[float, float] = {}
    memory = profile.memory_nbytes[1:]
    for weights, nbytes in zip(weights_of(part, len(memory))[1:], memory, strict=True):
        taken[float(weights)] = float(nbytes)
    return list(taken), list(taken.values())
