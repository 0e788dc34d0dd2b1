"""One budget of bytes for all requests of a server: what they hold, encoded and decoded.

A request takes its share when its headers have been accepted and gives it back when its reply
has gone, or it was refused, cancelled, or its session ended. What does not fit is refused
in-band, so that no number of sessions takes more memory than the operator said.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import final

from midstream_partitioner.machine import usable_memory_nbytes
from midstream_partitioner.units import format_nbytes
from midstream_wire.errors import CloudRefused, UsageError
from midstream_wire.frames import Code
from midstream_wire.limits import MIB

#: A server's share of the memory that it may fill: the rest is for the system, for what
#: gRPC holds of messages under way, and for networks that are cut anew.
_SHARE = 0.75

#: The networks' share of that, weights and working memory together, which onnxruntime keeps.
_NETWORKS = 0.6

#: Requests' share of it; what is left is for Python and for messages under way. And their
#: share of what the loaded networks leave: tails work in the other half.
_REQUESTS, _REQUESTS_OF_REST = 0.3, 0.5

#: Less than this does not let a server serve: a message alone may have 4 MiB.
_LEAST_NBYTES = 64 * MIB

#: What a server takes beside its networks where the system does not tell how much there is.
_UNTOLD_NBYTES = 1024 * MIB


@final
class Budget:
    """At most `nbytes` for all claims together. Methods may be called from any thread."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken_nbytes(self) -> int:
        """Return what is claimed at present."""
        return self._taken

    def claim(self) -> Claim:
        """Return a claim to nothing yet."""
        return Claim(self)

    def _move(self, change: int) -> None:
        with self._lock:
            if change > 0 and self._taken + change > self.nbytes:
                raise CloudRefused(
                    Code.RESOURCE_EXHAUSTED,
                    f"all requests of a server may hold {format_nbytes(self.nbytes)} "
                    f"together, and {format_nbytes(self._taken)} are taken: send less or "
                    "later, or run the rest on the edge",
                    kind="memory",
                )
            self._taken += change


@final
class Claim:
    """One request's share of a budget."""

    __slots__ = ("_budget", "_lock", "_nbytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._nbytes: int | None = 0
        self._lock = threading.Lock()

    def hold(self, nbytes: int) -> None:
        """Hold so much from now on, more or less than before.

        `CloudRefused` when it does not fit, and then it holds what it did. Nothing happens
        once it was released.
        """
        with self._lock:
            if self._nbytes is not None:
                self._budget._move(nbytes - self._nbytes)
                self._nbytes = nbytes

    def release(self) -> None:
        """Give back what it holds, for good; a second time changes nothing."""
        with self._lock:
            held, self._nbytes = self._nbytes, None
        if held:
            self._budget._move(-held)


def memory_limit(memory_nbytes: int | None = None) -> int:
    """Return the bytes that a server may take: `memory_nbytes`, unless that is None.

    Else a share of what the container or the machine lets this process have.
    """
    if memory_nbytes is not None:
        return memory_nbytes
    return int(_SHARE * usable_memory_nbytes()) or resident() + _UNTOLD_NBYTES


def networks_limit(memory_nbytes: int | None = None) -> int:
    """Return the bytes that its networks may take, weights and working memory."""
    return int(_NETWORKS * memory_limit(memory_nbytes))


def memory_budget(
    memory_nbytes: int | None = None, *, resident_nbytes: int | None = None
) -> int:
    """Return the bytes that requests may hold, of `memory_nbytes` for the whole server.

    `resident_nbytes` is what the process takes with its networks loaded, by default as
    it is now. `UsageError` when too little is left.
    """
    if resident_nbytes is None:
        resident_nbytes = resident()
    memory_nbytes = memory_limit(memory_nbytes)
    left_nbytes = memory_nbytes - resident_nbytes
    if left_nbytes < _LEAST_NBYTES:
        raise UsageError(
            f"a server must have {format_nbytes(_LEAST_NBYTES)} of memory beside the "
            f"{format_nbytes(resident_nbytes)} that it takes with its models loaded (not "
            f"{format_nbytes(memory_nbytes)} in all): give it more, or serve fewer models"
        )
    return int(min(_REQUESTS_OF_REST * left_nbytes, _REQUESTS * memory_nbytes))


def resident() -> int:
    """Return the physical memory of this process in bytes; 0 where it is unknown."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
