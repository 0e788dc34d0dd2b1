"""The cloud in virtual time: replicas behind a balancer, that fail, come and go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

from midstream_lab.simulation.kernel.event_queue import Core, Steps
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.replica import ALONE, Batching, Replica, Work
from midstream_lab.simulation.model.request import Job
from midstream_wire.errors import UsageError

Balancing = Literal["round-robin", "least-outstanding", "power-of-two"]


class Balancer(Protocol):
    """Chooses among replicas that are there; of equals always the same way."""

    def choose(self, replicas: Sequence[Replica]) -> Replica: ...


@final
class RoundRobin:
    """Each in turn."""

    def __init__(self) -> None:
        self._at = 0

    def choose(self, replicas: Sequence[Replica]) -> Replica:
        self._at += 1
        return replicas[self._at % len(replicas)]


@final
class LeastOutstanding:
    """The one with the fewest requests waiting and running; of equals each in turn."""

    def __init__(self) -> None:
        self._at = 0

    def choose(self, replicas: Sequence[Replica]) -> Replica:
        self._at = first = (self._at + 1) % len(replicas)
        best = replicas[first]
        for replica in (*replicas[first + 1 :], *replicas[:first]):
            if replica.load < best.load:
                best = replica
        return best


@final
class PowerOfTwo:
    """The less loaded of two drawn at random (Mitzenmacher, IEEE TPDS 12, 2001)."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def choose(self, replicas: Sequence[Replica]) -> Replica:
        count = len(replicas)
        first = replicas[self._draws.below(count)]
        second = replicas[self._draws.below(count)]
        return second if second.load < first.load else first


def balancer(kind: Balancing, draws: Draws) -> Balancer:
    if kind == "round-robin":
        return RoundRobin()
    return LeastOutstanding() if kind == "least-outstanding" else PowerOfTwo(draws)


@final
@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Every `every_s`, one replica more when the workers were busier than `high` in the mean,
    one less when less busy than `low`; a new one serves after `start_s`. Where fewer than
    `least` are up or starting, as many as are missing start at once."""

    least: int
    most: int
    high: float = 0.7
    low: float = 0.3
    every_s: float = 30.0
    start_s: float = 20.0

    def __post_init__(self) -> None:
        if not (1 <= self.least <= self.most and 0 <= self.low < self.high):
            raise UsageError(
                "autoscaling must have 1 <= least <= most and 0 <= low < high (not "
                f"{self.least}, {self.most}, {self.low!r}, {self.high!r})"
            )
        if not (self.every_s > 0 and self.start_s >= 0):
            raise UsageError("autoscaling must look every so often, and start in 0 s or more")


@final
@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas at the start. `slowdown` stretches profiled times."""

    count: int = 1
    workers: int = 1
    slowdown: float = 1.0
    most_queued: int = 64
    batching: Batching = ALONE
    balancing: Balancing = "round-robin"
    autoscaling: Autoscaling | None = None

    def __post_init__(self) -> None:
        if min(self.count, self.workers, self.most_queued) < 1 or not self.slowdown > 0:
            raise UsageError(
                "a cloud must have at least 1 replica, 1 worker, a queue of 1, and a slowdown "
                f"above 0 (not {self.count}, {self.workers}, {self.most_queued}, "
                f"{self.slowdown!r})"
            )
        rule = self.autoscaling
        if rule is not None and not rule.least <= self.count <= rule.most:
            raise UsageError(
                f"a cloud must begin with {rule.least} to {rule.most} replicas, as its "
                f"autoscaling says (not {self.count}): give another count, least or most"
            )


@final
class Other:
    """A request of somebody else's, that only takes time. It shares no batch."""

    __slots__ = ("kind", "queued_s", "service_s", "started_s")

    def __init__(self, service_s: float) -> None:
        self.kind = -1
        self.service_s = service_s
        self.queued_s = self.started_s = -1.0


def _others(replica: Replica, draws: Draws, rate_hz: float, mean_s: float) -> Steps:
    while True:
        yield draws.exponential(1 / rate_hz)
        replica.take(Other(draws.exponential(mean_s)))


