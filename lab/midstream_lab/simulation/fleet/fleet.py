"""Many edges that share a cloud, in virtual time."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

from midstream_edge.policies.baselines import Fixed
from midstream_edge.policies.interface import Policy, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import policy as policy_of
from midstream_edge.session.lifecycle import patience_s
from midstream_edge.session.local_time import TIMEOUT_S
from midstream_lab.simulation.kernel.event_queue import Core, Steps
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import Arrivals, Closed
from midstream_lab.simulation.model.cloud import Cloud, Replicas
from midstream_lab.simulation.model.device_speed import slowed
from midstream_lab.simulation.model.duplex_link import Way
from midstream_lab.simulation.model.edge import Edge
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.model.machine import AS_PROFILED, FixedPlacement, Machine
from midstream_lab.simulation.model.oracle_input import foresight
from midstream_lab.simulation.model.request import Job
from midstream_lab.simulation.model.workload import Cut, Source, breaking
from midstream_lab.simulation.output.request_table import Recorder, Table
from midstream_partitioner.costs.device import Device
from midstream_wire.errors import UsageError

#: A row takes 60 bytes: six gigabytes.
MOST_REQUESTS = 100_000_000
#: Each is a look at every replica, and a row in documents.
MOST_INTERVALS = 100_000
#: The plan for the link's mean rates, held for the whole run.
PLAN = "plan"
ORACLE = "oracle"


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Edges alike: `count` of them, each at its own place in the network's traces.

    Their rates differ by a log-normal factor of deviation `spread`. `policy` is a policy's
    name, or "plan".
    """

    name: str
    count: int
    menu: Menu
    device: Device
    network: Network
    arrivals: Arrivals
    policy: str = PLAN
    machine: Machine = AS_PROFILED
    spread: float = 0.0
    deadline_s: float | None = None
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.spread <= 2:
            raise UsageError(
                "a group must have 1 edge or more and a spread from 0 to 2 (not "
                f"{self.count}, {self.spread!r}; {self.name})"
            )


@final
@dataclass(frozen=True, slots=True)
class ReplicaFailure:
    """Replica number `replica` (from 0) is down from `at_s` for `lasts_s`."""

    replica: int
    at_s: float
    lasts_s: float

    def __post_init__(self) -> None:
        _check_failure(self.at_s, self.lasts_s)


@final
@dataclass(frozen=True, slots=True)
class LinkFailure:
    """`share` of the edges of `group` are cut off from `at_s` for `lasts_s`."""

    group: str
    at_s: float
    lasts_s: float
    share: float = 1.0

    def __post_init__(self) -> None:
        _check_failure(self.at_s, self.lasts_s)


def _check_failure(at_s: float, lasts_s: float) -> None:
    if not (at_s >= 0 and lasts_s > 0):
        raise UsageError(
            f"a failure must begin at 0 s or later and last (not {at_s!r} s, {lasts_s!r} s)"
        )


