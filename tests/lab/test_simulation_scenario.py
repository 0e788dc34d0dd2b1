"""Scenarios of fleets: what is right is read, what is wrong is told in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_lab.simulation.edge import Machine
from midstream_lab.simulation.fleet import LinkFailure, ReplicaFailure, simulate_fleet
from midstream_lab.simulation.menus import Offered
from midstream_lab.simulation.operating import operation
from midstream_lab.simulation.scenario import read_fleet
from midstream_partitioner.device import Device
from midstream_wire.errors import UsageError

DEVICE = Device("edge", 1)
MENU = Menu(
    (
        Option("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.0, 0.05, 20_000, 1000, 0.4),
        Option("edge-only", "raw", 1, "edge-only", False,
               0.4, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip

SCENARIO = """
duration = "20s"
interval = "5s"
[cloud]
replicas = 2
workers = 2
balancing = "least-outstanding"
replica_hour = 1.5
batch = { most = 4, wait = "2ms", marginal = 0.3 }
autoscaling = { least = 1, most = 4 }
[[edges]]
name = "cameras"
count = 5
menu = "menu.json"
requests = { kind = "poisson", rate = 2.0 }
deadline = "300ms"
link = { network = "lte", up = "lte:3", spread = 0.2, loss = "0.1%" }
[[edges]]
name = "phones"
menu = "menu.json"
policy = "adaptive"
slowdown = 1.5
requests = { kind = "bursts", rate = 5.0, on = "2s", off = "3s" }
[[failures]]
replica = 2
at = "5s"
lasts = "5s"
[[failures]]
edges = "phones"
at = "12s"
lasts = "2s"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "menu.json").write_text(json.dumps(Offered("net", MENU, DEVICE).to_dict()))
    return tmp_path


def test_a_scenario_becomes_a_fleet_that_runs(folder: Path) -> None:
    (folder / "fleet.toml").write_text(SCENARIO)
    scenario, fleet = read_fleet(folder / "fleet.toml")
    assert [(each.name, each.count) for each in fleet.groups] == [
        ("cameras", 5),
        ("phones", 1),
    ]
    assert fleet.groups[1].machine == Machine(1.5)
    assert fleet.replica_failures == (ReplicaFailure(1, 5.0, 5.0),)
    assert fleet.link_failures == (LinkFailure("phones", 12.0, 2.0),)
    found = operation(simulate_fleet(fleet), scenario.prices)
    assert found.groups["cameras"].missed is not None
    assert found.groups["phones"].missed is None
    assert len(found.timeline) == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('duration = "20s"', "", "duration must be given"),
        (
            'duration = "20s"',
            "duration = 20",
            'must be a duration with its unit, such as "40ms"',
        ),
        ('duration = "20s"', 'duration = "20"', "duration .*unit us, ms, s or min"),
        ("workers = 2", "worker = 2", "cloud has no field 'worker': did you mean 'workers'"),
        ("workers = 2", "workers = 0", "cloud.workers must be greater than or equal to 1"),
        ("workers = 2", 'workers = "2"', "cloud.workers must be .*integer"),
        ('"least-outstanding"', '"random"', "cloud.balancing must be 'round-robin'.*'random'"),
        ("marginal = 0.3", "marginal = 3.0", "cloud.batch.marginal must be"),
        ("least = 1,", "least = 9,", "cloud.autoscaling must have least up to most"),
        ('"menu.json"', '"menus.json"', "menu must be readable .*menus.json"),
        ('kind = "poisson"', 'kind = "often"', r"edges\[1\].requests.kind must be"),
        (", rate = 2.0", "", r"edges\[1\].requests of kind 'poisson' must have rate"),
        ("rate = 2.0", 'rate = 2.0, on = "1s"', "must have rate .not 'on'"),
        ('off = "3s"', 'off = "0s"', "must have off above zero"),
        ('network = "lte"', 'network = "lan"', "network must be a name"),
        ('up = "lte:3"', 'up = "absent.txt"', "trace must be a file or a kind"),
        ('loss = "0.1%"', 'loss = "101%"', r"edges\[1\].link.loss"),
        ('policy = "adaptive"', 'policy = "clever"', "policy must be one of"),
        ('name = "phones"', 'name = "cameras"', "'cameras' comes twice"),
        ("replica = 2", "replica = 3", "replicas 1 to 2"),
        ('edges = "phones"', 'edges = "drones"', "edges in cameras, phones .not 'drones'"),
        ('edges = "phones"', "", "one of the two"),
        ("rate = 2.0", "rate = 999999.0", "at most 100,000,000 requests"),
        ("[cloud]", "[cloud", "TOML"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_named(
    folder: Path, old: str, new: str, says: str
) -> None:
    assert old in SCENARIO
    (folder / "fleet.toml").write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(UsageError, match=says) as caught:
        simulate_fleet(replace(read_fleet(folder / "fleet.toml")[1], duration_s=60.0))
    assert "\n" not in str(caught.value)
