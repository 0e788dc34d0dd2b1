"""A pair in virtual time: its arithmetic by hand, and what a session promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.model.arrivals import Every, Poisson
from midstream_lab.simulation.model.cloud import Replicas
from midstream_lab.simulation.model.link_spec import Network, steady
from midstream_lab.simulation.model.machine import FixedPlacement, Machine
from midstream_lab.simulation.model.workload import Cut
from midstream_lab.simulation.output.request_table import ENDS, rows
from midstream_lab.simulation.output.statistics import figures
from midstream_lab.simulation.pair.pair import Outcome, Setting, simulate_pair
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.generators import generate
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError
from midstream_wire.limits import MAX_IN_FLIGHT

DEVICE = Device("edge", 1, active_w=6.0, idle_w=2.0, tx_w=4.0, rx_w=3.0)
WHOLE_S = 0.25


def placement(
    cut: str, codec: str, k: int, *times: float, sizes: tuple[int, int]
) -> Placement:
    head_s, encode_s, decode_s, tail_s = times
    return Placement(
        cut, codec, k, f"{cut} {codec}", cut != "edge-only",
        head_s, encode_s, decode_s, tail_s, *sizes, WHOLE_S - head_s,
    )  # fmt: skip


MENU = Menu(
    (
        placement("cloud-only", "raw", 0, 0.0, 0.0005, 0.0003, 0.03, sizes=(600_000, 4000)),
        placement("cloud-only", "jpeg:90", 0, 0.0, 0.004, 0.003, 0.03, sizes=(40_000, 4000)),
        placement("c10", "half", 1, 0.08, 0.002, 0.001, 0.02, sizes=(10_000, 4000)),
        placement("edge-only", "raw", 2, WHOLE_S, 0.0, 0.0, 0.0, sizes=(0, 0)),
    )
)
JPEG, MIDDLE, ALONE = 1, 2, 3


def lasting(network: Network, duration_s: float = 20.0, **fields: object) -> Setting:
    return Setting(network, DEVICE, duration_s=duration_s, **fields)  # type: ignore[arg-type]


def even(rate_bps: float, rtt_s: float = 0.02) -> Network:
    return Network(steady(rate_bps), steady(rate_bps), rtt_s, fixed_s=0.0)


def ends(outcome: Outcome) -> dict[str, int]:
    counts = np.bincount(outcome.table.how, minlength=len(ENDS))
    return {name: int(count) for name, count in zip(ENDS, counts, strict=True) if count}


def test_a_request_takes_the_sum_of_its_stages() -> None:
    found = simulate_pair(MENU, "fixed:c10:half", lasting(even(8e6), 1.0)).table
    stages_s = [0.08, 0.002, 0.01 + 0.01, 0.0, 0.001, 0.02, 0.004 + 0.01]
    assert found.stages_s[0] == pytest.approx(stages_s)
    assert found.latency_s[0] == pytest.approx(sum(stages_s))
    assert found.busy_s[0] == pytest.approx(0.082)
    # Computing, 10 ms of sending, 4 ms of receiving, and the rest of it waiting.
    joules = 0.082 * 6 + 0.01 * 4 + 0.004 * 3 + (sum(stages_s) - 0.082 - 0.014) * 2
    assert found.energy_j(DEVICE)[0] == pytest.approx(joules, rel=1e-5)


def test_edge_only_knows_no_link() -> None:
    found = simulate_pair(MENU, "edge-only", lasting(even(1e4), 5.0))
    assert ends(found) == {"edge": 20}
    assert found.table.latency_s == pytest.approx(WHOLE_S)
    assert (found.table.payload_nbytes.sum(), found.switches) == (0, 0)


def test_requests_that_come_too_fast_wait_and_it_shows() -> None:
    found = simulate_pair(
        MENU, "edge-only", lasting(even(1e6), 5.0, arrivals=Every(WHOLE_S / 2))
    )
    assert len(found.table) == 40
    assert found.table.latency_s[-1] == pytest.approx(WHOLE_S * (1 + 39 / 2), rel=0.02)
    assert found.table.stay_s[-1] == pytest.approx(WHOLE_S)


def test_every_request_that_was_due_is_answered_however_late() -> None:
    found = simulate_pair(MENU, "edge-only", lasting(even(1e6), 60.0, arrivals=Every(0.1)))
    assert len(found.table) == 600
    assert found.table.latency_s.max() == pytest.approx(600 * WHOLE_S - 59.9, rel=0.01)


def test_a_session_takes_so_many_requests_at_a_time_and_the_others_wait() -> None:
    """Otherwise one that begins late would not find the answers of those before it."""
    setting = lasting(even(1e6, rtt_s=1.0), 10.0, arrivals=Every(0.1))
    found = simulate_pair(MENU, "fixed:cloud-only:jpeg", setting).table
    begun_s = found.due_s + found.latency_s - found.stay_s
    ended_s = found.due_s + found.latency_s
    most = max(int(((begun_s <= at_s) & (ended_s > at_s)).sum()) for at_s in begun_s + 1e-3)
    assert most == MAX_IN_FLIGHT


def test_heads_of_later_requests_run_while_earlier_ones_are_away() -> None:
    setting = lasting(even(8e6), 5.0, arrivals=Every(0.1))
    found = simulate_pair(MENU, "fixed:c10:half", setting).table
    assert found.latency_s == pytest.approx(found.latency_s[0], rel=1e-3)
    assert found.latency_s[0] > 0.1


def test_a_hedge_bounds_what_a_dead_link_costs() -> None:
    trace = Trace("dies", (0.0, 5.0, 100.0), (50e6, 0.0))
    found = simulate_pair(MENU, "adaptive", lasting(Network(trace, trace, 0.02)))
    assert len(found.table) == sum(ends(found).values())
    assert found.table.latency_s.max() <= 1.25 * WHOLE_S + 0.05
    assert {"cloud", "edge-before-cloud"} <= ends(found).keys()


def test_racing_answers_with_whoever_is_first() -> None:
    quick = simulate_pair(MENU, "race", lasting(even(50e6)))
    assert ends(quick).keys() == {"cloud"}
    slow = simulate_pair(MENU, "race", lasting(even(1e6)))
    assert ends(slow).keys() == {"edge-before-cloud"}
    assert slow.table.latency_s == pytest.approx(WHOLE_S)
    assert slow.hedges == len(slow.table)


def test_a_payload_that_lost_the_race_is_not_sent_to_its_end() -> None:
    """600 KB take 4.8 s at 1 Mbit/s, and the edge has answered after 0.25 s."""
    found = simulate_pair(MENU, FixedPlacement(0, 0.0), lasting(even(1e6)))
    assert ends(found) == {"edge-before-cloud": 80}
    assert 0.8 * 20 * 1e6 / 8 < found.uplink_nbytes < 22 * 1e6 / 8
    assert found.table.payload_nbytes.sum() == found.uplink_nbytes


def test_a_deadline_that_the_edge_would_miss_is_tried_on_both_sides() -> None:
    """As sessions do: whoever can still make it."""
    found = simulate_pair(MENU, "cloud-only:jpeg", lasting(even(50e6), deadline_s=0.2))
    assert ends(found).keys() == {"cloud"}
    assert found.hedges == len(found.table)
    slow = simulate_pair(MENU, "cloud-only:jpeg", lasting(even(0.5e6), deadline_s=0.2))
    assert ends(slow).keys() == {"edge-before-cloud"}


def test_a_policy_hears_how_long_the_cloud_takes() -> None:
    slow = Replicas(slowdown=20.0)
    found = simulate_pair(MENU, "adaptive-nohedge", lasting(even(50e6), replicas=slow)).table
    assert (found.placement[5:] == ALONE).mean() > 0.9


def test_a_dead_downlink_is_suspect_like_a_dead_uplink() -> None:
    dies = Trace("dies", (0.0, 5.0, 15.0, 40.0), (20e6, 0.0, 20e6))
    lives = steady(20e6)
    for up, down in ((dies, lives), (lives, dies)):
        setting = lasting(Network(up, down, 0.05), arrivals=Every(0.3))
        found = simulate_pair(MENU, "fixed:cloud-only:jpeg", setting).table
        dead = (found.due_s > 6) & (found.due_s < 15)
        assert np.median(found.latency_s[dead]) == pytest.approx(WHOLE_S)


def test_a_link_is_back_when_the_last_of_its_cuts_has_ended() -> None:
    setting = lasting(even(50e6), cuts=(Cut(2.0, 3.0), Cut(4.0, 10.0)))
    found = simulate_pair(MENU, "fixed:cloud-only:jpeg", setting).table
    by_cloud = found.due_s[found.how == ENDS.index("cloud")]
    assert not ((by_cloud > 2) & (by_cloud < 14)).any()
    assert (by_cloud > 14.5).sum() > 20


def test_a_link_that_never_carries_anything_leaves_all_to_the_edge() -> None:
    dead = Network(Trace("dead", (0.0, 1.0), (0.0,)), steady(5e6), 0.02)
    for policy in ("oracle", "adaptive", "edge-only", "race", "ewma"):
        found = simulate_pair(MENU, policy, lasting(dead))
        assert "cloud" not in ends(found)


def test_a_link_that_is_cut_loses_no_request() -> None:
    cuts = tuple(Cut(at_s, 0.8) for at_s in range(1, 19, 2))
    for policy in ("adaptive", "race", "fixed:c10:half"):
        setting = lasting(even(20e6), arrivals=Every(0.3), cuts=cuts)
        found = simulate_pair(MENU, policy, setting)
        assert len(found.table) == len(set(found.table.due_s.tolist())) in (66, 67)
        assert "failed" not in ends(found)
        assert ends(found)["cloud"] > 10


def slow_edge(whole_s: float) -> Menu:
    """Only the cloud is quick; a request without a head, one with, and none of the cloud's."""
    return Menu(
        tuple(
            replace(each, head_s=each.head_s if each.remote else whole_s, rest_s=whole_s)
            for each in MENU.placements
        )
    )