@final
@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that a run depends on. The cloud is looked at every `interval_s`."""

    groups: tuple[Group, ...]
    replicas: Replicas
    duration_s: float
    seed: int = 0
    interval_s: float = 60.0
    replica_failures: tuple[ReplicaFailure, ...] = ()
    link_failures: tuple[LinkFailure, ...] = ()

    def __post_init__(self) -> None:
        if not (0 < self.duration_s < 1e9 and self.interval_s > 0):
            raise UsageError("a fleet must run for a while, and be looked at every so often")
        if self.duration_s / self.interval_s > MOST_INTERVALS:
            raise UsageError(
                f"a run must have at most {MOST_INTERVALS:,} intervals (not "
                f"{self.duration_s / self.interval_s:,.0f}): make them longer"
            )
        self._check_groups()
        self._check_failures()

    def _check_groups(self) -> None:
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names):
            raise UsageError("a fleet must have groups, no two of the same name")
        rates = (
            group.count * group.arrivals.mean_hz
            for group in self.groups
            if not isinstance(group.arrivals, Closed)
        )
        requests = sum(rates) * self.duration_s
        if requests > MOST_REQUESTS:
            raise UsageError(
                f"a run must have at most {MOST_REQUESTS:,} requests (about {requests:,.0f} "
                "would come): shorten it, or take fewer edges"
            )

    def _check_failures(self) -> None:
        names = [group.name for group in self.groups]
        for cut in self.link_failures:
            if cut.group not in names:
                raise UsageError(
                    f"a failure of links must be of a group in {', '.join(names)} (not "
                    f"{cut.group!r})"
                )
        for crash in self.replica_failures:
            if not 0 <= crash.replica < self.replicas.count:
                raise UsageError(
                    f"a failure must be of a replica there is at first, from 0 to "
                    f"{self.replicas.count - 1} (not {crash.replica})"
                )


@final
@dataclass(frozen=True, slots=True)
class Look:
    """The cloud at a moment: what was computed up to it, by all workers, for how long
    replicas were up, together, and what there is."""

    at_s: float
    busy_s: float
    up_s: float
    waiting: int
    replicas: int


@final
@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """A row a request, whenever it was answered; the numbers of the first edge of each group
    and one beyond the last; and the cloud's history, which ends with the run.

    `looks` are at the beginning, after every interval, and at the end. `busy_s` is by replica,
    in the order in which they came, `replica_s` the time that they were there, up or down,
    together. `downs` are what crashes came to: of replicas that were there.
    """

    fleet: Fleet
    table: Table
    starts: tuple[int, ...]
    looks: tuple[Look, ...]
    busy_s: tuple[float, ...]
    replica_s: float
    most_replicas: int
    downs: tuple[ReplicaFailure, ...]
    refused: int
    downlink_nbytes: int
    probe_nbytes: int
    events: int


def simulate_fleet(
    fleet: Fleet, *, progress: Callable[[float], object] | None = None
) -> FleetOutcome:
    """Run `fleet` until every request that was due has ended, which may be long after its
    duration; the same fleet gives the same outcome. `progress` hears the share done."""
    run = _Run(fleet)
    with _without_collector():
        parts = 100 if progress is not None else 1
        for part in range(1, parts + 1):
            run.core.run(fleet.duration_s * (part / parts))
            if progress is not None:
                progress(part / parts)
        counted = run.stop()
        run.core.run_while(run.pending)
    return run.outcome(counted)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Requests leave no cycles, and looking for some would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@final
@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts over time, as `FleetOutcome` has them."""

    busy_s: tuple[float, ...]
    replica_s: float
    most_replicas: int
    downs: tuple[ReplicaFailure, ...]


