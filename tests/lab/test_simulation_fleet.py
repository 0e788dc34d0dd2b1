"""Fleets in virtual time: what edges share, and what fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_lab.conditions import condition
from midstream_lab.simulation.arrivals import Arrivals, Closed, Diurnal, Every, Poisson
from midstream_lab.simulation.cloud import Autoscaling, Replicas
from midstream_lab.simulation.edge import Machine
from midstream_lab.simulation.fleet import (
    Fleet,
    FleetOutcome,
    Group,
    LinkFailure,
    ReplicaFailure,
    simulate_fleet,
)
from midstream_lab.simulation.network import Network
from midstream_lab.simulation.operating import Prices, operation
from midstream_lab.simulation.records import ENDS
from midstream_lab.simulation.station import Batching
from midstream_lab.traces import generate
from midstream_partitioner.device import Device

WHOLE_S, TAIL_S = 0.4, 0.05
DEVICE = Device("edge", 1)
MENU = Menu(
    (
        Option("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.0, TAIL_S, 20_000, 1000, WHOLE_S),
        Option("edge-only", "raw", 1, "edge-only", False,
               WHOLE_S, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
NETWORK = Network.of(condition("wifi"))


def group(arrivals: Arrivals, count: int = 20, name: str = "edges", **fields: object) -> Group:
    return Group(name, count, MENU, DEVICE, NETWORK, arrivals, **fields)  # type: ignore[arg-type]


def run(*groups: Group, duration_s: float = 60.0, **fields: object) -> FleetOutcome:
    replicas = fields.pop("replicas", Replicas())
    return simulate_fleet(
        Fleet(groups, replicas, duration_s, **fields)  # type: ignore[arg-type]
    )


def test_every_request_of_every_edge_ends_once() -> None:
    outcome = run(group(Every(1.0)), group(Closed(0.5), name="others", count=3))
    table = outcome.table
    assert outcome.starts == (0, 20, 23)
    assert np.bincount(table.edge, minlength=23)[:20].tolist() == [60] * 20
    assert len(set(zip(table.edge.tolist(), table.due_s.tolist(), strict=True))) == len(table)


def test_a_shared_cloud_is_as_busy_as_its_work() -> None:
    """Twenty requests a second of 50 ms on two workers: half busy, and hardly a wait."""
    outcome = run(group(Poisson(1.0)), duration_s=600.0, replicas=Replicas(workers=2))
    found = operation(outcome, Prices(replica_hour=3.0, gigabyte=0.5))
    assert found.cloud.utilisation == pytest.approx(0.5, rel=0.05)
    # M/D/2 at half load waits about half as long as M/M/2, which waits a third of a service.
    assert found.total.wait_mean_s == pytest.approx(TAIL_S / 3 / 2, rel=0.15)
    moved = (found.cloud.uplink_nbytes + found.cloud.downlink_nbytes) / 1e9
    assert found.cloud.uplink_nbytes == 20_000 * found.total.requests
    assert found.cloud.cost == pytest.approx(600 / 3600 * 3.0 + moved * 0.5)
    assert sum(each.requests for each in found.timeline) == found.total.requests
    assert found.timeline[3].utilisation == pytest.approx(0.5, rel=0.3)


def test_a_cloud_too_small_refuses_and_the_edges_answer() -> None:
    outcome = run(group(Every(0.5), count=60), replicas=Replicas(most_queued=4))
    found = operation(outcome, Prices())
    assert found.cloud.utilisation > 0.98
    assert found.total.ends["edge-after-cloud-failed"] == found.cloud.refused > 0
    assert found.total.ends["failed"] == 0


def test_batches_serve_what_would_not_fit_one_by_one() -> None:
    busy = group(Poisson(1.0), count=60)
    alone = operation(run(busy, replicas=Replicas(workers=2)), Prices())
    batching = Batching(most=8, wait_s=0.01, marginal=0.1)
    together = operation(run(busy, replicas=Replicas(workers=2, batching=batching)), Prices())
    assert alone.cloud.refused > 0 == together.cloud.refused
    assert together.total.ends["cloud"] == together.total.requests


@pytest.mark.parametrize("balancing", ["round-robin", "least-outstanding", "power-of-two"])
def test_all_replicas_share_the_load(balancing: str) -> None:
    replicas = Replicas(count=4, balancing=balancing)  # type: ignore[arg-type]
    found = operation(run(group(Poisson(1.0), count=50), replicas=replicas), Prices())
    assert found.cloud.by_replica == pytest.approx([50 * TAIL_S / 4] * 4, rel=0.15)


def test_knowing_the_load_beats_taking_turns() -> None:
    waits_s: dict[str, float] = {}
    for balancing in ("round-robin", "least-outstanding", "power-of-two"):
        replicas = Replicas(count=8, balancing=balancing)
        scattered = group(Poisson(1.0), count=90, machine=Machine(sigma=0.8))
        found = operation(run(scattered, replicas=replicas, duration_s=120.0), Prices())
        waits_s[balancing] = found.total.wait_mean_s or 0.0
    assert waits_s["least-outstanding"] < waits_s["power-of-two"] < waits_s["round-robin"]


def test_a_replica_that_fails_takes_what_it_had_with_it_and_comes_back() -> None:
    failure = ReplicaFailure(0, at_s=20.0, lasts_s=10.0)
    outcome = run(
        group(Every(0.3)), replicas=Replicas(count=2, workers=4), replica_failures=(failure,)
    )
    found = operation(outcome, Prices())
    assert 0 < found.cloud.refused < 10  # only what ran or waited there
    assert found.total.ends["failed"] == 0
    first, second = found.cloud.by_replica
    assert first / second == pytest.approx(50 / 70, rel=0.05)


def test_links_that_fail_leave_the_edges_to_themselves() -> None:
    cut = LinkFailure("edges", at_s=20.0, lasts_s=20.0, share=0.5)
    outcome = run(
        group(Every(1.0), count=40), link_failures=(cut,), replicas=Replicas(workers=4)
    )
    table = outcome.table
    away = (table.due_s > 20) & (table.due_s < 40)
    alone = table.how == ENDS.index("edge-after-cloud-failed")
    assert len(table) == 40 * 60
    assert np.mean(alone[away]) == pytest.approx(0.5, abs=0.2)
    assert not alone[table.due_s > 41].any()


def test_autoscaling_follows_the_day() -> None:
    rule = Autoscaling(least=1, most=8, every_s=10.0, start_s=5.0)
    outcome = run(
        group(Diurnal(2.0, swing=0.9, period_s=1200.0), count=40),
        replicas=Replicas(autoscaling=rule, balancing="least-outstanding"),
        duration_s=1200.0,
    )
    counts = [look.replicas for look in outcome.looks]
    assert counts[0] == 1
    assert max(counts[5:15]) >= 6
    assert counts[-1] <= 3
    assert outcome.replica_s < 8 * 1200


def test_a_replica_that_comes_back_finds_its_place_taken() -> None:
    rule = Autoscaling(least=2, most=2, high=0.1, low=0.0, every_s=2.0, start_s=1.0)
    outcome = run(
        group(Every(0.3), count=4),
        replicas=Replicas(count=2, autoscaling=rule),
        replica_failures=(ReplicaFailure(0, at_s=10.0, lasts_s=20.0),),
        duration_s=60.0,
        interval_s=1.0,
    )
    counts = [look.replicas for look in outcome.looks]
    assert min(counts) == 1
    assert max(counts) == counts[-1] == 2
    assert len(outcome.busy_s) == 3


def test_policies_decide_for_each_edge() -> None:
    network = Network.of(condition("lte"), uplink=generate("lte", seed=1))
    adaptive = replace(group(Every(0.5), count=3, policy="adaptive"), network=network)
    plan = replace(group(Every(0.5), count=3, name="plan"), network=network)
    racing = replace(group(Every(0.5), count=3, name="race", policy="race"), network=network)
    found = operation(run(adaptive, plan, racing), Prices())
    assert found.groups["edges"].hedged > 0
    assert found.groups["plan"].switches == found.groups["plan"].hedged == 0
    race = found.groups["race"]
    # On a link that is suspect no race begins.
    assert race.hedged + race.ends["edge-after-cloud-failed"] == race.requests
    assert race.hedged > 0.9 * race.requests
    assert found.probe_nbytes > 0


def test_edges_alike_are_not_in_step() -> None:
    network = Network.of(condition("lte"), uplink=generate("lte", seed=1))
    apart = replace(group(Every(1.0), count=8), network=network, spread=0.5)
    table = run(apart).table
    means_s = [table.latency_s[table.edge == edge].mean() for edge in range(8)]
    assert len({round(float(mean_s), 6) for mean_s in means_s}) == 8


def test_the_same_fleet_gives_the_same_bytes() -> None:
    fleet = Fleet(
        (group(Poisson(2.0), policy="adaptive", machine=Machine(sigma=0.2)),),
        Replicas(count=3, balancing="power-of-two"),
        20.0,
        seed=4,
    )
    first, second = (simulate_fleet(fleet).table for _ in range(2))
    watched = simulate_fleet(fleet, progress=lambda share: None).table
    other = simulate_fleet(replace(fleet, seed=5)).table
    for table in (second, watched):
        assert table.latency_s.tobytes() == first.latency_s.tobytes()
        assert table.due_s.tobytes() == first.due_s.tobytes()
    assert other.due_s.tobytes() != first.due_s.tobytes()
