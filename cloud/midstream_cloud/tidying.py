"""Moments at which a process gives memory back that it holds and no longer uses.

Pure: moments and sizes come in as values. What was given back has to be faulted in
again by the next large request, so it is not given back while much is under way.
"""

from __future__ import annotations

from typing import final

from midstream_wire.limits import MIB

#: The share of the least memory taken so far that a process may hold.
KEPT = 1.2

#: As long as requests hold so many bytes, what they leave behind is about to be used again.
BUSY_NBYTES = 16 * MIB

#: Seconds from one try to the next: a try that does not help doubles them. After a minute of
#: tries, what is still held counts as in use: models that were loaded since, for one.
FIRST_S, LONGEST_S = 1.0, 32.0


@final
class Tidying:
    """A schedule of tries, of a process that takes `nbytes` when it begins."""

    def __init__(self, nbytes: int) -> None:
        self._least_nbytes = nbytes
        self._pause_s = FIRST_S
        self._next_s = 0.0

    def is_due(self, now_s: float, nbytes: int, taken_nbytes: int) -> bool:
        """Return True if a process that takes `nbytes` should give memory back.

        Requests hold `taken_nbytes` of it.
        """
        held = nbytes > KEPT * self._least_nbytes
        return held and taken_nbytes < BUSY_NBYTES and now_s >= self._next_s

    def note(self, now_s: float, nbytes: int) -> None:
        """Take note that memory was given back, and that the process takes `nbytes` now."""
        if nbytes <= KEPT * self._least_nbytes:
            self._least_nbytes = min(self._least_nbytes, nbytes)
            self._pause_s = FIRST_S
        elif self._pause_s < LONGEST_S:
            self._pause_s *= 2
        else:
            self._least_nbytes = nbytes
            self._pause_s = FIRST_S
        self._next_s = now_s + self._pause_s
