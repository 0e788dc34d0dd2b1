"""What policies choose: from hand-made menus, and in the fluid model of the benchmark."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.adaptive import Adaptive
from midstream_edge.policies.interface import Decision, Evidence, Policy, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Conditions, Menu
from midstream_edge.policies.oracle import Curve, Oracle
from midstream_edge.policies.registry import POLICIES, policy
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

DEVICE = Device("bench", 1)
LINK = Link(10e6, 50e6, 0.02)
EDGE_S = 0.3
NAMES = (
    "adaptive",
    "adaptive-nohedge",
    "adaptive-race",
    "race",
    "fixed:c2-bbbbbb:half",
    "edge-only",
    "cloud-only",
    "cloud-only:jpeg",
    "periodic:5s",
    "ewma",
    "harmonic",
    "linucb",
    "oracle",
)


def placement(
    cut: str, codec: str, k: int, *, head_s: float, nbytes: int, complete: bool = True
) -> Placement:
    remote = cut != "edge-only"
    return Placement(
        cut=cut,
        codec=codec,
        k=k,
        label=cut,
        remote=remote,
        head_s=head_s,
        encode_s=0.002 if remote else 0.0,
        decode_s=0.001 if remote else 0.0,
        tail_s=(EDGE_S - head_s) / 8,
        payload_nbytes=nbytes,
        reply_nbytes=4000 if remote else 0,
        rest_s=EDGE_S - head_s if complete else None,
    )


def menu_of(*, complete: bool = True, objective: str = "latency") -> Menu:
    """Sizes and times fall and grow along the chain; edge-only comes last."""
    placements = [
        placement("cloud-only", "raw", 0, head_s=0.0, nbytes=150_000, complete=complete),
        placement("cloud-only", "jpeg:90", 0, head_s=0.0, nbytes=60_000, complete=complete),
        placement("c2-bbbbbb", "half", 1, head_s=0.08, nbytes=25_000, complete=complete),
        placement("c4-cccccc", "half", 2, head_s=0.2, nbytes=6_000, complete=complete),
    ]
    if complete:
        placements.append(placement("edge-only", "raw", 3, head_s=EDGE_S, nbytes=0))
    return Menu(tuple(placements), objective)


MENU = menu_of()
CURVE = Curve(np.arange(0.0, 5.0), np.array([1e6, 20e6, 0.0, 5e6]), 0.0)


def made(name: str, menu: Menu = MENU, link: Link = LINK) -> Policy:
    return policy(name, menu, link=link, device=DEVICE, curve=CURVE)


def at_rate(uplink_bps: float) -> Link:
    return replace(LINK, uplink_bps=uplink_bps)


# Choices.


@pytest.mark.parametrize("name", ["adaptive", "adaptive-nohedge", "ewma", "harmonic"])
def test_the_choice_follows_the_link(name: str) -> None:
    def chosen(rate_bps: float) -> int:
        return MENU.placements[
            made(name, link=at_rate(rate_bps)).decide(Situation(0.0)).placement
        ].k

    ks = [chosen(rate_bps) for rate_bps in (1e5, 1e6, 4e6, 20e6, 1e9)]
    assert ks[0] == 3
    assert ks[-1] == 0
    assert ks == sorted(ks, reverse=True)


@pytest.mark.parametrize("link", ["suspect", "down"])
@pytest.mark.parametrize(
    "name", ["adaptive", "adaptive-nohedge", "adaptive-race", "ewma", "linucb", "oracle"]
)
def test_a_link_that_is_not_well_means_edge_only_at_once(name: str, link: Any) -> None:
    decision = made(name, link=at_rate(1e9)).decide(Situation(1.0, link=link, current=0))
    assert decision.placement == MENU.edge_only
    assert decision.hedge_after_s is None


def test_an_edge_without_all_segments_goes_on_asking_the_cloud() -> None:
    menu = menu_of(complete=False)
    decision = made("adaptive", menu).decide(Situation(1.0, link="down"))
    assert menu.placements[decision.placement].remote
    assert decision.hedge_after_s is None


def test_a_small_gain_does_not_switch() -> None:
    estimates = MENU.totals_s(LinkBelief.of(LINK).conditions())
    best, second = np.argsort(estimates)[:2]
    rates = np.geomspace(1e5, 1e9, 400)
    switched = 0
    for rate_bps in rates:
        chosen = made("adaptive-nohedge", link=at_rate(float(rate_bps)))
        free = chosen.decide(Situation(0.0)).placement
        for current in range(len(MENU)):
            kept = chosen.decide(Situation(0.0, current=current)).placement
            assert kept in (current, free)
            switched += kept != free
    assert switched > 0
    assert best != second


def test_a_deadline_prefers_what_is_less_at_the_mercy_of_the_link() -> None:
    noisy = Adaptive(MENU, replace(LinkBelief.of(at_rate(2e6)), variance=0.5), DEVICE, "never")
    risky = noisy.decide(Situation(0.0)).placement
    safe = noisy.decide(Situation(0.0, deadline_s=EDGE_S * 1.01)).placement
    assert MENU.placements[safe].payload_nbytes < MENU.placements[risky].payload_nbytes


def test_waiting_requests_move_work_off_a_busy_edge() -> None:
    chosen = made("adaptive-nohedge", link=at_rate(1.2e6))
    alone = MENU.placements[chosen.decide(Situation(0.0)).placement]
    crowded = MENU.placements[chosen.decide(Situation(0.0, waiting=10)).placement]
    assert crowded.head_s < alone.head_s


def test_a_backlog_makes_the_cloud_less_attractive() -> None:
    chosen = made("adaptive-nohedge", link=at_rate(20e6))
    assert MENU.placements[chosen.decide(Situation(0.0)).placement].remote
    held = chosen.decide(Situation(0.0, backlog_nbytes=2_000_000))
    assert held.placement == MENU.edge_only


@pytest.mark.parametrize("rate_bps", [2e5, 1e6, 3e6, 10e6, 100e6])
def test_energy_as_the_objective_takes_the_option_that_draws_least(rate_bps: float) -> None:
    menu = menu_of(objective="energy")
    chosen = made("adaptive-nohedge", menu, at_rate(rate_bps)).decide(Situation(0.0)).placement

    def joules(placement: Placement) -> float:
        up_s, down_s = (
            8 * placement.payload_nbytes / rate_bps,
            8 * placement.reply_nbytes / 50e6,
        )
        busy_s = placement.head_s + placement.encode_s
        waiting_s = (placement.decode_s + placement.tail_s + 0.0205) * placement.remote
        draws_w = DEVICE.active_w, DEVICE.tx_w, DEVICE.rx_w, DEVICE.idle_w
        spent_s = busy_s, up_s, down_s, waiting_s
        return sum(w * s for w, s in zip(draws_w, spent_s, strict=True))

    assert joules(menu.placements[chosen]) <= 1.03 * min(map(joules, menu.placements))


def test_throughput_as_the_objective_balances_the_stages() -> None:
    menu = menu_of(objective="throughput")
    chosen = made("adaptive-nohedge", menu, at_rate(2e6)).decide(Situation(0.0)).placement
    best = MENU.placements[chosen]
    assert max(best.head_s, 8 * best.payload_nbytes / 2e6) < 0.15


def test_race_sends_the_input_in_its_best_codec_and_lets_the_edge_run() -> None:
    decision = made("race").decide(Situation(0.0))
    assert MENU.placements[decision.placement].codec == "jpeg:90"
    assert decision.hedge_after_s == 0.0


@pytest.mark.parametrize("name", ["race", "adaptive-race"])
def test_what_is_expected_of_a_race_is_its_faster_side(name: str) -> None:
    """A link that crawls: the cloud's way would take a minute, the edge's does not."""
    decision = made(name, link=at_rate(1e3)).decide(Situation(0.0))
    chosen, estimate = MENU.placements[decision.placement], decision.estimate
    assert estimate is not None
    assert chosen.rest_s is not None
    if chosen.remote:
        assert estimate.total_s > 10
    assert decision.expected_s == pytest.approx(chosen.head_s + chosen.rest_s)


def test_periodic_keeps_its_plan_until_the_period_is_over() -> None:
    chosen = made("periodic:5s")
    first = Evidence(0.0, Transfer(60_000, 400, 0.02 + 8 * 60_000 / 10e6))
    chosen = chosen.learn(first)
    before = chosen.decide(Situation(0.1)).placement
    slow = Transfer(60_000, 400, 5.0)
    assert chosen.learn(Evidence(4.0, slow)).decide(Situation(4.1)).placement == before
    assert chosen.learn(Evidence(6.0, slow)).decide(Situation(6.1)).placement != before


def test_a_decision_and_its_estimate_agree() -> None:
    for name in NAMES:
        decision = made(name).decide(Situation(0.0))
        estimate = decision.estimate
        assert estimate is not None
        assert estimate.head_s == pytest.approx(MENU.placements[decision.placement].head_s)


# The registry.


def test_every_name_makes_a_policy_that_bears_it() -> None:
    for name in NAMES:
        assert made(name).name == name
    families = {name.partition(":")[0] for name in NAMES}
    families |= {"python"}  # a user's own bears its own: tests/app/test_own_policy.py
    assert families == {name.partition(":")[0] for name in POLICIES}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("adaptve", "did you mean adaptive?"),
        ("fixed", "must be one of"),
        ("fixed:nowhere:raw", "c2-bbbbbb:half"),
        ("cloud-only:webp", "cloud-only:jpeg:90"),
        ("periodic:soon", "duration"),
        ("adaptive:fast", "must be one of"),
    ],
)
def test_a_wrong_name_is_told_what_there_is(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        made(name)


def test_the_oracle_asks_for_a_trace() -> None:
    with pytest.raises(UsageError, match="trace"):
        policy("oracle", MENU, link=LINK, device=DEVICE)


# Properties.

rates = st.floats(math.log(1e3), math.log(1e10)).map(math.exp)
beliefs = st.builds(
    lambda rate, variance, noise, scale, jitter_s, queue_s: replace(
        LinkBelief.of(at_rate(rate)),
        variance=variance,
        noise=noise,
        head_scale=scale,
        jitter_s=jitter_s,
        queue_s=queue_s,
    ),
    rates,
    st.floats(0, 8),
    st.floats(0.01, 0.64),
    st.floats(0.1, 10),
    st.floats(0.0002, 0.1),
    st.floats(0, 1),
)
situations = st.builds(
    Situation,
    now_s=st.floats(0, 1e6),
    link=st.sampled_from(["connected", "suspect", "down"]),
    current=st.none() | st.integers(0, len(MENU) - 1),
    in_flight=st.integers(0, 9),
    deadline_s=st.none() | st.floats(-1, 10),
    waiting=st.integers(0, 50),
    backlog_nbytes=st.integers(0, 10**8),
)


@settings(max_examples=300, deadline=None)
@given(
    beliefs,
    situations,
    st.sampled_from(["late", "never", "race"]),
    st.sampled_from(["latency", "energy", "throughput"]),
)
def test_decisions_are_options_and_hedges_keep_the_promise(
    belief: LinkBelief, situation: Situation, hedging: Any, objective: str
) -> None:
    menu = menu_of(objective=objective)
    decision = Adaptive(menu, belief, DEVICE, hedging).decide(situation)
    chosen = menu.placements[decision.placement]
    estimate = decision.estimate
    assert estimate is not None
    assert math.isfinite(estimate.total_s)
    expected_s = decision.expected_s
    if expected_s is None or not chosen.remote:
        assert expected_s is None or expected_s == pytest.approx(estimate.total_s)
    elif decision.hedge_after_s is not None:
        assert chosen.rest_s is not None
        work_s = (chosen.head_s + chosen.rest_s) * belief.head_scale
        assert expected_s <= work_s + decision.hedge_after_s + 1e-9
    if hedging == "never" or not chosen.remote:
        assert decision.hedge_after_s is None
        return
    assert decision.hedge_after_s is not None
    assert decision.hedge_after_s >= 0
    assert chosen.rest_s is not None
    scale = belief.head_scale
    ends_s = (chosen.head_s + chosen.rest_s) * scale + decision.hedge_after_s
    assert ends_s <= 1.25 * EDGE_S * scale + 0.05


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 50), st.lists(st.floats(1, 1e8), min_size=1, max_size=6), st.integers(0, 4)
)
def test_a_curve_carries_what_its_trace_carries(
    start_s: float, bits: list[float], seed: int
) -> None:
    draws = np.random.default_rng(seed)
    edges = np.concatenate([[0.0], np.cumsum(draws.uniform(0.1, 1, 8))])
    levels = draws.uniform(0, 20e6, 8) * (draws.random(8) > 0.3)
    levels[0] = 1e6
    trace, curve = Trace("t", edges, levels), Curve(edges, levels, 7.0)
    found = curve.finish_s(7.0 + start_s, np.array(bits))
    for size, moment_s in zip(bits, found.tolist(), strict=True):
        assert moment_s - 7.0 == pytest.approx(trace.finish_s(start_s, size / 8), abs=1e-6)


@pytest.mark.parametrize(
    ("times_s", "rates_bps"),
    [([0.0, 1.0], [1e6, 2e6]), ([0.0, 1.0], [0.0]), ([0.0, 1.0], [-1.0]), ([1.0, 2.0], [1.0])],
)
def test_a_curve_that_cannot_be_is_refused(times_s: Any, rates_bps: Any) -> None:
    with pytest.raises(UsageError):
        Curve(times_s, rates_bps, 0.0)


# The fluid model.


@pytest.fixture(scope="module")
def model() -> ModuleType:
    """benchmarks/policies.py."""
    path = Path(__file__).resolve().parents[3] / "benchmarks/policies.py"
    spec = importlib.util.spec_from_file_location("policies_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def random_trace(seed: int) -> Trace:
    draws = np.random.default_rng(seed)
    levels = np.exp(np.cumsum(draws.normal(0, 0.4, 200)) + math.log(8e6))
    levels[draws.random(200) < 0.05] = 0.0
    return Trace(f"random-{seed}", (np.arange(201) * 0.2).tolist(), levels.clip(0, 1e9))


class Witness:
    """A policy that notes what the oracle would have said in each of its situations."""

    def __init__(self, inner: Policy, oracle: Oracle) -> None:
        self.inner, self.oracle, self.best_s = inner, oracle, [0.0][:0]

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def belief(self) -> LinkBelief:
        return self.oracle.belief

    def decide(self, situation: Situation) -> Decision:
        best = self.oracle.decide(replace(situation, link="connected")).estimate
        assert best is not None
        self.best_s.append(best.total_s)
        return self.inner.decide(situation)

    def learn(self, evidence: Evidence) -> Witness:
        self.inner = self.inner.learn(evidence)
        return self


@pytest.mark.parametrize("name", NAMES)
def test_no_request_beats_the_oracle_in_its_own_situation(
    model: ModuleType, name: str
) -> None:
    trace = random_trace(NAMES.index(name))
    curve = Curve(trace.times_s, trace.rates_bps, 0.0)
    link = Link(8e6, model.DOWNLINK_BPS, model.RTT_S)
    chosen = policy(name, MENU, link=link, device=DEVICE, curve=curve)
    witness = Witness(chosen, Oracle(MENU, LinkBelief.of(link), curve))
    world = model.World(trace, MENU, witness, 1, scatter=0.0, jitter_s=0.0)
    run = world.play(40.0, 1.0)
    spans = [
        answered - best for answered, best in zip(run.latencies_s, witness.best_s, strict=True)
    ]
    assert len(spans) >= 30
    assert min(spans) > -1e-6


def test_the_controller_stays_near_the_oracle_where_the_others_do_not(
    model: ModuleType,
) -> None:
    def regret(name: str) -> float:
        means = []
        for seed in range(6):
            trace = random_trace(seed)
            curve = Curve(trace.times_s, trace.rates_bps, 0.0)
            chosen = policy(name, MENU, link=at_rate(8e6), device=DEVICE, curve=curve)
            world = model.World(trace, MENU, chosen, seed)
            means.append(world.play(40.0, None).mean_s)
        return float(np.mean(means))

    oracle_s = regret("oracle")
    assert regret("adaptive") < 1.08 * oracle_s
    for name in ("edge-only", "cloud-only:jpeg", "linucb", "periodic:5s"):
        assert regret("adaptive") < regret(name)


def test_every_request_under_the_controller_keeps_the_promise(model: ModuleType) -> None:
    trace = random_trace(3)
    chosen = policy("adaptive", MENU, link=LINK, device=DEVICE)
    run = model.World(trace, MENU, chosen, 1, scatter=0.0).play(60.0, 1.0)
    assert run.worst_s <= 1.25 * EDGE_S + 0.05


def test_probes_in_the_model_stay_within_their_budget(model: ModuleType) -> None:
    trace = Trace("slow", [0.0, 100.0], [3e5])
    chosen = policy("adaptive-nohedge", MENU, link=at_rate(3e5), device=DEVICE)
    run = model.World(trace, MENU, chosen, 1).play(60.0, None)
    assert run.budget.probed_nbytes > 0
    assert run.budget.probed_nbytes * 8 / run.elapsed_s <= 0.13e6 * 1.02


def test_totals_are_the_sums_of_the_estimates() -> None:
    met = Conditions(3e6, 20e6, 0.04, 0.003, 1.7, 0.6, 20_000)
    totals_s = MENU.totals_s(met)
    for index in range(len(MENU)):
        assert totals_s[index] == pytest.approx(MENU.estimate(index, met).total_s)