def test_what_failed_goes_out_again_where_that_is_sooner_than_the_edge() -> None:
    """The link is cut from 5 s to 5.5 s and up 0.35 s later; the edge would take 3 s."""
    setting = lasting(even(20e6), 12.0, arrivals=Every(0.25), cuts=(Cut(5.0, 0.5),))
    found = simulate_pair(slow_edge(3.0), FixedPlacement(JPEG), setting)
    assert ends(found) == {"cloud": 48}
    caught = (found.table.due_s > 4.9) & (found.table.due_s < 5.8)
    assert found.table.due_s[caught] + found.table.latency_s[caught] == pytest.approx(
        5.95, abs=0.1
    )
    quick = simulate_pair(slow_edge(0.1), FixedPlacement(JPEG), setting)
    assert ends(quick)["edge-after-cloud-failed"] >= 3


def test_a_request_without_a_head_waits_for_no_local_rest() -> None:
    """Every request races, so that one's rest runs when the next one comes."""
    setting = lasting(even(50e6), 4.0, arrivals=Every(0.04))
    headless = simulate_pair(MENU, FixedPlacement(JPEG, 0.0), setting).table.latency_s
    assert headless[0] > 0.05
    assert headless == pytest.approx(headless[0], rel=0.02)
    setting = lasting(even(50e6), 4.0, arrivals=Every(0.1))
    headed = simulate_pair(MENU, FixedPlacement(MIDDLE, 0.0), setting).table.latency_s
    assert headed[-1] > headed[0] + 0.02