@final
class Cloud:
    """Gives each request to a replica, and its end back to the edge that sent it."""

    __slots__ = (
        "_balancer",
        "_core",
        "_replicas",
        "_serving",
        "_starting",
        "most",
        "refused",
        "replicas",
    )

    def __init__(self, core: Core, replicas: Replicas, draws: Draws) -> None:
        self._core = core
        self._replicas = replicas
        self._balancer = balancer(replicas.balancing, draws)
        self._serving: list[Replica] = []
        self._starting = 0
        self.refused = 0
        #: How many served at the same time.
        self.most = 0
        #: All that there have been, in the order in which they came.
        self.replicas: list[Replica] = []
        for _ in range(replicas.count):
            self._add()
        if replicas.autoscaling is not None:
            core.process(self._scale(replicas.autoscaling))

    @property
    def serving(self) -> int:
        return len(self._serving)

    @property
    def waiting(self) -> int:
        return sum(replica.waiting for replica in self.replicas)

    @property
    def busy_s(self) -> float:
        """Return what all workers together have computed up to now."""
        return sum(replica.busy_s for replica in self.replicas)

    @property
    def up_s(self) -> float:
        """For how long replicas could compute, together."""
        return sum(replica.up_s for replica in self.replicas)

    def arrive(self, job: Job) -> None:
        """All of `job` has come in."""
        if self._serving:
            replica = self._balancer.choose(self._serving)
            if replica.take(job):
                job.replica = replica
                return
        self.refused += 1
        job.edge.refuse(job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for `job` any more: if it is still here it takes no more time, unless
        its batch goes on for others, and nothing is sent back."""
        if job.replica is not None:
            job.replica.cancel(job)

    def fail(self, index: int) -> None:
        """A replica crashes: what it had is lost, and its edges are told."""
        replica = self.replicas[index]
        replica.holds += 1
        if replica in self._serving:
            self._serving.remove(replica)
        for work in replica.crash():
            if isinstance(work, Job):
                self.refused += 1
                work.edge.refuse(work)

    def recover(self, index: int) -> None:
        """A failure is over: unless another keeps the replica down, it is back, or gone where
        autoscaling has put others in its place."""
        replica = self.replicas[index]
        replica.holds -= 1
        if replica.holds or replica.alive or replica.gone_s < math.inf:
            return
        if self._has_room:
            replica.restart()
            self._serve(replica)
        else:
            replica.retire()

    def load(self, share: float, mean_s: float, draws: Draws) -> None:
        """Keep every worker busy for `share` of its time with other people's requests, that
        come at random (Poisson) and take `mean_s` in the mean (exponential)."""
        for replica in self.replicas:
            rate_hz = share * replica.workers / (mean_s * replica.slowdown)
            self._core.process(_others(replica, draws, rate_hz, mean_s))

    def _done(self, work: Work) -> None:
        if isinstance(work, Job):
            work.edge.reply(work)

    def _add(self) -> None:
        spec = self._replicas
        replica = Replica(
            self._core,
            self._done,
            workers=spec.workers,
            batching=spec.batching,
            slowdown=spec.slowdown,
            most_queued=spec.most_queued,
        )
        self.replicas.append(replica)
        self._serve(replica)

    def _serve(self, replica: Replica) -> None:
        self._serving.append(replica)
        self.most = max(self.most, len(self._serving))

    @property
    def _has_room(self) -> bool:
        rule = self._replicas.autoscaling
        return rule is None or len(self._serving) < rule.most

    def _scale(self, rule: Autoscaling) -> Steps:
        busy_s = up_s = 0.0
        while True:
            yield rule.every_s
            share = (self.busy_s - busy_s) / max(
                (self.up_s - up_s) * self._replicas.workers, 1e-9
            )
            busy_s, up_s = self.busy_s, self.up_s
            there = len(self._serving) + self._starting
            if there < rule.least:
                for _ in range(rule.least - there):
                    self._start(rule)
            elif share > rule.high and there < rule.most:
                self._start(rule)
            elif share < rule.low and len(self._serving) > rule.least:
                self._serving.pop().retire()

    def _start(self, rule: Autoscaling) -> None:
        self._starting += 1
        self._core.at(self._core.now_s + rule.start_s, self._started)

    def _started(self, _: object) -> None:
        self._starting -= 1
        if self._has_room:  # a crashed one may have come back meanwhile
            self._add()
