"""The edge's compute thread, whose turn a waiting caller may take, and its timer thread.

Neither ends before it is closed: a task that raises is noted in the session's `Faults`, and
the next one runs.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from typing import final

from midstream_edge.faults import Faults
from midstream_wire.errors import ResourceError

Task = Callable[[], None]


def start_thread(thread: threading.Thread, purpose: str) -> None:
    """Start `thread`. Raises `ResourceError` where the system has none left for `purpose`."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise ResourceError(
            f"{purpose} needs a thread of its own, but none can be had ({error!r}): end some "
            "threads or processes, and try again"
        ) from error


#: Ranks of tasks: what others wait for already goes first.
REST, HEAD = 0, 1

#: Alarms that were dropped stay in the heap until they are half of it and more than this.
DROPPED = 64
#: A wait is begun anew after so long: the system knows no waits of centuries.
LONGEST_WAIT_S = 3600.0


@final
class Worker:
    """A thread that runs tasks one at a time, lowest (rank, order) first.

    One at a time, because a device's cores belong to the segment that runs (onnxruntime
    spreads it); two segments at a time would only make both late. A caller that would do
    nothing but wait for its own task may run it itself when nothing else is under way: that
    saves two changes of threads, 0.1 ms.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._tasks: list[tuple[int, int, int, Task]] = []
        self._serial = itertools.count()
        self._changed = threading.Condition()
        self._busy = False  # a task runs, on the thread or in a caller's turn
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name="midstream-compute", daemon=True
        )
        start_thread(self._thread, "a session")

    def put(self, task: Task, *, rank: int, order: int) -> None:
        """Queue `task`."""
        with self._changed:
            heapq.heappush(self._tasks, (rank, order, next(self._serial), task))
            if not self._busy:
                self._changed.notify()

    def take_turn(self) -> bool:
        """Return True if the caller may run a task itself now; if so, it must `end_turn` after
        it.
        """
        # One lock for queue and turn: no later task may come before one that was taken up.
        with self._changed:
            if self._busy or self._tasks:
                return False
            self._busy = True
            return True

    def end_turn(self) -> None:
        """Let the next task run."""
        with self._changed:
            self._busy = False
            if self._tasks:
                self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Drop what waits, and wait up to `timeout_s` for what runs."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException as error:
                self._faults.note("a task of the compute thread", error)
            finally:
                self.end_turn()
            del task  # a waiting thread must not keep the last request's tensors alive

    def _next(self) -> Task | None:
        with self._changed:
            while not self._closed:
                if self._tasks and not self._busy:
                    self._busy = True
                    return heapq.heappop(self._tasks)[-1]
                self._changed.wait()
            return None


@final
class Alarm:
    """A call to come; its `task` is None once it was made or dropped."""

    __slots__ = ("task",)

    def __init__(self, task: Task | None) -> None:
        self.task = task


@final
class Alarms:
    """A thread that makes calls at given times of the monotonic clock.

    What matters no more is dropped; an alarm may go off all the same while it is being
    dropped, and must find out itself whether it still matters.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._due: list[tuple[float, int, Alarm]] = []
        self._dropped = 0  # alarms in the heap whose task is None
        self._serial = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="midstream-alarms", daemon=True)
        start_thread(self._thread, "a session")

    def __len__(self) -> int:
        """Alarms held, those dropped a moment ago included."""
        return len(self._due)

    def at(self, when_s: float, task: Task) -> Alarm:
        """Call `task`, which must be quick, at `when_s` or soon after; infinity: never."""
        if when_s == math.inf:
            return Alarm(None)
        alarm = Alarm(task)
        with self._changed:
            heapq.heappush(self._due, (when_s, next(self._serial), alarm))
            if self._due[0][-1] is alarm:
                self._changed.notify()
        return alarm

    def drop(self, alarm: Alarm) -> None:
        """Forget `alarm`, whatever became of it."""
        with self._changed:
            if alarm.task is None:
                return
            alarm.task = None
            self._dropped += 1
            if self._dropped > max(DROPPED, len(self._due) // 2):
                self._due = [entry for entry in self._due if entry[-1].task is not None]
                heapq.heapify(self._due)
                self._dropped = 0

    def close(self, timeout_s: float) -> None:
        """Forget all alarms."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException as error:
                self._faults.note("an alarm", error)
            del task

    def _next(self) -> Task | None:
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                if self._due and self._due[0][0] <= now_s:
                    alarm = heapq.heappop(self._due)[-1]
                    task, alarm.task = alarm.task, None
                    if task is not None:
                        return task
                    self._dropped -= 1
                    continue
                pause_s = self._due[0][0] - now_s if self._due else LONGEST_WAIT_S
                self._changed.wait(min(pause_s, LONGEST_WAIT_S))
            return None


@final
class Crew:
    """The threads of a session, and numbers for its requests, which ascend for ever."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.ids = itertools.count(1)
        self.worker = Worker(self.faults)
        try:
            self.alarms = Alarms(self.faults)
        except BaseException:  # the system may have no thread left
            self.worker.close(0.0)
            raise

    def close(self, timeout_s: float) -> None:
        """End both threads, waiting up to `timeout_s` for each."""
        self.alarms.close(timeout_s)
        self.worker.close(timeout_s)
