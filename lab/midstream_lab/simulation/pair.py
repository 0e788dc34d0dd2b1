"""One edge, one cloud, one network and one policy, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_edge.drive import DRAIN_S
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.oracle import Curve
from midstream_edge.policies.registry import policy as policy_of
from midstream_edge.policies.values import Evidence
from midstream_lab.simulation.arrivals import Arrivals, Closed
from midstream_lab.simulation.cloud import Cloud, Replicas
from midstream_lab.simulation.core import Core, Steps
from midstream_lab.simulation.draws import Draws
from midstream_lab.simulation.edge import AS_PROFILED, Edge, Machine
from midstream_lab.simulation.job import Job
from midstream_lab.simulation.network import Network
from midstream_lab.simulation.records import Recorder, Table
from midstream_lab.simulation.way import NOTICE_S, RECONNECT_S, Way
from midstream_partitioner.device import Device
from midstream_wire.errors import UsageError

#: One request at a time.
BACK_TO_BACK = Closed()
#: One replica with one worker, and nobody else's load.
ONE = Replicas()


@final
@dataclass(frozen=True, slots=True)
class Cut:
    """The link lets nothing through from `at_s` for `lasts_s`; what is under way is lost."""

    at_s: float
    lasts_s: float

    def __post_init__(self) -> None:
        if not (self.at_s >= 0 and self.lasts_s > 0):
            raise UsageError(
                f"a cut must begin at 0 s or later and last (not {self.at_s!r} s, "
                f"{self.lasts_s!r} s)"
            )


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """What a pair runs under; `duration_s` bounds when requests are due."""

    network: Network
    device: Device
    arrivals: Arrivals = BACK_TO_BACK
    duration_s: float = 60.0
    seed: int = 0
    machine: Machine = AS_PROFILED
    replicas: Replicas = ONE
    deadline_s: float | None = None
    timeout_s: float = 10.0
    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < 1e9:
            raise UsageError(
                f"a simulation must last above 0 s and below 1e9 s (not {self.duration_s!r} s)"
            )


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated pair did: a row a request, and counts of the whole."""

    policy: str
    table: Table
    switches: int
    hedges: int
    probe_nbytes: int
    probe_share: float
    uplink_nbytes: int
    downlink_nbytes: int
    events: int


def simulate_pair(menu: Menu, policy: str, setting: Setting) -> Outcome:
    """Requests through one edge under the policy of that name, from 0 s on.

    The same menu, policy and setting give the same outcome. Raises `UsageError` for a policy
    that there is not.
    """
    core = Core()
    network = setting.network
    cloud = Cloud(core, setting.replicas, Draws(setting.seed, 1))
    way = Way(network, Draws(setting.seed, 2))
    recorder = Recorder(detailed=True)
    curve = Curve(way.up.trace.times_s, way.up.trace.rates_bps, 0.0)
    chosen = policy_of(
        policy, menu, link=network.first_look(), device=setting.device, curve=curve
    )

    def finished(job: Job, how: int) -> None:
        recorder.add(job, how, core.now_s)
        source.answered(core.now_s)

    edge = Edge(
        core,
        cloud,
        way,
        menu.options,
        policy=chosen,
        draws=Draws(setting.seed, 3),
        finished=finished,
        machine=setting.machine,
        deadline_s=setting.deadline_s,
        timeout_s=setting.timeout_s,
    )
    source = Source(core, edge, setting.arrivals, Draws(setting.seed, 4), setting.duration_s)
    for cut in setting.cuts:
        core.process(breaking(core, edge, cut))
    core.run(setting.duration_s)
    if edge.prober is not None:
        edge.prober.stop()
    core.run(setting.duration_s + DRAIN_S)
    return _outcome(policy, edge, recorder.table(), core.events)


def _outcome(policy: str, edge: Edge, table: Table, events: int) -> Outcome:
    budget = None if edge.prober is None else edge.prober.budget
    return Outcome(
        policy=policy,
        table=table,
        switches=edge.switches,
        hedges=edge.hedges,
        probe_nbytes=0 if budget is None else budget.probed_nbytes,
        probe_share=0.0 if budget is None else budget.share,
        uplink_nbytes=edge.way.uplink_nbytes,
        downlink_nbytes=edge.way.downlink_nbytes,
        events=events,
    )


@final
class Source:
    """Sends an edge its requests until `until_s`."""

    __slots__ = ("_arrivals", "_core", "_draws", "_edge", "_until_s", "sent")

    def __init__(
        self, core: Core, edge: Edge, arrivals: Arrivals, draws: Draws, until_s: float
    ) -> None:
        self._core = core
        self._edge = edge
        self._arrivals = arrivals
        self._draws = draws
        self._until_s = until_s
        self.sent = 0
        first_s = 0.0 if isinstance(arrivals, Closed) else arrivals.first_s(draws)
        core.at(first_s, self._send)

    def answered(self, now_s: float) -> None:
        """A request has ended: in a closed loop it is the next one's turn."""
        arrivals = self._arrivals
        if isinstance(arrivals, Closed):
            self._core.at(now_s + arrivals.think_s, self._send)

    def _send(self, _: object) -> None:
        now_s = self._core.now_s
        if now_s >= self._until_s:
            return
        arrivals = self._arrivals
        if not isinstance(arrivals, Closed):
            self._core.at(arrivals.next_s(now_s, self._draws), self._send)
        self.sent += 1
        self._edge.submit(self.sent, now_s)


def breaking(core: Core, edge: Edge, cut: Cut) -> Steps:
    """One cut of an edge's link, noticed after a while, and mended a while after its end."""
    yield cut.at_s
    edge.way.cut()
    yield NOTICE_S
    edge.way.drop()
    edge.learn(Evidence(core.now_s, link="down"))
    edge.lose()
    yield max(0.0, cut.lasts_s - NOTICE_S) + RECONNECT_S
    edge.way.mend(core.now_s)
    edge.learn(Evidence(core.now_s, link="connected"))
