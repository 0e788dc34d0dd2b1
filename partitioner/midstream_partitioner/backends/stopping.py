"""Giving up a run that is under way, from another thread, whatever backend it runs on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final


class Stopped(Exception):
    """A run was given up by whoever had asked for it; no result, and no error."""


@final
class Stop:
    """Ends the runs that it is given to, from another thread, before their next node."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    @property
    def told(self) -> bool:
        """Return True if runs are to end."""
        return self._told.is_set()

    def tell(self) -> None:
        """End what runs, and what will be begun."""
        with self._lock:
            self._told.set()
            ends = tuple(self._ends)
        for end in ends:
            end()

    @contextmanager
    def calling(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called once this is told, at once if it has been; for one run."""
        with self._lock:
            self._ends.append(end)
            told = self.told
        try:
            if told:
                end()
            yield
        finally:
            with self._lock:
                self._ends.remove(end)

    def pause(self, seconds: float) -> None:
        """Wait so long; raises `Stopped` as soon as it is told."""
        if self._told.wait(seconds):
            raise Stopped
