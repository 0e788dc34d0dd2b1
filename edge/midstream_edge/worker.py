"""The edge's compute thread, whose turn a waiting caller may take, and its timer thread."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import final

Task = Callable[[], None]

#: Ranks of tasks: what others wait for already goes first.
REST, HEAD = 0, 1


@final
class Worker:
    """A thread that runs tasks one at a time, lowest (rank, order) first.

    One at a time, because a device's cores belong to the segment that runs (onnxruntime
    spreads it); two segments at a time would only make both late. A caller that would do
    nothing but wait for its own task may run it itself when nothing else is under way: that
    saves two changes of threads, 0.1 ms.
    """

    def __init__(self) -> None:
        self._tasks: queue.PriorityQueue[tuple[int, int, int, Task | None]]
        self._tasks = queue.PriorityQueue()
        self._serial = itertools.count()
        self._turn = threading.Lock()  # held by the thread that runs a task
        self._thread = threading.Thread(
            target=self._run, name="midstream-compute", daemon=True
        )
        self._thread.start()

    def put(self, task: Task, *, rank: int, order: int) -> None:
        """Queue `task`, which must not raise."""
        self._tasks.put((rank, order, next(self._serial), task))

    def take_turn(self) -> bool:
        """Whether the caller may run a task itself now; if so, it must `end_turn` after it."""
        return self._tasks.empty() and self._turn.acquire(blocking=False)

    def end_turn(self) -> None:
        """Let the next task run."""
        self._turn.release()

    def close(self, timeout_s: float) -> None:
        """Drop what waits, and wait up to `timeout_s` for what runs."""
        self._tasks.put((-1, 0, next(self._serial), None))
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._tasks.get()[-1]) is not None:
            with self._turn:
                task()
            del task  # a waiting thread must not keep the last request's tensors alive


@final
class Alarms:
    """A thread that makes calls at given times of the monotonic clock.

    An alarm cannot be taken back; it must bring little with it (a request's id, not the
    request) and find out itself whether it still matters.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Task]] = []
        self._serial = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="midstream-alarms", daemon=True)
        self._thread.start()

    def at(self, when_s: float, task: Task) -> None:
        """Call `task`, which must be quick and must not raise, at `when_s` or soon after."""
        with self._changed:
            heapq.heappush(self._due, (when_s, next(self._serial), task))
            if self._due[0][0] == when_s:
                self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Forget all alarms."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                if self._due and self._due[0][0] <= now_s:
                    return heapq.heappop(self._due)[-1]
                self._changed.wait(self._due[0][0] - now_s if self._due else None)
            return None


@final
class Crew:
    """The threads of a session, and the numbers of its requests, which ascend for ever."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.alarms = Alarms()
        self.ids = itertools.count(1)

    def close(self, timeout_s: float) -> None:
        """End both threads, waiting up to `timeout_s` for each."""
        self.alarms.close(timeout_s)
        self.worker.close(timeout_s)
