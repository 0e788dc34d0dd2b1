"""A replica of the cloud: workers behind one queue, with or without batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

from midstream_lab.simulation.core import Core
from midstream_wire.errors import UsageError


class Work(Protocol):
    """What a station serves; it writes the moments that it knows."""

    #: What may share a batch.
    kind: int
    #: On a machine of speed 1, alone.
    service_s: float
    #: Nobody waits for it from then on.
    cancelled_s: float
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
class Station:
    """`workers` servers in parallel, first come first served.

    `done(work)` is called when one is served, `lost(work)` instead for one that ran when the
    replica crashed; `slowness` stretches all service times.
    """

    __slots__ = (
        "_core",
        "_done",
        "_free",
        "_lost",
        "_queue",
        "_woken_s",
        "alive",
        "batches",
        "batching",
        "began_s",
        "busy_s",
        "epoch",
        "load",
        "most_queued",
        "retired_s",
        "served",
        "slowness",
        "workers",
    )

    def __init__(
        self,
        core: Core,
        done: Callable[[Work], object],
        *,
        lost: Callable[[Work], object],
        workers: int = 1,
        batching: Batching = ALONE,
        slowness: float = 1.0,
        most_queued: int = 64,
    ) -> None:
        self._core = core
        self._done = done
        self._lost = lost
        self._free = workers
        self._queue: deque[Work] = deque()
        self._woken_s = -1.0
        self.began_s = core.now_s
        self.retired_s: float | None = None
        self.workers = workers
        self.batching = batching
        self.slowness = slowness
        self.most_queued = most_queued
        self.alive = True
        self.epoch = 0  # a crash begins a new one; what ran before it is lost
        self.load = 0  # waiting and running
        self.busy_s = 0.0  # of all workers together
        self.served = 0
        self.batches = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def take(self, work: Work) -> bool:
        """Queue `work`; False where the queue is full or the replica is down."""
        if not self.alive or len(self._queue) >= self.most_queued:
            return False
        now_s = self._core.now_s
        work.queued_s = now_s
        self.load += 1
        if self._free and not self._queue and self.batching.most == 1:
            self._start_one(work)
        else:
            self._queue.append(work)
            self._fill()
        return True

    def crash(self) -> list[Work]:
        """Stop at once and forget everything; returns what waited."""
        self.alive = False
        self.epoch += 1
        lost = list(self._queue)
        self._queue.clear()
        self._free = self.workers
        self.load = 0
        return lost

    def restart(self) -> None:
        self.alive = True

    def _fill(self) -> None:
        """Give free workers what waits, in batches as full as they may become in time."""
        batching = self.batching
        queue, now_s = self._queue, self._core.now_s
        while self._free and queue:
            first = queue[0]
            if first.cancelled_s <= now_s:
                queue.popleft()
                self.load -= 1
                continue
            if batching.most == 1:
                self._start_one(queue.popleft())
                continue
            due_s = first.queued_s + batching.wait_s
            if due_s > now_s and not self._is_full(first.kind):
                if self._woken_s != due_s:
                    self._woken_s = due_s
                    self._core.at(due_s, self._wake)
                return
            self._start(self._batch(first.kind))

    def _wake(self, _: object) -> None:
        self._fill()

    def _is_full(self, kind: int) -> bool:
        most = self.batching.most
        if len(self._queue) < most:
            return False
        now_s = self._core.now_s
        alike = (w for w in self._queue if w.kind == kind and w.cancelled_s > now_s)
        return sum(1 for _, _ in zip(range(most), alike, strict=False)) == most

    def _batch(self, kind: int) -> list[Work]:
        """The first of a kind, taken out of the queue; the others keep their order."""
        chosen: list[Work] = []
        kept: list[Work] = []
        now_s = self._core.now_s
        while self._queue and len(chosen) < self.batching.most:
            work = self._queue.popleft()
            if work.cancelled_s <= now_s:
                self.load -= 1
            elif work.kind == kind:
                chosen.append(work)
            else:
                kept.append(work)
        self._queue.extendleft(reversed(kept))
        return chosen

    def _start_one(self, work: Work) -> None:
        self._free -= 1
        core = self._core
        now_s = core.now_s
        work.started_s = now_s
        took_s = work.service_s * self.slowness
        self.busy_s += took_s
        core.at(now_s + took_s, self._end_one, (work, self.epoch))

    def _start(self, batch: list[Work]) -> None:
        self._free -= 1
        now_s = self._core.now_s
        for work in batch:
            work.started_s = now_s
        longest_s = max(work.service_s for work in batch)
        took_s = longest_s * (1 + self.batching.marginal * (len(batch) - 1)) * self.slowness
        self.busy_s += took_s
        self._core.at(now_s + took_s, self._end, (batch, self.epoch))

    def _end_one(self, ended: tuple[Work, int]) -> None:
        work, epoch = ended
        if epoch != self.epoch:
            self._lost(work)
            return
        self._free += 1
        self.load -= 1
        self.served += 1
        self.batches += 1
        if self._queue:
            self._fill()
        self._done(work)

    def _end(self, ended: tuple[list[Work], int]) -> None:
        batch, epoch = ended
        if epoch != self.epoch:
            for work in batch:
                self._lost(work)
            return
        self._free += 1
        self.load -= len(batch)
        self.served += len(batch)
        self.batches += 1
        self._fill()
        for work in batch:
            self._done(work)
