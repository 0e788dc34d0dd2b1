"""The queue before the workers, in virtual time: fair, and never busy with what is late."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_cloud.work_queue import Dropped, WorkQueue
from midstream_wire.errors import CloudRefused
from midstream_wire.frames import Code

TAIL_S = 0.1


@dataclass(eq=False)
class Request:
    peer: str
    client: int
    asked_s: float
    deadline_s: float
    took_s: float


class Overload:
    """Closed-loop clients of `workers`; one that is refused asks again after `pause_s`."""

    def __init__(
        self,
        *,
        workers: int,
        peers: list[str],
        deadline_s: Callable[[random.Random], float],
        tail_s: Callable[[random.Random], float] = lambda _: TAIL_S,
        slower: Mapping[str, float] = MappingProxyType({}),
        cost_s: float = TAIL_S,
        pause_s: float = 0.02,
    ) -> None:
        self.queue: WorkQueue[Request] = WorkQueue(workers=workers, max_queued=64)
        self.workers = workers
        self.peers = peers
        self.deadline_s = deadline_s
        self.tail_s = tail_s
        self.slower = slower
        self.cost_s = cost_s
        self.pause_s = pause_s
        self.choose = random.Random(1)
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.serial = itertools.count()
        self.idle = workers
        self.in_time_s: dict[str, float] = dict.fromkeys(peers, 0.0)
        self.used_s: dict[str, float] = dict.fromkeys(peers, 0.0)
        self.late = self.refused = 0

    def at(self, when_s: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (when_s, next(self.serial), call))

    def run(self, until_s: float = 6.0) -> float:
        """Return the share of capacity that was answered in time."""
        for client in range(len(self.peers)):
            self.at(self.choose.uniform(0, TAIL_S), partial(self.ask, client))
        while self.events and self.events[0][0] < until_s:
            now_s, _, call = heapq.heappop(self.events)
            call(now_s)
        return sum(self.in_time_s.values()) / (self.workers * until_s)

    def ask(self, client: int, now_s: float) -> None:
        deadline_s = now_s + self.deadline_s(self.choose)
        peer = self.peers[client]
        took_s = self.tail_s(self.choose) * self.slower.get(peer, 1.0)
        request = Request(peer, client, now_s, deadline_s, took_s)
        try:
            left_out = self.queue.offer(
                request, peer=peer, cost_s=self.cost_s, deadline_s=deadline_s, now_s=now_s
            )
        except CloudRefused:
            self.refuse(request, now_s)
        else:
            for each in left_out:
                self.refuse(each.item, now_s)
            self.fill(now_s)

    def refuse(self, request: Request, now_s: float) -> None:
        self.refused += 1
        self.at(now_s + self.pause_s, partial(self.ask, request.client))

    def fill(self, now_s: float) -> None:
        while self.idle:
            request, dropped = self.queue.take(now_s)
            for each in dropped:
                self.refuse(each, now_s)
            if request is None:
                return
            self.idle -= 1
            self.at(now_s + request.took_s, partial(self.end, request))

    def end(self, request: Request, now_s: float) -> None:
        self.queue.finish(request, now_s)
        self.idle += 1
        self.used_s[request.peer] += request.took_s
        if now_s <= request.deadline_s + 1e-9:
            self.in_time_s[request.peer] += request.took_s
        else:
            self.late += 1
        self.ask(request.client, now_s)
        self.fill(now_s)


@pytest.mark.parametrize("clients_per_worker", [3, 10, 64])
@pytest.mark.parametrize("tails", [1.5, 2, 3, 5, 10, 20])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_overload_leaves_no_worker_busy_with_what_is_late(
    clients_per_worker: int, tails: float, workers: int
) -> None:
    peers = [f"peer{n % 8}" for n in range(clients_per_worker * workers)]
    overload = Overload(workers=workers, peers=peers, deadline_s=lambda _: tails * TAIL_S)
    assert overload.run() >= 0.8
    assert overload.late == 0


@pytest.mark.parametrize("clients_per_worker", [3, 10, 64])
def test_mixed_deadlines_and_noisy_tails_still_fill_the_workers(
    clients_per_worker: int,
) -> None:
    overload = Overload(
        workers=2,
        peers=[f"peer{n % 8}" for n in range(clients_per_worker * 2)],
        deadline_s=lambda choose: TAIL_S * choose.uniform(1.5, 20),
        tail_s=lambda choose: TAIL_S * choose.uniform(0.9, 1.1),
    )
    assert overload.run() >= 0.8


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("greedy", [16, 128])
def test_a_greedy_peer_leaves_an_honest_one_a_third_of_the_server(
    workers: int, greedy: int
) -> None:
    peers = ["honest"] * workers + ["greedy"] * greedy
    overload = Overload(workers=workers, peers=peers, deadline_s=lambda _: 2.0)
    overload.run()
    share = overload.in_time_s["honest"] / sum(overload.in_time_s.values())
    assert share >= 1 / 3


@pytest.mark.parametrize(("slower", "cost_s"), [(2.0, 0.15), (5.0, 0.3), (10.0, 0.55)])
def test_tails_that_are_slow_for_their_size_count_as_what_they_took(
    slower: float, cost_s: float
) -> None:
    overload = Overload(
        workers=1,
        peers=["honest"] * 2 + ["greedy"] * 16,
        deadline_s=lambda _: 4.0,
        slower={"greedy": slower},
        cost_s=cost_s,  # alike for both, since they have one size
    )
    overload.run(60.0)
    assert overload.used_s["honest"] >= sum(overload.used_s.values()) / 3


def test_a_run_that_ends_at_once_is_paid_back() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=8)
    for name in ("a0", "a1", "a2"):
        queue.offer(name, peer="a", cost_s=5.0, deadline_s=None, now_s=0.0)
    assert queue.take(0.0)[0] == "a0"
    queue.offer("b0", peer="b", cost_s=1.0, deadline_s=None, now_s=0.0)
    queue.offer("b1", peer="b", cost_s=1.0, deadline_s=None, now_s=0.0)
    queue.finish("a0", 0.0)  # nobody waited for it any more
    order = []
    for now_s in range(4):
        item, _ = queue.take(float(now_s))
        assert item is not None
        order.append(item)
        queue.finish(item, now_s + 1.0)
    assert order == ["a1", "b0", "a2", "b1"]


def test_a_batch_counts_as_what_it_takes() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=64)
    queue.offer("running", peer="a", cost_s=0.1, deadline_s=None, now_s=0.0)
    assert queue.take(0.0) == ("running", [])
    for n in range(2):
        queue.offer(f"batch{n}", peer="a", cost_s=8.3, deadline_s=None, now_s=0.0)
    for n in range(4):
        queue.offer(f"single{n}", peer="b", cost_s=0.1, deadline_s=None, now_s=0.0)
    order = []
    while len(queue):
        item, _ = queue.take(0.0)
        order.append(item)
    assert order == ["single0", "batch0", "single1", "single2", "single3", "batch1"]


def test_a_peer_that_comes_back_has_not_saved_up() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=64)
    for n in range(100):
        queue.offer(f"a{n}", peer="a", cost_s=1.0, deadline_s=None, now_s=0.0)
        if n < 50:
            assert queue.take(0.0)[0] == f"a{n}"
            queue.finish(f"a{n}", 1.0)
        if len(queue) > 60:
            break
    for n in range(6):
        queue.offer(f"b{n}", peer="b", cost_s=1.0, deadline_s=None, now_s=0.0)
    served = [queue.take(0.0)[0] for _ in range(6)]
    assert sum(str(each).startswith("b") for each in served) in (3, 4)


def test_a_full_queue_makes_room_for_who_waits_for_least() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=4)
    queue.offer("running", peer="a", cost_s=1.0, deadline_s=None, now_s=0.0)
    queue.take(0.0)
    for n in range(4):
        queue.offer(f"a{n}", peer="a", cost_s=1.0, deadline_s=None, now_s=0.0)
    with pytest.raises(CloudRefused, match="at most 4 requests may wait") as caught:
        queue.offer("a4", peer="a", cost_s=1.0, deadline_s=None, now_s=0.0)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert queue.offer("b0", peer="b", cost_s=1.0, deadline_s=None, now_s=0.0) == [
        Dropped("a3", late=False)
    ]


def test_nobody_waits_beyond_the_bound_on_work() -> None:
    queue: WorkQueue[int] = WorkQueue(workers=2, max_queued=64, max_wait_s=10.0)
    for n in range(7):  # two run and five wait: 7 times 3 s before the next, by two workers
        queue.offer(n, peer="a", cost_s=3.0, deadline_s=None, now_s=0.0)
        if n < 2:
            queue.take(0.0)
    with pytest.raises(CloudRefused, match=r"at most 10 s of work \(not 10.5 s\)"):
        queue.offer(7, peer="a", cost_s=3.0, deadline_s=None, now_s=0.0)


def test_a_spoilt_estimate_does_not_keep_a_free_worker_idle() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=4)
    queue.offer("cold", peer="a", cost_s=30.0, deadline_s=1.0, now_s=0.0)
    assert queue.take(0.0) == ("cold", [])


@given(st.integers(0, 1000))
def test_nothing_is_lost_and_nothing_comes_twice(seed: int) -> None:
    choose = random.Random(seed)
    queue: WorkQueue[int] = WorkQueue(
        workers=choose.randint(1, 3), max_queued=choose.randint(1, 8)
    )
    now_s, ends, offered, running = 0.0, Counter[int](), set(), set[int]()
    for n in range(80):
        now_s += choose.uniform(0, 0.2)
        match choose.randrange(4):
            case 0 | 1:
                deadline_s = choose.choice([None, now_s + choose.uniform(0, 1)])
                with suppress(CloudRefused):
                    left_out = queue.offer(
                        n,
                        peer=choose.choice("abc"),
                        cost_s=choose.choice([0.0, 0.1, 1.0]),
                        deadline_s=deadline_s,
                        now_s=now_s,
                    )
                    offered.add(n)
                    ends.update(each.item for each in left_out)
            case 2:
                item, dropped = queue.take(now_s)
                ends.update(dropped)
                if item is not None:
                    ends.update([item])
                    running.add(item)
            case _:
                if running and choose.random() < 0.7:
                    queue.finish(running.pop(), now_s)
                elif offered and queue.withdraw(wanted := choose.choice(sorted(offered))):
                    ends.update([wanted])
    while len(queue):
        item, dropped = queue.take(now_s)
        ends.update(dropped)
        ends.update([] if item is None else [item])
    assert ends == Counter(offered)
    assert queue.backlog_s == 0.0


def test_the_only_request_of_a_peer_is_never_dropped_for_another() -> None:
    queue: WorkQueue[str] = WorkQueue(workers=1, max_queued=2)
    queue.offer("running", peer="a", cost_s=0.1, deadline_s=None, now_s=0.0)
    queue.take(0.0)
    queue.offer("long", peer="b", cost_s=9.0, deadline_s=None, now_s=0.0)
    queue.offer("short", peer="c", cost_s=0.1, deadline_s=None, now_s=0.0)
    with pytest.raises(CloudRefused, match="at most 2 requests may wait"):
        queue.offer("late", peer="d", cost_s=0.1, deadline_s=None, now_s=0.0)
