"""Scenarios of fleets: what is right is read, what is wrong is told in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.fleet.fleet import LinkFailure, ReplicaFailure, simulate_fleet
from midstream_lab.simulation.fleet.scenario import read_fleet
from midstream_lab.simulation.fleet.statistics import operation
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.model.arrivals import Diurnal
from midstream_lab.simulation.model.machine import Machine
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

DEVICE = Device("edge", 1)
MENU = Menu(
    (
        Placement("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.0, 0.05, 20_000, 1000, 0.4),
        Placement("edge-only", "raw", 1, "edge-only", False,
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
    """What scenarios name, good and bad."""
    write_menu(tmp_path)
    (tmp_path / "wrong.json").write_text('{"menu": []}')
    return tmp_path


def write_menu(folder: Path, scatter: float = 0.0) -> None:
    measured = MeasuredModel("net", MENU, DEVICE, scatter)
    (folder / "menu.json").write_text(json.dumps(measured.to_dict()))


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
            'duration must be a duration with its unit, such as "40ms" (not 20)',
        ),
        ('duration = "20s"', 'duration = "20"', "duration needs the unit us, ms, s, min or h"),
        ('duration = "20s"', 'duration = "0s"', "duration must be above zero"),
        ('duration = "20s"', 'duration = "1e9h"', 'duration must be at most "10000h"'),
        ('interval = "5s"', 'interval = "0s"', "interval must be above zero"),
        (
            'interval = "5s"',
            'interval = "1us"',
            "interval must divide the duration into at most 100,000 parts (not 20 s into",
        ),
        ('interval = "5s"', "seed = -1", "seed must be"),
        ("workers = 2", "worker = 2", "cloud has no field 'worker': did you mean 'workers'"),
        ("workers = 2", "workers = 0", "cloud.workers must be from 1 to 1,000,000 (not 0)"),
        ("workers = 2", 'workers = "2"', "cloud.workers must be a whole number (not '2')"),
        ("workers = 2", f"workers = 0x{'f' * 9999}", "cloud.workers must be"),
        ("workers = 2", "slowdown = 0", "cloud.slowdown must be above 0 and at most 10,000"),
        ("workers = 2", "slowdown = nan", "cloud.slowdown must be above 0 and at most 10,000"),
        ("workers = 2", f"gigabyte = 1{'0' * 999}", "cloud.gigabyte must be"),
        ('"least-outstanding"', '"random"', "'power-of-two' (not 'random')"),
        ("marginal = 0.3", "marginal = 3.0", "cloud.batch.marginal must be a share from 0 to"),
        ("least = 1,", "least = 9,", "cloud.autoscaling must have least up to most"),
        ("least = 1,", "least = 3,", "cloud.replicas must be from autoscaling's least to its"),
        (
            "least = 1,",
            'least = 1, high = "10%",',
            "must have low below high (not 0.3 and 0.1)",
        ),
        ("least = 1,", 'least = 1, every = "0s",', "cloud.autoscaling.every must be above"),
        ("least = 1,", 'least = 1, every = "1us",', "cloud.autoscaling.every must divide the"),
        ('kind = "poisson"', 'kind = "often"', "edges[1].requests.kind must be 'closed'"),
        (", rate = 2.0", "", "edges[1].requests of kind 'poisson' must have rate"),
        ("rate = 2.0", 'rate = 2.0, on = "1s"', "must have rate (not 'on')"),
        ("rate = 2.0", "rate = inf", "edges[1].requests.rate must be above 0 and at most 1,"),
        ("rate = 2.0", "rate = 1_000_000", "at most 100,000,000 requests"),
        ('off = "3s"', 'off = "0s"', "edges[2].requests.off must be above zero"),
        ('on = "2s"', 'on = "1us"', "edges[2].requests of kind 'bursts' must have 0.01 reque"),
        ("count = 5", "count = 1_000_000", "edges must be at most 1,000,000 together"),
        ('deadline = "300ms"', 'deadline = "0s"', "edges[1].deadline must be above zero"),
        ('deadline = "300ms"', 'timeout = "0s"', "edges[1].timeout must be above zero"),
        (
            'deadline = "300ms"',
            "deadline = 300",
            'edges[1].deadline must be a duration with its unit, such as "40ms" (not 300)',
        ),
        ('name = "phones"', 'name = "cameras"', "edges[2].name must be no other group's"),
        ('name = "phones"', 'name = "pho\\nes"', "edges[2].name must have no line ends"),
        (
            'policy = "adaptive"',
            'policy = "adaptiv"',
            "edges[2].policy must be one of plan, adaptive, adaptive-nohedge",
        ),
        ('policy = "adaptive"', 'policy = "fixd"', "did you mean 'fixed:CUT:CODEC'?"),
        (
            'policy = "adaptive"',
            'policy = "adaptive:1"',
            "edges[2].policy must be one of plan",
        ),
        ('policy = "adaptive"', 'policy = "fixed"', "edges[2].policy must be one of plan"),
        (
            'policy = "adaptive"',
            'policy = "fixed:layer3"',
            "edges[2].policy of 'phones': a policy must name a placement of the menu (not",
        ),
        (
            'policy = "adaptive"',
            'policy = "periodic:5"',
            "edges[2].policy of 'phones': a duration needs the unit",
        ),
        (
            '"menu.json"',
            '"menus.json"',
            "edges[1].menu of 'cameras': a menu must be a readable file",
        ),
        (
            '"menu.json"',
            '"a\\u0000b"',
            "edges[1].menu must have no line ends or other control",
        ),
        ('"menu.json"', '"wrong.json"', "wrong.json: menu must not be empty"),
        (
            'network = "lte"',
            'network = "lan"',
            "edges[1].link.network of 'cameras': a link",
        ),
        (
            'up = "lte:3"',
            'up = "gone.txt"',
            "edges[1].link.up of 'cameras': a trace must be a",
        ),
        ('up = "lte:3"', 'down = "lte:x"', "edges[1].link.down of 'cameras': a trace's seed"),
        (
            'up = "lte:3"',
            f'up = "{"x" * 200}/{"y" * 99}"',
            "edges[1].link.up must be",
        ),
        ('up = "lte:3"', f'up = "{"x/" * 99}"', "edges[1].link.up of 'cameras'"),
        ('loss = "0.1%"', 'loss = "101%"', "edges[1].link.loss is wrong: a share must be 0%"),
        ('loss = "0.1%"', 'loss = "100%"', "edges[1].link.loss must be below 100%"),
        ('loss = "0.1%"', "scale = 9999", "edges[1].link.scale of 'cameras'"),
        ("replica = 2", "replica = 3", "failures[1].replica must be from 1 to cloud.replicas"),
        (
            "replica = 2",
            'replica = 2\nshare = "20%"',
            "failures[1].share is of a group's edges",
        ),
        (
            'at = "5s"',
            'at = "20s"',
            "failures[1].at must be before the end at 20 s (not 20 s)",
        ),
        ('lasts = "5s"', 'lasts = "0s"', "failures[1].lasts must be above zero"),
        (
            'edges = "phones"',
            'edges = "drones"',
            "failures[2].edges must be one of cameras, ph",
        ),
        ('edges = "phones"', "", "one of the two"),
        ("[cloud]", "[cloud", "must be a readable TOML file"),
        ("[cloud]", f"x = {'{a = ' * 9999}", "a TOML file with fewer tables in tables"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_named(
    folder: Path, old: str, new: str, says: str
) -> None:
    assert old in SCENARIO
    path = folder / "fleet.toml"
    path.write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_fleet(path)
    said = str(caught.value)
    assert says in said
    assert said.startswith(str(path))
    assert "\n" not in said
    assert len(said) < 600


def test_shares_are_written_as_percents_or_as_parts_of_one(folder: Path) -> None:
    path = folder / "fleet.toml"
    found = []
    for high, marginal, loss in (('"70%"', '"30%"', '"1%"'), ("0.7", "0.3", "0.01")):
        text = SCENARIO.replace("least = 1,", f"least = 1, high = {high},")
        text = text.replace("marginal = 0.3", f"marginal = {marginal}")
        path.write_text(text.replace('loss = "0.1%"', f"loss = {loss}"))
        found.append(read_fleet(path)[1])
    assert found[0].replicas == found[1].replicas
    assert found[0].groups[0].network == found[1].groups[0].network
    assert found[0].groups[0].network.loss == 0.01


def test_a_day_may_be_written_in_hours(folder: Path) -> None:
    path = folder / "fleet.toml"
    daily = 'kind = "diurnal", rate = 1, period = "24h"'
    path.write_text(SCENARIO.replace('kind = "poisson", rate = 2.0', daily))
    assert read_fleet(path)[1].groups[0].arrivals == Diurnal(1.0, period_s=86_400.0)


def test_edges_scatter_as_their_menu_did_unless_the_scenario_says_otherwise(
    folder: Path,
) -> None:
    path = folder / "fleet.toml"
    write_menu(folder, scatter=0.07)
    path.write_text(SCENARIO.replace("slowdown = 1.5", "scatter = 0.2"))
    cameras, phones = read_fleet(path)[1].groups
    assert (cameras.machine, phones.machine) == (Machine(sigma=0.07), Machine(sigma=0.2))


@pytest.mark.parametrize("policy", ["plan", "oracle", "cloud-only:jpeg", "fixed:edge-only"])
def test_every_policy_that_the_menu_has_may_be_named(folder: Path, policy: str) -> None:
    path = folder / "fleet.toml"
    path.write_text(SCENARIO.replace('"adaptive"', f'"{policy}"'))
    assert read_fleet(path)[1].groups[1].policy == policy


def test_the_scenario_of_the_page_is_one(folder: Path) -> None:
    page = (Path(__file__).parents[4] / "docs/reference/fleets.md").read_text()
    path = folder / "fleet.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    scenario, fleet = read_fleet(path)
    assert [group.count for group in fleet.groups] == [1000]
    assert scenario.cloud.autoscaling is not None


def test_the_scenario_of_the_tutorial_is_one(folder: Path) -> None:
    page = (Path(__file__).parents[4] / "docs/tutorials/fleet.md").read_text()
    path = folder / "fleet.toml"
    path.write_text("\n".join(re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)))
    _, fleet = read_fleet(path)
    assert [group.count for group in fleet.groups] == [100]
    assert len(fleet.replica_failures) == 1


@pytest.mark.parametrize("policy", ["plan", "adaptive", "oracle", "edge-only"])
def test_a_link_that_never_carries_anything_leaves_edges_to_themselves(
    folder: Path, policy: str
) -> None:
    (folder / "dead.txt").write_text("0 0\n1 0\n")
    path = folder / "fleet.toml"
    dead = SCENARIO.replace('up = "lte:3"', 'up = "dead.txt"')
    path.write_text(dead.replace("count = 5", f'count = 2\npolicy = "{policy}"'))
    scenario, fleet = read_fleet(path)
    cameras = operation(simulate_fleet(fleet), scenario.prices).groups["cameras"]
    assert cameras.ends["cloud"] == 0 < cameras.requests - cameras.ends["failed"]
