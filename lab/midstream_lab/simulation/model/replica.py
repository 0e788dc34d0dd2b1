"""A replica of the cloud: workers behind one queue, with or without batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Protocol, final

from midstream_lab.simulation.kernel.event_queue import Core
from midstream_wire.errors import UsageError


class Work(Protocol):
    """A unit of work for a replica, which writes the moments that it knows."""

    #: What may share a batch.
    kind: int
    #: On a machine of speed 1, alone.
    service_s: float
    queued_s: float
    started_s: float


@final
@dataclass(frozen=True, slots=True)
class Batching:
    """Up to `most` of a kind run together: n take 1 + `marginal` (n - 1) times the longest.

    A worker that is free waits up to `wait_s` for a batch to fill. `marginal` is 1 where
    batches save nothing.
    """

    most: int = 1
    wait_s: float = 0.0
    marginal: float = 1.0

    def __post_init__(self) -> None:
        if self.most < 1 or not (self.wait_s >= 0 and 0 <= self.marginal <= 1):
            raise UsageError(
                "a batch must hold 1 or more, wait 0 s or more, and cost 0 to 1 for each more "
                f"(not {self.most}, {self.wait_s!r} s, {self.marginal!r})"
            )


ALONE = Batching()


@final
class Replica:
    """`workers` servers in parallel, first come first served.

    `done(work)` is called when one is served. What a crash or a cancellation ends computes no
    longer from then on; `slowdown` stretches all service times.
    """

    __slots__ = (
        "_busy_s",
        "_core",
        "_done",
        "_downs",
        "_free",
        "_leaving",
        "_queue",
        "_running",
        "_serial",
        "_woken_s",
        "alive",
        "batches",
        "batching",
        "began_s",
        "gone_s",
        "holds",
        "load",
        "most_queued",
        "served",
        "slowdown",
        "workers",
    )

    def __init__(
        self,
        core: Core,
        done: Callable[[Work], object],
        *,
        workers: int = 1,
        batching: Batching = ALONE,
        slowdown: float = 1.0,
        most_queued: int = 64,
    ) -> None:
        self._core = core
        self._done = done
        self._free = workers
        self._queue: deque[Work] = deque()
        #: What runs together, never nothing, by the number of the event that ends it.
        self._running: dict[int, list[Work]] = {}
        self._serial = 0
        self._woken_s = -1.0
        self._busy_s = 0.0  # of all workers together, for what has ended
        self._downs: list[tuple[float, float]] = []
        self._leaving = False
        self.began_s = core.now_s
        self.gone_s = math.inf
        self.workers = workers
        self.batching = batching
        self.slowdown = slowdown
        self.most_queued = most_queued
        self.alive = True
        self.holds = 0  # failures that keep it down
        self.load = 0  # waiting and running
        self.served = 0
        self.batches = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """Return what its workers have computed up to now, together."""
        now_s = self._core.now_s
        running = self._running.values()
        return self._busy_s + sum(now_s - works[0].started_s for works in running)

    @property
    def there_s(self) -> float:
        """For how long it has been there, whether up or down."""
        return min(self._core.now_s, self.gone_s) - self.began_s

    @property
    def up_s(self) -> float:
        """For how long it could compute."""
        return self.there_s - sum(until_s - from_s for from_s, until_s in self.downs)

    @property
    def downs(self) -> list[tuple[float, float]]:
        """From when until when it was down, as far as that is over by now."""
        end_s = min(self._core.now_s, self.gone_s)
        return [(from_s, min(until_s, end_s)) for from_s, until_s in self._downs]

    def take(self, work: Work) -> bool:
        """Queue `work`; False where the queue is full or the replica is down."""
        if not self.alive or len(self._queue) >= self.most_queued:
            return False
        work.queued_s = self._core.now_s
        self.load += 1
        if self._free and not self._queue and self.batching.most == 1:
            self._start([work], work.service_s)
        else:
            self._queue.append(work)
            self._fill()
        return True

    def cancel(self, work: Work) -> None:
        """Nobody waits for `work` any more: if it is still here, it leaves the queue, or its
        batch; a worker that works for nobody else stops at once."""
        if not _removed(work, self._queue):
            number = self._number(work)
            if number is None:
                return
            if len(self._running[number]) == 1:
                self._stop(number)
                self._fill()
            else:
                _removed(work, self._running[number])
        self.load -= 1
        self._note_idle()

    def crash(self) -> list[Work]:
        """Stop at once and forget everything; returns what ran, and what waited."""
        if not self.alive:
            return []
        lost = [work for number in tuple(self._running) for work in self._stop(number)]
        lost += self._queue
        self._queue.clear()
        self.load = 0
        self.alive = False
        self._downs.append((self._core.now_s, math.inf))
        self._note_idle()
        return lost

    def restart(self) -> None:
        """It is up again after a crash."""
        self.alive = True
        self._downs[-1] = (self._downs[-1][0], self._core.now_s)

    def retire(self) -> None:
        """End what there is, and be gone; nothing more must come."""
        self._leaving = True
        self._note_idle()

    def _note_idle(self) -> None:
        if self._leaving and not self.load:
            self.alive = False
            self.gone_s = min(self.gone_s, self._core.now_s)

    def _fill(self) -> None:
        """Give free workers what waits, in batches as full as they may become in time."""
        batching = self.batching
        queue, now_s = self._queue, self._core.now_s
        while self._free and queue:
            if batching.most == 1:
                work = queue.popleft()
                self._start([work], work.service_s)
                continue
            first = queue[0]
            due_s = first.queued_s + batching.wait_s
            if due_s > now_s and not self._is_full(first.kind):
                if self._woken_s != due_s:
                    self._woken_s = due_s
                    self._core.at(due_s, self._wake)
                return
            batch = self._batch(first.kind)
            longest_s = max(work.service_s for work in batch)
            self._start(batch, longest_s * (1 + batching.marginal * (len(batch) - 1)))

    def _wake(self, _: object) -> None:
        self._fill()

    def _is_full(self, kind: int) -> bool:
        most = self.batching.most
        if len(self._queue) < most:
            return False
        alike = (work for work in self._queue if work.kind == kind)
        return sum(1 for _, _ in zip(range(most), alike, strict=False)) == most

    def _batch(self, kind: int) -> list[Work]:
        """The first of a kind, taken out of the queue; the others keep their order."""
        chosen: list[Work] = []
        kept: list[Work] = []
        while self._queue and len(chosen) < self.batching.most:
            work = self._queue.popleft()
            (chosen if work.kind == kind else kept).append(work)
        self._queue.extendleft(reversed(kept))
        return chosen

    def _start(self, works: list[Work], service_s: float) -> None:
        core = self._core
        now_s = core.now_s
        for work in works:
            work.started_s = now_s
        self._free -= 1
        self._serial = number = self._serial + 1
        self._running[number] = works
        core.at(now_s + service_s * self.slowdown, self._end, number)

    def _stop(self, number: int) -> list[Work]:
        """Return what ran by that number, whose worker is free again; nothing where a crash or
        a cancellation came first.
        """
        works = self._running.pop(number, None)
        if works is None:
            return []
        self._busy_s += self._core.now_s - works[0].started_s
        self._free += 1
        return works

    def _end(self, number: int) -> None:
        works = self._stop(number)
        if not works:
            return
        self.load -= len(works)
        self.served += len(works)
        self.batches += 1
        if self._queue:
            self._fill()
        if self._leaving:
            self._note_idle()
        for work in works:
            self._done(work)

    def _number(self, work: Work) -> int | None:
        for number, works in self._running.items():
            if any(each is work for each in works):
                return number
        return None


def _removed(work: Work, works: MutableSequence[Work]) -> bool:
    """Take `work` itself out, not another that equals it; whether it was there."""
    for at, each in enumerate(works):
        if each is work:
            del works[at]
            return True
    return False
