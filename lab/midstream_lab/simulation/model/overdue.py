"""Requests whose answers are late, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import final

from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.model.request import Job


@final
class Overdue:
    """Tells `due` of each request among `sent` whose alarm is due while it is there.

    One event serves for all: nearly every one would come to nothing, and a heap of them be ten
    times as large.
    """

    __slots__ = ("_core", "_due", "_first_s", "_sent")

    def __init__(
        self, core: Core, sent: Mapping[int, Job], due: Callable[[Job], object]
    ) -> None:
        self._core = core
        self._sent = sent
        self._due = due
        self._first_s = math.inf  # when the first alarm is due

    def watch(self, job: Job) -> None:
        """Tell of `job` at its alarm."""
        if job.alarm_s < self._first_s:
            self._first_s = job.alarm_s
            self._core.at(job.alarm_s, self._look)

    def _look(self, _: object) -> None:
        now_s = self._core.now_s
        if now_s < self._first_s:
            return  # an earlier one has come since
        self._first_s = math.inf
        for job in tuple(self._sent.values()):
            if job.alarm_s <= now_s:
                self._due(job)
            elif job.alarm_s < math.inf:
                self.watch(job)
