"""Policies of users: by name on the command line and in files, and over the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from examples.own_policy import make

import midstream
from midstream.testing import check_policy
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import policy
from midstream_lab.experiment.scenario import _known_policy
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.planner import Planner
from midstream_wire.errors import UsageError

if TYPE_CHECKING:
    from tests.app.conftest import Announce, Ran

    Run = Callable[[str], Ran]

OWN = "python:examples.own_policy:make"
LINK, DEVICE = Link(8e6, 8e6, 0.04), Device("edge", 1)


@pytest.fixture(scope="module")
def menu() -> Menu:
    part = midstream.partition("digits")
    measured = midstream.profile(part, runs=1)
    return Menu.of(Planner(part, measured, measured), complete=True)


def test_the_example_keeps_what_sessions_rely_on(menu: Menu) -> None:
    check_policy(make(menu, link=LINK, device=DEVICE), len(menu.placements))


def test_a_policy_of_ones_own_is_named_like_the_others(menu: Menu) -> None:
    made = policy(OWN, menu, link=LINK, device=DEVICE)
    assert made.name == "careful"
    assert _known_policy(OWN) == OWN


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("python:examples.own_policy:nosuch", "must have a function nosuch"),
        ("python:examples.nosuch:make", "must import"),
        ("python:json:dumps", "must return a policy, and raised TypeError"),
        ("python:json", "must be named as python:module:function"),
        ("carefull", "a policy must be one of"),
    ],
)
def test_what_is_no_policy_is_told_in_one_sentence(name: str, told: str, menu: Menu) -> None:
    with pytest.raises(UsageError, match=told):
        policy(name, menu, link=LINK, device=DEVICE)


def test_an_installed_package_announces_its_policies_by_name(
    menu: Menu, announce: Announce
) -> None:
    announce(
        "midstream.policies", "careful = examples.own_policy:make\nbroken = nosuch:make\n"
    )
    assert policy("careful", menu, link=LINK, device=DEVICE).name == "careful"
    assert _known_policy("careful") == "careful"
    with pytest.raises(UsageError, match="'broken' of an installed package must load"):
        policy("broken", menu, link=LINK, device=DEVICE)


def test_it_runs_in_a_simulation_and_over_the_wire(menu: Menu, command: Run) -> None:
    line = f"simulate digits --link lte --policy {OWN} --duration 5s --runs 3 --json"
    simulated = command(line)
    assert simulated.code == 0, simulated.err
    assert OWN in simulated.out
    part = midstream.partition("digits")
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, None) as session,
    ):
        session.follow(make(menu, link=LINK, device=DEVICE), menu.placements)
        wheres = {session.infer(midstream.inputs(part)[0]).where for _ in range(12)}
    assert len(wheres) > 1  # the cloud was tried


@dataclass(frozen=True)
class Bad:
    name: str = "bad"
    placement: int = 0
    hedge_after_s: float | None = None
    keeps: bool = True

    def decide(self, situation: Situation) -> Decision:
        return Decision(self.placement, self.hedge_after_s)

    def learn(self, evidence: Evidence) -> Bad:
        return self if self.keeps else None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Bad(placement=9), "must be one of the menu"),
        (Bad(hedge_after_s=-1.0), "no time to hedge after"),
        (Bad(hedge_after_s=float("nan")), "no time to hedge after"),
        (Bad(keeps=False), "must return a policy"),
    ],
)
def test_a_policy_that_is_wrong_is_found_out(bad: Bad, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_policy(bad, 3)
    check_policy(Bad(), 3)
