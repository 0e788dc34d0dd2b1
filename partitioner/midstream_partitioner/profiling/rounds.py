"""Timing the segments of a chain, round after round over all inputs.

What disturbs the machine for a while then disturbs every segment, and every size of the
inputs, in a few rounds alike, and their medians in none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf

from midstream_partitioner.costs.profile import Stat
from midstream_partitioner.execution.chain import Chain, State
from midstream_wire.tensors import Array

#: Idle time in front of every round. A device that waits for the link between two requests
#: runs the next one slower than in a tight loop: 5-30 % for a network of 5 ms.
PAUSE_S = 0.05

#: Rounds that are timed however long they take, after `_WARM` that are not.
LEAST_RUNS, _WARM = 3, 2

#: The state in front of every segment of a chain, and the one after the last.
Walk = Sequence[State]


def walk(chain: Chain, sample: State) -> list[dict[str, Array]]:
    """The state in front of every segment of the chain, and the one after the last."""
    states = [dict(sample)]
    for k in range(chain.last):
        states.append(chain.run(states[-1], k, k + 1))
    return states


def time_rounds(
    chain: Chain,
    groups: Sequence[Sequence[Walk]],
    runs: int,
    *,
    within_s: float = inf,
    progress: Callable[[int], None],
) -> list[tuple[Stat, ...]]:
    """Seconds of every segment, for each group of walks over inputs of one size.

    A round runs one walk of each group. There are `runs` of them, or `LEAST_RUNS` and as many
    more as begin within `within_s`; `progress` hears how many are done.
    """
    times: list[list[list[float]]] = [[[] for _ in range(chain.last)] for _ in groups]
    until_s = time.monotonic() + within_s
    for done in range(-_WARM, runs):
        if done >= LEAST_RUNS and time.monotonic() > until_s:
            break
        for walks, taken_s in zip(groups, times, strict=True):
            states = walks[(done + _WARM) % len(walks)]
            time.sleep(PAUSE_S)
            for k in range(chain.last):
                started_s = time.perf_counter()
                chain.run(states[k], k, k + 1)
                if done >= 0:
                    taken_s[k].append(time.perf_counter() - started_s)
        progress(max(done + 1, 0))
    return [tuple(Stat.of(samples) for samples in each) for each in times]
