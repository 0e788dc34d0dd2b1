"""Measuring a device at several sizes of a network's open dimensions, bucket by bucket."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import Profile, Stat
from midstream_partitioner.costs.size_spans import MOST_BUCKETS
from midstream_partitioner.costs.sizes import Sizes, bind_sizes, listed
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.execution.resident_memory import Meter
from midstream_partitioner.profiling.profiler import (
    FURTHER_S,
    TIMED,
    Progress,
    no_progress,
    profile_segments,
)
from midstream_partitioner.profiling.rounds import time_rounds, walk
from midstream_wire.errors import TensorError
from midstream_wire.tensors import Array, TensorSpec

#: Seconds for timing the segments at all sizes together.
TIMED_S = 120.0


def profile_sizes(
    chain: Chain,
    samples: Sequence[State],
    device: Device,
    *,
    runs: int = 20,
    codecs: Sequence[str] | None = None,
    further_s: float = FURTHER_S,
    progress: Progress = no_progress,
) -> Profile:
    """Profile `chain` at every bucket of sizes that `samples` have, `MOST_BUCKETS` at most.

    Samples of one size are one bucket, measured as `profile_segments` does. The profile's own
    sizes are the feed's where samples have them, else those of the middle bucket. The segments
    of all buckets are timed in turn, so that drift hits all alike. Raises
    `TensorError`, naming the sizes that the network cannot run at.
    """
    part = chain.partition
    groups = grouped(part.inputs, samples)
    first = nearest(list(groups), part.feed.sizes)
    order = [first, *(sizes for sizes in groups if sizes != first)]
    memory: tuple[int, ...] = ()
    with suppress(TensorError):  # which is told with its sizes below
        memory = memory_by_segments(chain.at_speed(1.0), [groups[sizes][0] for sizes in order])
    timed = _timed(chain, [groups[sizes] for sizes in order], runs, progress)
    made = []
    for at, sizes in enumerate(order):
        profile = profile_segments(
            chain,
            groups[sizes],
            device,
            runs=runs,
            codecs=codecs,
            further_s=0.0 if at else further_s,
            segments=timed[at],
            progress=_share(progress, at, len(order)),
        )
        made.append(profile.buckets[0])
    return replace(profile.holding(made[0], made[1:]), memory_nbytes=memory)


def _timed(
    chain: Chain, groups: Sequence[Sequence[State]], runs: int, progress: Progress
) -> list[tuple[Stat, ...]]:
    """The segments' times for each group, all groups in turn; of several, two inputs each."""
    full, most = chain.at_speed(1.0), TIMED if len(groups) == 1 else 2
    walks = [[_walk(full, sample) for sample in samples[:most]] for samples in groups]
    return time_rounds(
        full, walks, runs, within_s=TIMED_S, progress=lambda n: progress(n, 2 * runs)
    )


def _walk(chain: Chain, sample: State) -> list[dict[str, Array]]:
    try:
        return walk(chain, sample)
    except TensorError as error:
        sizes = bind_sizes(chain.partition.inputs, sample)
        if not sizes:
            raise
        raise TensorError(f"at {listed(sizes)}: {error}") from error


def grouped(specs: Sequence[TensorSpec], samples: Sequence[State]) -> dict[Sizes, list[State]]:
    """`samples` by the sizes that the open dimensions of `specs` have in them, small first.

    Of more than `MOST_BUCKETS` sizes some are left out, evenly.
    """
    found: dict[Sizes, list[State]] = {}
    for sample in samples:
        found.setdefault(bind_sizes(specs, sample), []).append(sample)
    order = sorted(found, key=lambda sizes: (math.prod(size for _, size in sizes), sizes))
    if len(order) > MOST_BUCKETS:
        step = (len(order) - 1) / (MOST_BUCKETS - 1)
        order = [order[round(at * step)] for at in range(MOST_BUCKETS)]
    return {sizes: found[sizes] for sizes in order}


def nearest(order: Sequence[Sizes], nominal: Sizes) -> Sizes:
    """The sizes of `order` that have all those of `nominal`, or the middle ones."""
    for sizes in order:
        if set(nominal) <= set(sizes):
            return sizes
    return order[len(order) // 2]


def _share(progress: Progress, at: int, count: int) -> Callable[[int, int], None]:
    """The second half of the progress, of which one of `count` buckets is a part."""
    return lambda done, total: progress((count + at) * total + done, 2 * total * count)


def memory_by_segments(chain: Chain, samples: Sequence[State]) -> tuple[int, ...]:
    """Return by k the bytes that holding and running segments [0, k) of `chain` takes.

    Runs each of `samples` once, inputs of every size that counts. Empty where the chain has
    not weighed its segments (`Chain.held_nbytes`), or does not begin at the first.
    """
    if not chain.held_nbytes or chain.first:
        return ()
    taken = [float(nbytes) for nbytes in chain.held_nbytes]
    for sample in samples:
        meter, state = Meter(), dict(sample)
        for k in range(chain.last):
            state = chain.run(state, k, k + 1)
            taken[k + 1] += meter.grown_nbytes() or 0
    # More segments never take less: what a later one was spared, an earlier one had taken.
    return tuple(int(max(taken[: k + 1])) for k in range(len(taken)))
