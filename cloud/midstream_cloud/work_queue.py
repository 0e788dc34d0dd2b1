"""A fair queue of requests: shared between peers, without those that would be late.

Pure: moments and predicted times come in as values, so overload is tested in virtual time.
Work is counted in predicted seconds, not in requests: a batch of 83 is as much as 83 alone.

The peer that has had the least work is served next, as Linux's CFS serves processes (Ingo
Molnar, "CFS Scheduler", 2007); one that returns after a pause begins at the level of those
who stayed. Within a peer, requests run in the order in which they came. What cannot end by
its deadline is dropped before it costs anything. A peer is charged the prediction when its
request starts, and what that took when it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from midstream_wire.errors import CloudRefused
from midstream_wire.frames import Code

_Item = TypeVar("_Item")

#: Share of the predicted time kept in hand for its spread.
MARGIN_SHARE = 0.1

#: Peers without a request whose level is remembered.
_MOST_PEERS = 1024


@final
@dataclass(frozen=True, slots=True)
class Dropped(Generic[_Item]):
    """An item that was taken out of the queue: `late`, or for a peer that waits for less."""

    item: _Item
    late: bool


@dataclass(slots=True, eq=False)
class _Entry(Generic[_Item]):
    """A waiting item. Once it starts, `needed_s` must be left before its deadline."""

    item: _Item
    cost_s: float
    needed_s: float
    deadline_s: float

    def is_hopeless(self, now_s: float) -> bool:
        return now_s + self.needed_s > self.deadline_s


@dataclass(slots=True, eq=False)
class _Peer(Generic[_Item]):
    """One peer's used share of the workers, and its waiting items in order."""

    spent_s: float
    waiting: dict[int, _Entry[_Item]] = field(default_factory=dict)
    backlog_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Run(Generic[_Item]):
    """A worker's present task: its peer, its start, and the seconds that were predicted."""

    peer: _Peer[_Item]
    started_s: float
    cost_s: float


