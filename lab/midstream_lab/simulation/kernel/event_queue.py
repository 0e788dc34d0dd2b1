"""Virtual time: events on a heap, and processes in the manner of SimPy on top of them.

Events at the same moment happen in the order in which they were scheduled, so a run depends on
nothing but its inputs. What happens per request is plain calls, which are cheapest; what
happens now and then (failures, autoscaling) is a process (docs/decisions/0017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count
from typing import Any, final

#: What a process yields: seconds until it goes on.
Steps = Generator[float, None, None]
Call = Callable[[Any], object]


@final
class Core:
    """The clock `now_s` and what is still to happen."""

    __slots__ = ("_heap", "_serial", "events", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Call, Any]] = []
        self._serial = count()

    def at(self, when_s: float, call: Call, argument: Any = None) -> None:
        """Have `call(argument)` happen at `when_s`, at once if that has passed; a moment
        without end never comes."""
        if when_s < math.inf:
            heappush(self._heap, (when_s, next(self._serial), call, argument))

    def process(self, steps: Steps) -> None:
        """Run a generator that yields how many seconds pass until its next step."""
        self.at(self.now_s, self._step, steps)

    def run(self, until_s: float = math.inf) -> None:
        """Let everything up to `until_s` happen; what is later stays for another call."""
        heap = self._heap
        done = 0
        while heap and heap[0][0] <= until_s:
            when_s, _, call, argument = heappop(heap)
            if when_s > self.now_s:
                self.now_s = when_s
            done += 1
            call(argument)
        self.events += done
        if until_s < math.inf:
            self.now_s = max(self.now_s, until_s)

    def run_while(self, pending: Callable[[], bool]) -> None:
        """Let things happen for as long as `pending` says so, and anything is left to."""
        heap = self._heap
        while heap and pending():
            when_s, _, call, argument = heappop(heap)
            self.now_s = max(self.now_s, when_s)
            self.events += 1
            call(argument)

    def _step(self, steps: Steps) -> None:
        pause_s = next(steps, None)
        if pause_s is not None:
            self.at(self.now_s + pause_s, self._step, steps)
