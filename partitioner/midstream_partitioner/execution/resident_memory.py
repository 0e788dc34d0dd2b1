"""Resident memory that segments take of this process, measured.

Weights in files say little: they are laid out anew for the processor when a segment is
compiled, and a run has its working memory. Both stay with the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from midstream_partitioner.backends.onnxruntime_backend import release_working_memory
from midstream_wire.allocator import release_freed_memory

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
