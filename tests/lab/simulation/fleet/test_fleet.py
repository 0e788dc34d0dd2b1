"""Fleets in virtual time: what edges share, and what fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.fleet.fleet import (
    Fleet,
    FleetOutcome,
    Group,
    LinkFailure,
    ReplicaFailure,
    simulate_fleet,
)
from midstream_lab.simulation.fleet.statistics import Prices, operation
from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import Arrivals, Closed, Diurnal, Every, Poisson
from midstream_lab.simulation.model.cloud import Autoscaling, Cloud, Replicas
from midstream_lab.simulation.model.link_spec import Network, steady
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.model.replica import Batching
from midstream_lab.simulation.model.request import Job
from midstream_lab.simulation.output.request_table import ENDS
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.generators import generate
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

WHOLE_S, TAIL_S = 0.4, 0.05
DEVICE = Device("edge", 1)
MENU = Menu(
    (
        Placement("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.0, TAIL_S, 20_000, 1000, WHOLE_S),
        Placement("edge-only", "raw", 1, "edge-only", False,
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


def test_nothing_that_was_due_is_dropped_however_late_it_ends() -> None:
    """Ten requests a second of 0.4 s each: the last of 600 ends after four minutes."""
    outcome = run(group(Every(0.1), count=2, policy="edge-only"))
    table = outcome.table
    assert np.bincount(table.edge).tolist() == [600, 600]
    assert (table.due_s + table.latency_s).max() == pytest.approx(600 * WHOLE_S, rel=0.01)
    assert outcome.replica_s == outcome.looks[-1].at_s == 60.0


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


def test_no_worker_computes_for_longer_than_there_is() -> None:
    """Five times as much as one worker can serve, most of it begun or waiting at the end."""
    slow = Replicas(slowdown=5.0)
    cloud = operation(run(group(Poisson(1.0)), replicas=slow, interval_s=7.0), Prices())
    shares = [*cloud.cloud.by_replica, cloud.cloud.utilisation]
    shares += [each.utilisation for each in cloud.timeline]
    assert max(shares) <= 1 + 1e-9
    assert min(shares[:2]) > 0.98


@pytest.mark.parametrize("interval_s", [7.0, 10.0, 25.0, 60.0])
def test_the_intervals_add_up_to_the_run(interval_s: float) -> None:
    found = operation(
        run(group(Poisson(1.0)), duration_s=31.0, interval_s=interval_s), Prices()
    )
    starts_s = [each.at_s for each in found.timeline]
    assert starts_s == pytest.approx([at * interval_s for at in range(len(starts_s))])
    widths_s = np.diff([*starts_s, 31.0])
    shares = [each.utilisation for each in found.timeline]
    assert widths_s @ shares == pytest.approx(31.0 * found.cloud.utilisation)
    assert sum(each.requests for each in found.timeline) == found.total.requests


@dataclass
class Told:
    """A stand-in for an edge: what the cloud says of its requests, and when."""

    core: Core
    index: int = 0
    replies: list[tuple[int, float]] = field(default_factory=list)
    refusals: list[tuple[int, float]] = field(default_factory=list)

    def reply(self, job: Job) -> None:
        self.replies.append((job.id, self.core.now_s))

    def refuse(self, job: Job) -> None:
        self.refusals.append((job.id, self.core.now_s))


def asked(
    count: int, then: Callable[[Cloud, list[Job]], object], **fields: object
) -> tuple[Cloud, Told]:
    """`count` requests of a second each come at once; `then` happens half a second later."""
    core = Core()
    cloud = Cloud(core, Replicas(**fields), Draws(1))  # type: ignore[arg-type]
    told = Told(core)
    jobs = [Job(told, number, 0.0) for number in range(count)]
    for job in jobs:
        job.service_s = 1.0
        cloud.arrive(job)
    core.at(0.5, lambda _: then(cloud, jobs))
    core.run(10.0)
    return cloud, told


def test_a_crash_tells_all_edges_at_once() -> None:
    cloud, told = asked(3, lambda cloud, _: cloud.fail(0))
    assert told.refusals == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert (told.replies, cloud.refused, cloud.busy_s) == ([], 3, 0.5)


def test_a_request_that_is_cancelled_while_it_waits_is_not_served() -> None:
    cloud, told = asked(3, lambda cloud, jobs: cloud.cancel(jobs[1]))
    assert told.replies == [(0, 1.0), (2, 2.0)]
    assert (cloud.busy_s, cloud.replicas[0].load) == (2.0, 0)


def test_a_request_that_is_cancelled_while_it_runs_frees_its_worker() -> None:
    cloud, told = asked(2, lambda cloud, jobs: cloud.cancel(jobs[0]))
    assert told.replies == [(1, 1.5)]
    assert (cloud.busy_s, cloud.replicas[0].load) == (1.5, 0)


def test_a_batch_goes_on_for_those_who_still_wait() -> None:
    batching = Batching(most=3, marginal=1.0)

    def leave(cloud: Cloud, jobs: list[Job]) -> None:
        for job in jobs[1:3]:
            cloud.cancel(job)

    cloud, told = asked(4, leave, batching=batching)
    # The first ran alone at once; of the batch of three one is left.
    assert told.replies == [(0, 1.0), (3, 2.0)]
    assert (cloud.busy_s, cloud.replicas[0].load) == (2.0, 0)


def test_what_a_whole_batch_no_longer_waits_for_stops() -> None:
    def leave(cloud: Cloud, jobs: list[Job]) -> None:
        cloud.cancel(jobs[0])
        cloud.cancel(jobs[0])  # told twice

    cloud, told = asked(3, leave, batching=Batching(most=2, marginal=1.0))
    assert told.replies == [(1, 2.5), (2, 2.5)]
    assert cloud.busy_s == 2.5


def test_a_cancellation_after_the_answer_is_for_nobody() -> None:
    core = Core()
    cloud, told = Cloud(core, Replicas(), Draws(1)), Told(core)
    job = Job(told, 0, 0.0)
    cloud.arrive(job)
    core.run()
    cloud.cancel(job)
    cloud.cancel(Job(told, 1, 0.0))  # it never arrived
    assert (told.replies, cloud.replicas[0].load) == ([(0, 0.0)], 0)


def test_a_replica_that_is_retired_ends_what_it_has_and_is_counted_until_then() -> None:
    cloud, told = asked(2, lambda cloud, _: cloud.replicas[0].retire())
    replica = cloud.replicas[0]
    assert told.replies == [(0, 1.0), (1, 2.0)]
    assert (replica.gone_s, replica.there_s, replica.up_s, replica.busy_s) == (2.0,) * 4


@given(
    st.lists(st.tuples(st.sampled_from("tttcfr"), st.floats(0.0, 2.0)), max_size=60),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_whatever_happens_work_ends_once_and_workers_compute_one_thing_at_a_time(
    events: list[tuple[str, float]], workers: int, most: int
) -> None:
    """Requests come, are cancelled, replicas fail and come back, in any order."""
    core = Core()
    batching = Batching(most=most, wait_s=0.2, marginal=0.5)
    cloud = Cloud(core, Replicas(2, workers, batching=batching, most_queued=3), Draws(1))
    told, jobs = Told(core), list[Job]()
    cancelled = set[int]()

    def happen(kind: str) -> None:
        ended = {number for number, _ in told.replies + told.refusals}
        if kind == "t":
            jobs.append(Job(told, len(jobs), core.now_s))
            jobs[-1].service_s = 0.3 + 0.2 * (len(jobs) % 3)
            jobs[-1].kind = len(jobs) % 2
            cloud.arrive(jobs[-1])
        elif kind == "c" and jobs:
            job = jobs[len(jobs) // 2]
            cloud.cancel(job)
            cancelled.update({job.id} - ended)
        elif kind == "f":
            cloud.fail(len(jobs) % 2)
        elif kind == "r" and cloud.replicas[len(jobs) % 2].holds:
            cloud.recover(len(jobs) % 2)
        assert cloud.busy_s <= cloud.up_s * workers + 1e-9
        for replica in cloud.replicas:
            assert 0 <= replica.load - replica.waiting <= workers * most

    for kind, at_s in events:
        core.at(at_s, happen, kind)
    core.run(100.0)
    ended = [number for number, _ in told.replies + told.refusals] + list(cancelled)
    assert sorted(ended) == [job.id for job in jobs]
    assert [replica.load for replica in cloud.replicas] == [0, 0]
    assert cloud.busy_s <= cloud.up_s * workers + 1e-9


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


def test_a_replica_is_back_when_the_last_of_its_failures_has_ended() -> None:
    failures = (ReplicaFailure(0, 10.0, 30.0), ReplicaFailure(0, 20.0, 5.0))
    outcome = run(
        group(Every(0.5)),
        replicas=Replicas(count=2, workers=4),
        replica_failures=failures,
        interval_s=10.0,
    )
    assert [look.replicas for look in outcome.looks] == [2, 1, 1, 1, 2, 2, 2]
    assert outcome.downs == (ReplicaFailure(0, 10.0, 30.0),)
    assert outcome.looks[-1].up_s == pytest.approx(2 * 60 - 30)
    assert outcome.replica_s == 2 * 60


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


def test_autoscaling_replaces_replicas_that_have_all_crashed() -> None:
    rule = Autoscaling(least=2, most=8, every_s=10.0, start_s=1.0)
    outcome = run(
        group(Poisson(1.0), count=4),
        replicas=Replicas(count=2, autoscaling=rule),
        replica_failures=tuple(ReplicaFailure(at, 15.0, 1000.0) for at in range(2)),
        interval_s=10.0,
    )
    assert [look.replicas for look in outcome.looks] == [2, 2, 0, 2, 2, 2, 2]


def test_replicas_start_beside_each_other() -> None:
    rule = Autoscaling(least=1, most=6, every_s=5.0, start_s=30.0)
    outcome = run(
        group(Every(0.2), count=40), replicas=Replicas(autoscaling=rule), interval_s=30.0
    )
    # From 35 s on one every 5 s, as each was asked for.
    assert [look.replicas for look in outcome.looks] == [1, 1, 6]


def test_a_replica_that_autoscaling_took_away_cannot_fail() -> None:
    rule = Autoscaling(least=1, most=2, every_s=10.0)
    outcome = run(
        group(Poisson(1.0), count=1),
        replicas=Replicas(count=2, autoscaling=rule),
        replica_failures=(ReplicaFailure(1, 30.0, 10.0),),
    )
    assert outcome.downs == ()
    assert outcome.replica_s == pytest.approx(60 + 10)


def failing(failure: ReplicaFailure | LinkFailure) -> object:
    if isinstance(failure, LinkFailure):
        return run(group(Every(1.0)), link_failures=(failure,))
    return run(group(Every(1.0)), replica_failures=(failure,))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Replicas(1, autoscaling=Autoscaling(4, 8)), "with 4 to 8 replicas.*not 1"),
        (lambda: Replicas(9, autoscaling=Autoscaling(4, 8)), "with 4 to 8 replicas.*not 9"),
        (lambda: ReplicaFailure(0, -1.0, 5.0), "begin at 0 s or later"),
        (lambda: LinkFailure("edges", 1.0, 0.0), "and last"),
        (lambda: failing(ReplicaFailure(1, 1.0, 1.0)), "0 to 0 .not 1"),
        (lambda: failing(LinkFailure("drones", 1.0, 1.0)), "in edges .not 'd"),
        (lambda: run(interval_s=1e-5), "at most 100,000 intervals"),
    ],
)
def test_what_no_fleet_can_be_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


@pytest.mark.parametrize(
    ("edge", "cloud", "rate_bps", "chosen"),
    [
        (1.0, 1.0, 50e6, "cloud-only"),
        (1.0, 20.0, 50e6, "edge-only"),
        (1.0, 1.0, 0.2e6, "edge-only"),
        (16.0, 1.0, 0.2e6, "cloud-only"),
    ],
)
def test_a_plan_knows_how_slow_both_machines_are(
    edge: float, cloud: float, rate_bps: float, chosen: str
) -> None:
    network = Network(steady(rate_bps), steady(rate_bps), 0.02)
    planned = replace(group(Every(20.0), machine=Machine(edge)), network=network)
    found = operation(run(planned, replicas=Replicas(slowdown=cloud)), Prices())
    assert [each.cut for each in found.total.placements] == [chosen]


#: 2 W idle, 6 W computing, 4 W sending, 3 W receiving.
METERED = Device("edge", 1, active_w=6.0, idle_w=2.0, tx_w=4.0, rx_w=3.0)


def test_edges_draw_idle_power_all_the_time_and_computing_comes_on_top() -> None:
    alone = replace(group(Every(1.0), count=3, policy="edge-only"), device=METERED)
    others = replace(group(Every(2.0), name="others", policy="edge-only"), device=METERED)
    found = operation(run(alone, others), Prices())
    assert found.energies["edges"].mean_w == pytest.approx(2.0 + 4.0 * WHOLE_S, rel=0.01)
    assert found.energies["edges"].request_j == pytest.approx(4.0 * WHOLE_S)
    assert found.energies["others"].mean_w == pytest.approx(2.0 + 2.0 * WHOLE_S, rel=0.01)
    joules = [each.edges_j for each in found.energies.values()]
    assert found.energy.edges_j == pytest.approx(sum(joules))
    assert found.energy.request_j == pytest.approx(4.0 * WHOLE_S)
    assert found.total.energy_j is None


def test_requests_that_wait_beside_each_other_draw_no_more_than_a_device_can() -> None:
    """Six payloads a second over a link that carries them and a round trip of a second."""
    network = Network(steady(1e6), steady(1e6), 1.0)
    busy = replace(
        group(Every(1 / 6), count=1, policy="fixed:cloud-only:jpeg:90"),
        network=network,
        device=METERED,
    )
    outcome = run(busy)
    found = operation(outcome, Prices())
    air_s, reply_s = (float(each.sum()) for each in (outcome.table.air_s,
                                                     outcome.table.reply_air_s))  # fmt: skip
    encoding_s = 0.002 * found.total.requests
    assert outcome.table.energy_j(METERED).sum() / 60 > 6.0  # each waits with all its power
    added_j = 4.0 * encoding_s + 2.0 * air_s + 1.0 * reply_s
    assert found.energy.request_j == pytest.approx(added_j / found.total.requests, rel=1e-4)
    assert 2.0 < found.energy.mean_w < 6.0


def test_an_edge_that_ends_later_than_the_run_idles_until_then() -> None:
    late = replace(group(Every(0.1), count=1, policy="edge-only"), device=METERED)
    energy = operation(run(late), Prices()).energy
    assert energy.mean_w == pytest.approx(6.0, rel=0.01)
    assert energy.edges_j == pytest.approx(6.0 * 600 * WHOLE_S, rel=0.01)


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


def test_a_race_that_the_edge_has_won_frees_the_cloud() -> None:
    slow = Replicas(slowdown=20.0)  # a second each, and the edge needs less than half
    outcome = run(group(Every(2.0), count=1, policy="race"), replicas=slow)
    assert set(outcome.table.how.tolist()) == {ENDS.index("edge-before-cloud")}
    assert sum(outcome.busy_s) == pytest.approx(30 * WHOLE_S, rel=0.1)


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