def test_a_request_whose_turn_comes_too_late_fails_at_its_deadline() -> None:
    setting = lasting(even(1e6), 2.0, arrivals=Every(WHOLE_S / 2), deadline_s=0.4)
    found = simulate_pair(MENU, FixedPlacement(ALONE), setting)
    failed = found.table.how == ENDS.index("failed")
    assert failed.any()
    assert found.table.latency_s[failed] == pytest.approx(0.4)
    assert found.table.latency_s[~failed].max() <= 0.4 + WHOLE_S


@pytest.mark.parametrize(
    ("rate_bps", "workers"), [(2e6, 1), (8e6, 2), (50e6, 1), (50e6, 2), (50e6, 4)]
)
def test_choosing_for_every_request_costs_no_throughput(rate_bps: float, workers: int) -> None:
    """With the window full: against each plan that stays, by answers a second."""
    menu = Menu(MENU.placements, objective="throughput")
    replicas = Replicas(workers=workers)
    setting = lasting(even(rate_bps), 6.0, arrivals=Every(0.008), replicas=replicas)

    def answered(policy: str | FixedPlacement) -> int:
        table = simulate_pair(menu, policy, setting).table
        ended_s = table.due_s + table.latency_s
        return int(((ended_s > 2.0) & (ended_s <= 6.0)).sum())

    best = max(answered(FixedPlacement(index)) for index in range(len(MENU.placements)))
    assert answered("adaptive") >= 0.97 * best


