"""What segments take of this process's memory, measured as what is resident.

Weights in files say little: they are laid out anew for the processor when a segment is
compiled, and a run has its working memory. Both stay with the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, final

from midstream_partitioner.runtime import release_working_memory
from midstream_wire.allocator import release_freed_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from midstream_partitioner.chain import Chain, State

_STATM = Path("/proc/self/statm")


def resident_nbytes() -> int | None:
    """Return the memory of this process that is in use now; None where the system hides it."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return None


@final
class Meter:
    """By how much the resident memory of this process has grown since this was made."""

    def __init__(self) -> None:
        release_working_memory()  # loads the library, whose memory is no segment's
        release_freed_memory()
        self._start = resident_nbytes()

    def grown_nbytes(self) -> int | None:
        """Return the growth in bytes, at least 0, without what has been freed meanwhile."""
        release_freed_memory()
        now = resident_nbytes()
        return None if now is None or self._start is None else max(0, now - self._start)


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
