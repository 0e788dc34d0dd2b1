"""A policy hears of the link while its requests stay on the edge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from midstream_edge.link.clock_offset import ClockEstimate, Exchange
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.probe_budget import (
    KEEP_S,
    LEAST_NBYTES,
    PACE_NBYTES_PER_S,
    ProbeBudget,
)
from midstream_edge.session.director import PolicyDirector
from midstream_edge.session.engine import Engine
from midstream_edge.session.link_reporter import LinkReporter, probed
from midstream_edge.session.session import EdgeSession
from midstream_edge.session.threads import Alarms
from midstream_partitioner.costs.link import Link
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.planning.placements import Placement
from midstream_wire.tensors import Array

Picture = Callable[[int], Mapping[str, Array]]
Serve = Callable[..., AbstractContextManager[str]]

PATIENCE_S = 30.0
EDGE_ONLY = Placement(
    cut="edge-only", codec="raw", k=4, label="edge-only", remote=False, head_s=0.001,
    encode_s=0.0, decode_s=0.0, tail_s=0.0, payload_nbytes=0, reply_nbytes=0, rest_s=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Homebody:
    """Never sends a request, and says when it has heard what a test waits for."""

    wanted: Callable[[Evidence], bool]
    heard: threading.Event = field(default_factory=threading.Event)
    name: str = "homebody"
    belief: LinkBelief = field(default_factory=lambda: LinkBelief.of(Link(8e6, 8e6, 0.001)))

    def decide(self, situation: Situation) -> Decision:
        return Decision(0)

    def learn(self, evidence: Evidence) -> Homebody:
        if self.wanted(evidence):
            self.heard.set()
        return self


def is_probe(evidence: Evidence) -> bool:
    transfer = evidence.transfer
    return evidence.placement is None and transfer is not None and transfer.nbytes > 0


def test_a_link_that_no_request_uses_is_probed_within_the_budget(
    chain: Chain, server: str, picture: Picture
) -> None:
    policy = Homebody(is_probe)
    with EdgeSession(chain, server, plan=(4, "raw")) as session:
        director = session.follow(policy, [EDGE_ONLY])
        session.infer(picture(0))
        assert policy.heard.wait(PATIENCE_S)
    assert LEAST_NBYTES <= director.budget.probed_nbytes <= PACE_NBYTES_PER_S * KEEP_S
    assert director.budget.share == 1.0


def test_a_pilot_keeps_to_the_budget_that_it_is_given() -> None:
    def director(probes: ProbeBudget | None) -> PolicyDirector:
        made = PolicyDirector(Homebody(is_probe), [EDGE_ONLY], timeout_s=1.0, probes=probes)
        made.choose(Situation(100.0))
        return made

    assert director(None).probe_due(105.0, "connected") >= LEAST_NBYTES
    assert director(ProbeBudget(day_nbytes=0)).probe_due(105.0, "connected") == 0
    # The next partition's director goes on with the budget of the one before.
    spent = ProbeBudget(90.0, day_nbytes=1e6, drawn_nbytes=1e5, probed_nbytes=100_000)
    assert director(spent).probe_due(105.0, "connected") == 0
    assert director(spent).budget.probed_nbytes == 100_000


def test_nothing_is_probed_before_the_first_request(chain: Chain, server: str) -> None:
    with EdgeSession(chain, server, plan=(4, "raw")) as session:
        director = session.follow(Homebody(is_probe), [EDGE_ONLY])
        assert director.probe_due(1e9, "connected") == 0


def test_a_policy_hears_that_the_server_is_gone(
    chain: Chain, serve: Serve, picture: Picture
) -> None:
    policy = Homebody(lambda evidence: evidence.link not in (None, "connected"))
    with serve() as address:
        session = EdgeSession(chain, address, plan=(4, "raw"))
        session.follow(policy, [EDGE_ONLY])
        session.infer(picture(0))
    with session:
        assert policy.heard.wait(PATIENCE_S)


def test_a_plan_that_stays_ends_the_probing(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(4, "raw")) as session:
        director = session.follow(Homebody(is_probe), [EDGE_ONLY])
        session.use(4, "raw")
        session.infer(picture(0))
        assert director.budget.probed_nbytes == 0


@dataclass
class Linked:
    """An engine and its connection, as far as a reporter sees; probes end when told."""

    director: PolicyDirector
    handed_nbytes: int = 0
    missing_nbytes: int = 0
    backlog_nbytes: int = 0
    state: str = "connected"
    link_state: str = "connected"
    clock: ClockEstimate = field(default_factory=ClockEstimate)
    probes: list[Future[Exchange]] = field(default_factory=list)

    @property
    def connection(self) -> Linked:
        return self

    def take_exchanges(self) -> tuple[Exchange, ...]:
        return ()

    def begin_ping(self, up_nbytes: int, down_nbytes: int) -> Future[Exchange]:
        self.probes.append(Future())
        return self.probes[-1]


@dataclass(frozen=True)
class Noting:
    """A policy that keeps all that it is told."""

    told: list[Evidence] = field(default_factory=list)
    name: str = "noting"
    belief: LinkBelief = field(default_factory=lambda: LinkBelief.of(Link(8e6, 8e6, 0.001)))

    def decide(self, situation: Situation) -> Decision:
        return Decision(0)

    def learn(self, evidence: Evidence) -> Noting:
        self.told.append(evidence)
        return self


def scouted(*, missing_nbytes: int = 0) -> tuple[Noting, Linked]:
    """A link that has been silent, and is looked at."""
    policy = Noting()
    director = PolicyDirector(policy, [EDGE_ONLY], timeout_s=1.0)
    director.choose(Situation(time.monotonic() - KEEP_S, "connected", None, 0))
    engine = Linked(director, missing_nbytes=missing_nbytes)
    alarms = SimpleNamespace(at=lambda at_s, look: None)
    LinkReporter(lambda: cast(Engine, engine), director, cast(Alarms, alarms))
    return policy, engine


def test_nothing_is_probed_while_a_payload_is_on_its_way() -> None:
    assert len(scouted()[1].probes) == 1
    assert scouted(missing_nbytes=1)[1].probes == []


def test_a_probe_beside_which_a_request_left_says_nothing() -> None:
    policy, engine = scouted()
    engine.handed_nbytes += 50_000
    engine.probes[0].set_result(Exchange(0.0, 0.5, 0.5, 1.0))
    assert policy.told == []


def test_a_probe_that_had_the_link_to_itself_is_told() -> None:
    policy, engine = scouted()
    engine.probes[0].set_result(Exchange(0.0, 0.5, 0.5, 1.0))
    (evidence,) = policy.told
    assert evidence.transfer is not None
    assert evidence.transfer.took_s == 1.0


def test_a_probe_tells_its_way_up_where_the_clocks_are_compared() -> None:
    clock = ClockEstimate().observe(Exchange(0.0, 100.03, 100.03, 0.05, empty=True))
    told = probed(Exchange(1.0, 101.04, 101.04, 1.5), clock, 3000, 500)
    assert told.up_s == pytest.approx(0.01)
    assert (told.nbytes, told.ahead_nbytes, told.took_s) == (3000, 500, 0.5)
    assert probed(Exchange(1.0, 101.04, 101.04, 1.5), ClockEstimate(), 3000, 0).up_s is None