def test_a_silent_link_is_given_up_and_requests_stay_here_until_it_is_back() -> None:
    """As sessions do: suspect after 0.3 s, given up 3 s later, up again behind what waited."""
    trace = Trace("silent", (0.0, 5.0, 12.0, 100.0), (8e6, 0.0, 8e6))
    found = simulate_pair(MENU, "fixed:c10:half", lasting(Network(trace, trace, 0.02))).table
    failed = found.how == ENDS.index("edge-after-cloud-failed")
    due_s, latency_s = found.due_s[failed], found.latency_s[failed]
    assert 4.8 < due_s[0] < 5.1
    assert due_s[0] + latency_s[0] == pytest.approx(5.09 + 0.3 + 3 + 0.17, abs=0.15)
    assert latency_s[1:] == pytest.approx(WHOLE_S)  # no other one waits for the link
    assert 11.9 < due_s[-1] + latency_s[-1] < 12.3
    assert (found.how[found.due_s > 12.3] == ENDS.index("cloud")).all()


def test_a_trickle_is_suspect_once_an_answer_is_overdue() -> None:
    """A packet every six seconds is no silence, and no reason to hope for the next request."""
    trace = Trace("trickle", (0.0, 5.0, 20.0, 100.0), (8e6, 2e3, 8e6))
    setting = lasting(Network(trace, trace, 0.02), 25.0, timeout_s=2.0)
    found = simulate_pair(MENU, "fixed:c10:half", setting).table
    failed = found.how == ENDS.index("edge-after-cloud-failed")
    due_s, latency_s = found.due_s[failed], found.latency_s[failed]
    assert latency_s.max() < 2.5
    assert latency_s[1:4] == pytest.approx(WHOLE_S)
    assert 5 < due_s[1] < 7.5
    assert (found.how[found.due_s > 20.5] == ENDS.index("cloud")).all()


def test_an_edge_that_cannot_finish_alone_fails_what_the_cloud_does_not_answer() -> None:
    parted = Menu(tuple(replace(each, rest_s=None) for each in MENU.placements[:3]))
    setting = lasting(even(20e6), cuts=(Cut(2.0, 1.0),))
    found = simulate_pair(parted, "fixed:c10:half", setting)
    assert ends(found).keys() == {"cloud", "failed"}


def test_a_refusal_sends_the_rest_back_to_the_edge() -> None:
    slow = Replicas(slowdown=100.0, most_queued=1)
    setting = lasting(even(50e6), arrivals=Every(0.3), replicas=slow)
    found = simulate_pair(MENU, "fixed:c10:half", setting)
    assert ends(found)["edge-after-cloud-failed"] > 50