@final
class _Run:
    """The parts of a run, put together."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.core = Core()
        self.recorder = Recorder(detailed=False)
        self.cloud = Cloud(self.core, fleet.replicas, Draws(fleet.seed, 1))
        self.looks: list[Look] = []
        self._ended = self._due = 0
        self.edges: list[Edge] = []
        self.sources: list[Source] = []
        starts = [0]
        for group in fleet.groups:
            slowdown = {"edge": group.machine.slowdown, "cloud": fleet.replicas.slowdown}
            placements = (slowed(placement, **slowdown) for placement in group.menu.placements)
            known = replace(group.menu, placements=tuple(placements))
            for _ in range(group.count):
                self._add(group, known)
            starts.append(len(self.edges))
        self.starts = tuple(starts)
        self.core.process(self._watch())
        for failure in fleet.replica_failures:
            self.core.process(self._fail(failure))
        for at, cut in enumerate(fleet.link_failures):
            self._break(cut, Draws(fleet.seed, 5, at))

    def stop(self) -> _Counted:
        """The end of the run: nothing more is due, nor counted by time, and what is under way
        comes to its end."""
        self._due = sum(source.sent for source in self.sources)
        self._look()
        for edge in self.edges:
            if edge.prober is not None:
                edge.prober.stop()
        replicas = self.cloud.replicas
        return _Counted(
            busy_s=tuple(replica.busy_s for replica in replicas),
            replica_s=sum(replica.there_s for replica in replicas),
            most_replicas=self.cloud.most,
            downs=tuple(
                ReplicaFailure(at, from_s, until_s - from_s)
                for at, replica in enumerate(replicas)
                for from_s, until_s in replica.downs
                if until_s > from_s
            ),
        )

    def pending(self) -> bool:
        """Return True if a request is under way, once the run has stopped."""
        return self._ended < self._due

    def outcome(self, counted: _Counted) -> FleetOutcome:
        probers = [edge.prober for edge in self.edges if edge.prober is not None]
        return FleetOutcome(
            fleet=self.fleet,
            table=self.recorder.table(),
            starts=self.starts,
            looks=tuple(self.looks),
            busy_s=counted.busy_s,
            replica_s=counted.replica_s,
            most_replicas=counted.most_replicas,
            downs=counted.downs,
            refused=self.cloud.refused,
            downlink_nbytes=sum(edge.way.downlink_nbytes for edge in self.edges),
            probe_nbytes=sum(prober.budget.probed_nbytes for prober in probers),
            events=self.core.events,
        )

    def _add(self, group: Group, known: Menu) -> None:
        index = len(self.edges)
        draws = Draws(self.fleet.seed, 2, index)
        network = group.network
        offset_s = draws.uniform() * max(
            network.uplink.duration_s, network.downlink.duration_s
        )
        scale = draws.factor(group.spread)
        policy, predicted_s = _chosen(group, known, offset_s=offset_s, scale=scale)
        edge = Edge(
            self.core,
            self.cloud,
            Way(network, draws, offset_s=offset_s, scale=scale),
            group.menu.placements,
            policy=policy,
            draws=draws,
            finished=self._finished,
            machine=group.machine,
            deadline_s=group.deadline_s,
            timeout_s=patience_s(group.timeout_s, predicted_s),
            index=index,
        )
        self.edges.append(edge)
        arrivals = Draws(self.fleet.seed, 3, index)
        self.sources.append(
            Source(
                self.core, edge, group.arrivals, draws=arrivals, until_s=self.fleet.duration_s
            )
        )

    def _finished(self, job: Job, how: int) -> None:
        now_s = self.core.now_s
        self._ended += 1
        self.recorder.add(job, how, now_s)
        self.sources[job.edge.index].answered(now_s)

    def _look(self) -> None:
        cloud = self.cloud
        look = Look(self.core.now_s, cloud.busy_s, cloud.up_s, cloud.waiting, cloud.serving)
        self.looks.append(look)

    def _watch(self) -> Steps:
        """Look at the cloud at the beginning of every interval."""
        fleet = self.fleet
        for number in range(interval_count(fleet)):
            yield number * fleet.interval_s - self.core.now_s
            self._look()

    def _fail(self, failure: ReplicaFailure) -> Steps:
        yield failure.at_s
        self.cloud.fail(failure.replica)
        yield failure.lasts_s
        self.cloud.recover(failure.replica)

    def _break(self, failure: LinkFailure, draws: Draws) -> None:
        at = [group.name for group in self.fleet.groups].index(failure.group)
        for edge in self.edges[self.starts[at] : self.starts[at + 1]]:
            if draws.uniform() < failure.share:
                cut = Cut(failure.at_s, failure.lasts_s)
                self.core.process(breaking(self.core, edge, cut))


def interval_count(fleet: Fleet) -> int:
    """Return how many intervals a run has; the last one may be shorter."""
    return max(1, math.ceil(fleet.duration_s / fleet.interval_s - 1e-9))


def _chosen(
    group: Group, known: Menu, *, offset_s: float, scale: float
) -> tuple[Policy | FixedPlacement, float]:
    """The policy of one edge, and the latency it predicts where it never changes its mind.

    What never changes its mind need not be asked, nor told anything. A plan is made with
    what is `known`, the menu on these machines; policies get the menu as profiled, and learn.
    """
    menu, network = group.menu, group.network
    if group.policy == PLAN:
        met = LinkBelief.of(network.mean_link(scale)).conditions()
        placement = int(known.totals_s(met).argmin())
        return FixedPlacement(placement), known.estimate(placement, met).total_s
    curve = None
    if group.policy == ORACLE:
        curve = foresight(network.payload_up, offset_s=offset_s, scale=scale)
    link = network.first_look(offset_s, scale)
    policy = policy_of(group.policy, menu, link=link, device=group.device, curve=curve)
    if not isinstance(policy, Fixed):
        return policy, 0.0
    decision = policy.decide(Situation(0.0))
    predicted_s = 0.0 if decision.estimate is None else decision.estimate.total_s
    return FixedPlacement(decision.placement, decision.hedge_after_s), predicted_s
