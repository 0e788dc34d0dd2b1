"""Requests whose answers are late, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import final

from midstream_lab.simulation.core import Core
from midstream_lab.simulation.job import Job


@final
class Overdue:
    """Tells `late` of each request among `sent` that is there still when its time is up.

    One event serves for all: nearly every one would come to nothing, and a heap of them be ten
    times as large.
    """

    __slots__ = ("_core", "_first_s", "_late", "_sent")

    def __init__(
        self, core: Core, sent: Mapping[int, Job], late: Callable[[Job], object]
    ) -> None:
        self._core = core
        self._sent = sent
        self._late = late
        self._first_s = math.inf  # when the first of them is late

    def watch(self, job: Job, late_s: float) -> None:
        """From `late_s` on `job` is late."""
        job.late_s = late_s
        if late_s < self._first_s:
            self._first_s = late_s
            self._core.at(late_s, self._look)

    def _look(self, _: object) -> None:
        now_s = self._core.now_s
        if now_s < self._first_s:
            return  # an earlier one has come since
        self._first_s = math.inf
        for job in tuple(self._sent.values()):
            if job.late_s <= now_s:
                self._late(job)
            elif job.late_s < math.inf:
                self.watch(job, job.late_s)