def test_the_policy_follows_the_link() -> None:
    trace = Trace("steps", (0.0, 20.0, 40.0), (50e6, 0.3e6))
    found = simulate_pair(MENU, "adaptive", lasting(Network(trace, trace, 0.02), 40.0)).table
    assert set(found.placement[found.due_s < 20].tolist()) == {JPEG}
    # On the edge at once, or beside a hopeless transfer: it takes as long.
    assert found.latency_s[found.due_s > 21].max() == pytest.approx(WHOLE_S)
    found = simulate_pair(MENU, "adaptive", lasting(Network(trace, trace, 0.02), 60.0)).table
    assert np.mean(found.placement[found.due_s > 42] == JPEG) > 0.95


def test_no_policy_beats_the_oracle_without_hedging() -> None:
    network = Network.of(condition("lte"), uplink=generate("lte", seed=2, duration_s=60.0))
    setting = lasting(network, 60.0, arrivals=Every(0.4))
    names = ("oracle", "adaptive-nohedge", "edge-only", "cloud-only:jpeg", "ewma", "harmonic")
    means = {n: simulate_pair(MENU, n, setting).table.latency_s.mean() for n in names}
    assert min(means, key=means.__getitem__) == "oracle"


def test_an_edge_that_nobody_uses_does_not_probe() -> None:
    setting = lasting(even(5e6), 300.0, arrivals=Every(100.0))
    found = simulate_pair(MENU, "adaptive", setting)
    assert 0 < found.probe_nbytes < 3 * 10 * 0.13e6 / 8 + 3 * 3 * 0.13e6 / 8


def test_probes_keep_to_their_budget() -> None:
    found = simulate_pair(MENU, "adaptive", lasting(even(0.2e6), 60.0))
    assert 0 < found.probe_nbytes <= 0.13e6 / 8 * 62


@pytest.mark.parametrize("policy", ["adaptive", "race", "linucb", "oracle"])
def test_the_same_seed_gives_the_same_bytes(policy: str) -> None:
    def run(seed: int) -> str:
        network = Network.of(condition("lte"), uplink=generate("lte", seed=1), jitter_s=0.003)
        setting = lasting(
            network, arrivals=Poisson(3.0), seed=seed, machine=Machine(sigma=0.1)
        )
        table = simulate_pair(MENU, policy, setting).table
        return json.dumps(list(rows(table, MENU.placements)))

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_figures_say_who_answered_and_what_was_missed() -> None:
    outcome = simulate_pair(MENU, "edge-only", lasting(even(1e6), 5.0))
    found = figures(outcome.table, MENU.placements, DEVICE, deadline_s=0.2)
    assert (found.requests, found.answered, found.missed) == (20, 20, 1.0)
    assert found.energy_j == pytest.approx(WHOLE_S * 6.0, rel=1e-5)
    assert [(each.cut, each.share) for each in found.placements] == [("edge-only", 1.0)]
    assert found.ends["edge"] == 20


def test_rows_are_records_of_requests() -> None:
    outcome = simulate_pair(MENU, "cloud-only:jpeg", lasting(even(8e6), 1.0))
    first = next(rows(outcome.table, MENU.placements))
    assert (first["where"], first["cut"], first["codec"]) == ("cloud", "cloud-only", "jpeg:90")
    assert list(first["timings"]) == [*FIELDS, "total_s"]
    assert first["timings"]["total_s"] == pytest.approx(first["latency_s"])


def test_a_setting_must_be_one_that_can_be() -> None:
    with pytest.raises(UsageError, match="must last"):
        lasting(even(1e6), 0.0)
    with pytest.raises(UsageError, match="cut must begin"):
        Cut(-1.0, 1.0)
    with pytest.raises(UsageError, match="policy must be one of"):
        simulate_pair(MENU, "clever", lasting(even(1e6)))
