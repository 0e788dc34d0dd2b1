"""One edge, one cloud, one network and one policy, in virtual time."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_edge.policies.believing import belief_of
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import policy as policy_of
from midstream_edge.session.local_time import TIMEOUT_S
from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import Arrivals, Closed
from midstream_lab.simulation.model.cloud import Cloud, Replicas
from midstream_lab.simulation.model.duplex_link import Way
from midstream_lab.simulation.model.edge import Edge
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.model.machine import AS_PROFILED, FixedPlacement, Machine
from midstream_lab.simulation.model.oracle_input import foresight
from midstream_lab.simulation.model.request import Job
from midstream_lab.simulation.model.workload import Cut, Source, breaking
from midstream_lab.simulation.output.request_table import Floats, Recorder, Table
from midstream_partitioner.costs.device import Device
from midstream_wire.errors import UsageError

#: With more, the queue never comes to rest.
MOST_LOAD = 0.98
#: One request at a time.
BACK_TO_BACK = Closed()
#: One replica with one worker, and nobody else's load.
ONE = Replicas()


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """The conditions of a pair; `duration_s` bounds when requests are due, `load` is the share
    of the cloud's time that goes to others."""

    network: Network
    device: Device
    arrivals: Arrivals = BACK_TO_BACK
    duration_s: float = 60.0
    seed: int = 0
    machine: Machine = AS_PROFILED
    replicas: Replicas = ONE
    deadline_s: float | None = None
    timeout_s: float = TIMEOUT_S
    cuts: tuple[Cut, ...] = ()
    load: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.load <= MOST_LOAD:
            raise UsageError(
                f"the load of others must be a share from 0 to {MOST_LOAD} (not {self.load!r})"
            )
        if not 0 < self.duration_s < 1e9:
            raise UsageError(
                f"a simulation must last above 0 s and below 1e9 s (not {self.duration_s!r} s)"
            )


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a simulated pair: a row a request, and counts of the whole.

    `beliefs` [n, 3], row by row as in `table`, is what the policy believed as a request ended,
    which is when sessions note it: the median of the uplink in bit/s, the deviation of its
    logarithm for one transfer, the round trip in seconds. NaN where a policy believes nothing.
    """

    policy: str
    table: Table
    beliefs: Floats
    switches: int
    hedges: int
    reconnects: int
    probe_nbytes: int
    probe_share: float
    uplink_nbytes: int
    downlink_nbytes: int
    events: int


def simulate_pair(menu: Menu, policy: str | FixedPlacement, setting: Setting) -> Outcome:
    """Requests through one edge under the policy of that name, or a plan that stays.

    The same menu, policy and setting give the same outcome. Raises `UsageError` for a policy
    that there is not.
    """
    core = Core()
    network = setting.network
    cloud = Cloud(core, setting.replicas, Draws(setting.seed, 1))
    if setting.load:
        cloud.load(setting.load, _service_s(menu), Draws(setting.seed, 5))
    way = Way(network, Draws(setting.seed, 2))
    recorder = Recorder(detailed=True)
    beliefs = array("d")
    chosen = policy if isinstance(policy, FixedPlacement) else _policy(policy, menu, setting)

    def finished(job: Job, how: int) -> None:
        recorder.add(job, how, core.now_s)
        beliefs.extend(_belief(edge.chooser.policy))
        source.answered(core.now_s)

    edge = Edge(
        core,
        cloud,
        way,
        menu.placements,
        policy=chosen,
        draws=Draws(setting.seed, 3),
        finished=finished,
        machine=setting.machine,
        deadline_s=setting.deadline_s,
        timeout_s=setting.timeout_s,
    )
    source = Source(
        core,
        edge,
        setting.arrivals,
        draws=Draws(setting.seed, 4),
        until_s=setting.duration_s,
        alone=True,
    )
    for cut in setting.cuts:
        core.process(breaking(core, edge, cut))
    core.run(setting.duration_s)
    if edge.prober is not None:
        edge.prober.stop()
    core.run_while(lambda: edge.under_way > 0)
    name = policy if isinstance(policy, str) else menu.placements[policy.placement].label
    return _outcome(name, edge, recorder.table(), beliefs, core.events)


def _policy(name: str, menu: Menu, setting: Setting) -> Policy:
    network = setting.network
    curve = foresight(network.payload_up)
    link = network.first_look()
    return policy_of(name, menu, link=link, device=setting.device, curve=curve)


def _service_s(menu: Menu) -> float:
    """Return what a request of somebody else's takes: the longest that one of the menu's
    does.
    """
    return max(placement.decode_s + placement.tail_s for placement in menu.placements) or 1e-3


def _belief(policy: Policy | None) -> tuple[float, float, float]:
    belief = belief_of(policy)
    if belief is None:
        return math.nan, math.nan, math.nan
    return belief.uplink_bps, belief.spread, belief.rtt_s


def _outcome(
    policy: str, edge: Edge, table: Table, beliefs: array[float], events: int
) -> Outcome:
    budget = None if edge.prober is None else edge.prober.budget
    return Outcome(
        policy=policy,
        table=table,
        beliefs=np.frombuffer(beliefs).reshape(-1, 3),
        switches=edge.chooser.switches,
        hedges=edge.hedges,
        reconnects=edge.way.reconnects,
        probe_nbytes=0 if budget is None else budget.probed_nbytes,
        probe_share=0.0 if budget is None else budget.share,
        uplink_nbytes=edge.way.uplink_nbytes,
        downlink_nbytes=edge.way.downlink_nbytes,
        events=events,
    )