@final
class WorkQueue(Generic[_Item]):
    """The queue for `workers`: at most `max_queued` items, each for at most `max_wait_s`.

    The caller holds a lock if several threads use it.
    """

    def __init__(self, *, workers: int, max_queued: int, max_wait_s: float = math.inf) -> None:
        self._workers = workers
        self._max_queued = max_queued
        self._max_wait_s = max_wait_s
        self._peers: dict[str, _Peer[_Item]] = {}
        self._running: dict[int, _Run[_Item]] = {}
        self._level_s = 0.0  # of the peer that was served last
        self._count = 0

    def __len__(self) -> int:
        """Number of items that wait."""
        return self._count

    @property
    def backlog_s(self) -> float:
        """Predicted work of all that waits, in seconds of one worker."""
        return sum(peer.backlog_s for peer in self._peers.values())

    def offer(
        self, item: _Item, *, peer: str, cost_s: float, deadline_s: float | None, now_s: float
    ) -> list[Dropped[_Item]]:
        """Queue `item` of `peer`, which is predicted to take `cost_s`.

        Returns what was dropped to make room: all items that can no longer be in time. If
        there are none, it is the newest item of the peer that waits for most, as long as that
        peer keeps another one.

        Raises `CloudRefused`: DEADLINE_EXCEEDED if `item` would itself be late,
        RESOURCE_EXHAUSTED if there is no room for it.
        """
        until_s = math.inf if deadline_s is None else deadline_s
        needed_s = (1 + MARGIN_SHARE) * cost_s
        wait_s = self._wait_s(peer, now_s)
        if len(self._running) + self._count < self._workers:
            # An estimate spoilt by a cold start would refuse the very runs that correct it.
            needed_s = 0.0
        if now_s + wait_s + needed_s > until_s:
            raise CloudRefused(
                Code.DEADLINE_EXCEEDED,
                f"the answer must be due later than the queue's wait of {wait_s:.3f} s and a "
                f"tail of {cost_s:.3f} s: allow more time, or run the rest on the edge",
            )
        if wait_s > self._max_wait_s:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"a request may wait for at most {self._max_wait_s:g} s of work (not "
                f"{wait_s:.3g} s): send fewer, or run the rest on the edge",
                kind="queue",
            )
        dropped = self._make_room(peer, now_s)
        known = self._peers.setdefault(peer, _Peer(self._level_s))
        if not known.waiting:
            known.spent_s = max(known.spent_s, self._level_s)
        known.waiting[id(item)] = _Entry(item, cost_s, needed_s, until_s)
        known.backlog_s += cost_s
        self._count += 1
        return dropped

    def take(self, now_s: float) -> tuple[_Item | None, list[_Item]]:
        """Return what runs next, and what was dropped since it can no longer be in time."""
        dropped: list[_Item] = []
        while self._count:
            peer = min(
                (each for each in self._peers.values() if each.waiting),
                key=lambda each: each.spent_s,
            )
            entry = next(iter(peer.waiting.values()))
            self._remove(peer, entry)
            if entry.is_hopeless(now_s):
                dropped.append(entry.item)
                continue
            self._level_s = max(self._level_s, peer.spent_s)
            peer.spent_s += entry.cost_s
            self._running[id(entry.item)] = _Run(peer, now_s, entry.cost_s)
            self._forget_peers()
            return entry.item, dropped
        return None, dropped

    def finish(self, item: _Item, now_s: float) -> None:
        """Charge the peer of `item`, which has left its worker, for what it really took."""
        if (run := self._running.pop(id(item), None)) is not None:
            run.peer.spent_s += now_s - run.started_s - run.cost_s

    def withdraw(self, item: _Item) -> bool:
        """Drop `item`, for which nobody waits any more; False if it is not in the queue."""
        for peer in self._peers.values():
            if (entry := peer.waiting.get(id(item))) is not None:
                self._remove(peer, entry)
                return True
        return False

    def _wait_s(self, name: str, now_s: float) -> float:
        """Predict when an item of a peer would begin, if it came now."""
        if len(self._running) + self._count < self._workers:
            return 0.0
        own = self._peers.get(name)
        level_s, own_s = self._level_s, 0.0
        if own is not None:
            own_s = own.backlog_s
            level_s = own.spent_s if own.waiting else max(level_s, own.spent_s)
        # The others are served up to the level at which this one's turn comes.
        level_s += own_s
        ahead_s = own_s + sum(
            min(each.backlog_s, max(0.0, level_s - each.spent_s))
            for each in self._peers.values()
            if each is not own
        )
        running_s = sum(
            max(0.0, run.started_s + run.cost_s - now_s) for run in self._running.values()
        )
        return (running_s + ahead_s) / self._workers

    def _make_room(self, name: str, now_s: float) -> list[Dropped[_Item]]:
        if len(self._running) + self._count < self._workers + self._max_queued:
            return []
        dropped = [
            (peer, entry)
            for peer in self._peers.values()
            for entry in peer.waiting.values()
            if entry.is_hopeless(now_s)
        ]
        late = bool(dropped)
        if not late:
            own = self._peers.get(name)
            own_s = 0.0 if own is None else own.backlog_s
            longest = max(
                (each for each in self._peers.values() if len(each.waiting) > 1),
                key=lambda each: each.backlog_s,
                default=None,
            )
            if longest is None or own_s >= longest.backlog_s / 2:
                raise CloudRefused(
                    Code.RESOURCE_EXHAUSTED,
                    f"at most {self._max_queued} requests may wait for {self._workers} "
                    f"workers ({self._count} do): send fewer, or run the rest on the edge",
                    kind="queue",
                )
            dropped = [(longest, next(reversed(longest.waiting.values())))]
        for peer, entry in dropped:
            self._remove(peer, entry)
        return [Dropped(entry.item, late) for _, entry in dropped]

    def _remove(self, peer: _Peer[_Item], entry: _Entry[_Item]) -> None:
        del peer.waiting[id(entry.item)]
        peer.backlog_s = peer.backlog_s - entry.cost_s if peer.waiting else 0.0
        self._count -= 1

    def _forget_peers(self) -> None:
        """Forget half of the peers that have nothing here, once there are many."""
        if len(self._peers) > _MOST_PEERS:
            busy = {id(run.peer) for run in self._running.values()}
            idle = [
                name
                for name, each in self._peers.items()
                if not each.waiting and id(each) not in busy
            ]
            idle.sort(key=lambda name: self._peers[name].spent_s)
            for name in idle[: len(idle) // 2]:
                del self._peers[name]
