"""What the edge believes of its link, sample by sample."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Evidence
from midstream_edge.policies.link_estimator import LEAST_BPS, MOST_BPS, LinkBelief
from midstream_edge.policies.probe_budget import (
    DAY_NBYTES,
    KEEP_S,
    LEAST_NBYTES,
    OVERHEAD_NBYTES,
    PACE_NBYTES_PER_S,
    SILENT_S,
    ProbeBudget,
    parse_budget,
    probe_due,
)
from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

LINK = Link(uplink_bps=20e6, downlink_bps=50e6, rtt_s=0.02)
DELAY_S = LINK.rtt_s + LINK.fixed_s
OPTION = Placement(
    "c3-aaaaaa", "half", 1, "after x", True, 0.1, 0.0, 0.0, 0.02, 60_000, 400, 0.2
)


def sent(nbytes: int, rate_bps: float, *, reply_nbytes: int = 400) -> Transfer:
    """What a clean exchange over a link of `rate_bps` looks like."""
    down_s = 8 * reply_nbytes / LINK.downlink_bps
    return Transfer(nbytes, reply_nbytes, DELAY_S + 8 * nbytes / rate_bps + down_s)


def after(belief: LinkBelief, *transfers: Transfer, every_s: float = 0.2) -> LinkBelief:
    for transfer in transfers:
        at_s = 0.0 if math.isinf(belief.at_s) else belief.at_s + every_s
        belief = belief.observe(Evidence(at_s, transfer))
    return belief


def test_a_tenfold_drop_is_believed_after_one_transfer() -> None:
    steady = after(LinkBelief.of(LINK), *[sent(60_000, 20e6)] * 20)
    dropped = after(steady, sent(60_000, 2e6))
    assert dropped.uplink_bps == pytest.approx(2e6, rel=0.15)


def test_a_reply_that_is_late_says_nothing_of_the_uplink() -> None:
    steady = after(LinkBelief.of(LINK), *[sent(60_000, 20e6)] * 20)
    late = [
        Transfer(60_000, 400, DELAY_S + 8 * 60_000 / 20e6 + late_s, up_s=8 * 60_000 / 20e6)
        for late_s in (0.0, 0.01, 0.3, 2.0)
    ]
    assert after(steady, *late).uplink_bps == pytest.approx(20e6, rel=0.01)


def test_both_ways_are_learnt_apart_where_the_clocks_tell_them_apart() -> None:
    up_s, down_s = 8 * 60_000 / 5e6, 8 * 400_000 / 10e6
    both = Transfer(60_000, 400_000, DELAY_S + up_s + down_s, up_s=up_s)
    belief = after(LinkBelief.of(LINK), *[both] * 20)
    assert belief.uplink_bps == pytest.approx(5e6, rel=0.05)
    assert belief.downlink_bps == pytest.approx(10e6, rel=0.05)


def test_a_tenfold_rise_is_believed_after_one_transfer() -> None:
    steady = after(LinkBelief.of(LINK), *[sent(60_000, 2e6)] * 20)
    assert after(steady, sent(60_000, 20e6)).uplink_bps == pytest.approx(20e6, rel=0.15)


def test_a_tenfold_rise_is_noticed_by_probes_within_a_second() -> None:
    belief = after(LinkBelief.of(LINK), *[sent(60_000, 2e6)] * 20)
    start_s, budget = belief.at_s, ProbeBudget(belief.at_s, allowance_nbytes=PACE_NBYTES_PER_S)
    now_s, noticed_s = start_s, math.inf
    while now_s < start_s + 3 and math.isinf(noticed_s):
        nbytes = probe_due(budget, now_s, uplink_bps=belief.uplink_bps)
        if nbytes:
            budget = budget.probed(now_s, nbytes)
            probe = sent(nbytes, 20e6, reply_nbytes=0)
            now_s += probe.took_s
            belief = belief.observe(Evidence(now_s, probe))
        if belief.uplink_bps > 10e6:
            noticed_s = now_s - start_s
        now_s += 0.05
    assert noticed_s < 1.0


def test_noise_is_learnt_and_is_not_taken_for_change() -> None:
    draws = np.random.default_rng(1).lognormal(math.log(20e6), 0.5, 300)
    belief = after(LinkBelief.of(LINK), *[sent(60_000, float(rate)) for rate in draws])
    assert 0.3 < math.sqrt(belief.noise) < 0.8
    assert belief.uplink_bps == pytest.approx(20e6, rel=0.6)


def test_a_steady_link_leaves_little_noise() -> None:
    belief = after(LinkBelief.of(LINK), *[sent(60_000, 20e6)] * 100)
    assert belief.spread < 0.3


def test_silence_widens_the_belief_and_moves_it_nowhere() -> None:
    heard = after(LinkBelief.of(LINK), sent(60_000, 20e6))
    later = heard.at(heard.at_s + 10)
    assert later.variance > heard.variance
    assert later.uplink_bps == heard.uplink_bps
    assert later.at(later.at_s - 5) is later


def test_an_incomplete_transfer_counts_only_when_it_is_slower_than_believed() -> None:
    belief = after(LinkBelief.of(LINK), *[sent(60_000, 20e6)] * 5)
    early = Transfer(10_000, 0, 0.01, complete=False)
    late = Transfer(10_000, 0, 2.0, complete=False)
    assert after(belief, early).uplink_bps == pytest.approx(belief.uplink_bps)
    assert after(belief, late).uplink_bps < belief.uplink_bps / 10


def test_small_transfers_in_jitter_say_nothing_of_the_rate() -> None:
    belief = after(LinkBelief.of(Link(80e6, 50e6, 0.02)), *[sent(200_000, 80e6)] * 10)
    jittery = replace(belief, jitter_s=0.002)
    for late_s in (0.001, 0.0, 0.0015):
        probe = replace(sent(2920, 80e6, reply_nbytes=0))
        jittery = after(jittery, replace(probe, took_s=probe.took_s + late_s))
    assert jittery.uplink_bps == pytest.approx(belief.uplink_bps, rel=0.05)


def test_a_small_transfer_that_is_fast_proves_a_fast_link() -> None:
    belief = after(LinkBelief.of(LINK), *[sent(60_000, 0.2e6)] * 5)
    assert after(belief, sent(2920, 80e6, reply_nbytes=0)).uplink_bps > 5e6


def test_rates_of_the_two_directions_do_not_drift_apart() -> None:
    belief = LinkBelief.of(LINK)
    draws = np.random.default_rng(2).lognormal(math.log(20e6), 0.3, 2000)
    belief = after(belief, *[sent(60_000, float(rate)) for rate in draws])
    assert belief.downlink_bps == pytest.approx(LINK.downlink_bps, rel=0.1)


def test_a_slow_downlink_is_learnt_from_large_replies() -> None:
    slow = Transfer(1000, 100_000, DELAY_S + 8 * 1000 / 20e6 + 8 * 100_000 / 5e6)
    belief = after(LinkBelief.of(LINK), *[slow] * 10)
    assert belief.downlink_bps == pytest.approx(5e6, rel=0.2)


def test_bytes_that_left_first_are_not_held_against_the_link() -> None:
    queued = Transfer(20_000, 0, DELAY_S + 8 * 60_000 / 20e6, ahead_nbytes=40_000)
    belief = after(LinkBelief.of(LINK), *[queued] * 10)
    assert belief.uplink_bps == pytest.approx(20e6, rel=0.05)


def test_the_delay_follows_empty_exchanges_and_ignores_stalls() -> None:
    belief = after(LinkBelief.of(LINK), *[Transfer(0, 0, 0.06)] * 60)
    assert belief.delay_s == pytest.approx(0.06, rel=0.05)
    assert after(belief, Transfer(0, 0, 5.0)).delay_s < 0.08
    assert after(belief, *[Transfer(0, 0, 0.01)] * 8).delay_s == pytest.approx(0.01, rel=0.1)


def test_a_link_that_comes_back_is_believed_as_it_used_to_be() -> None:
    belief = after(LinkBelief.of(LINK), *[sent(60_000, 20e6)] * 30)
    for step in range(5):
        stalled = Transfer(0, 0, 0.3 + step, complete=False)
        belief = belief.observe(Evidence(belief.at_s + 1, stalled, link="down"))
    assert belief.uplink_bps < 1e6
    back = belief.observe(Evidence(belief.at_s + 1, link="connected"))
    assert back.uplink_bps == pytest.approx(20e6, rel=0.1)
    assert back.variance >= 1.0


def test_devices_that_slow_down_are_noticed() -> None:
    belief = LinkBelief.of(LINK)
    for step in range(20):
        evidence = Evidence(step * 0.1, placement=1, head_s=0.2, tail_s=0.01, queue_s=0.005)
        belief = belief.observe(evidence, OPTION)
    assert belief.head_scale == pytest.approx(2.0, rel=0.01)
    assert belief.tail_scale == pytest.approx(0.5, rel=0.01)
    assert belief.queue_s == pytest.approx(0.005, rel=0.05)


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 10),
    st.sampled_from([0.0, 1e-9, -1.0, math.inf, math.nan]),
)
counts = st.one_of(st.integers(-5, 10), st.integers(0, 10**7), st.sampled_from([0, 2**62]))
transfers = st.builds(
    Transfer,
    nbytes=counts,
    reply_nbytes=counts,
    took_s=numbers,
    complete=st.booleans(),
    ahead_nbytes=counts,
)
evidence = st.builds(
    Evidence,
    at_s=numbers,
    transfer=st.none() | transfers,
    placement=st.none() | st.just(0),
    latency_s=st.none() | numbers,
    head_s=st.none() | numbers,
    queue_s=st.none() | numbers,
    tail_s=st.none() | numbers,
    link=st.sampled_from([None, "connected", "suspect", "down"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(evidence, max_size=12),
    st.floats(1, math.inf),
    st.floats(0, 10),
)
def test_no_evidence_makes_a_belief_that_is_not_a_number(
    given_evidence: list[Evidence], rate_bps: float, rtt_s: float
) -> None:
    belief = LinkBelief.of(Link(rate_bps, rate_bps, rtt_s))
    for each in given_evidence:
        belief = belief.observe(each, OPTION)
    figures = {name: value for name, value in asdict(belief).items() if name != "at_s"}
    assert all(math.isfinite(v) for v in figures.values() if isinstance(v, float)), figures
    assert not math.isnan(belief.at_s)
    assert LEAST_BPS * 0.99 <= belief.uplink_bps <= MOST_BPS * 1.01
    assert min(belief.variance, belief.down_variance, belief.delay_s) >= 0
    assert belief.jitter_s > 0
    assert (np.diff(belief.quantiles_bps(10)) > 0).all()


DAY_S = 86400.0


@given(
    st.lists(st.tuples(st.floats(0, 20_000), st.integers(0, 10**6)), max_size=60),
    st.floats(1e3, 1e9),
    st.sampled_from([0.0, 31e3, 1e6, DAY_NBYTES]),
)
def test_probes_keep_to_their_budget(
    requests: list[tuple[float, int]], uplink_bps: float, day_nbytes: float
) -> None:
    budget, now_s = ProbeBudget(0.0, day_nbytes), 0.0
    sent_at: list[tuple[float, int]] = []
    for gap_s, nbytes in requests:
        now_s += gap_s
        due = probe_due(budget, now_s, uplink_bps=uplink_bps)
        if due:
            budget = budget.probed(now_s, due)
            sent_at.append((now_s, due + OVERHEAD_NBYTES))
        elif nbytes:
            budget = budget.heard(now_s, nbytes)
        within = [spent for at_s, spent in sent_at if now_s - at_s <= DAY_S]
        assert sum(within) <= day_nbytes * (1 + 1e-9)
        assert budget.probed_nbytes <= PACE_NBYTES_PER_S * now_s + 1


def probes_in(seconds: float, budget: ProbeBudget, *, uplink_bps: float) -> ProbeBudget:
    """The budget after a silent link was asked whenever that was due."""
    now_s = 0.0
    while now_s < seconds:
        due = probe_due(budget, now_s, uplink_bps=uplink_bps)
        budget = budget.probed(now_s, due) if due else budget
        now_s += 0.5
    return budget


@pytest.mark.parametrize("uplink_bps", [1e5, 1e9])
def test_the_least_budget_has_room_for_a_probe_now_and_then(uplink_bps: float) -> None:
    least = ProbeBudget(0.0, parse_budget("31KB/day"))
    asked = probes_in(12_000.0, least, uplink_bps=uplink_bps).probed_nbytes
    assert LEAST_NBYTES + OVERHEAD_NBYTES < asked < 0.3 * 31e3


def test_a_silent_day_takes_no_more_than_the_budget_and_most_of_it() -> None:
    spent = probes_in(DAY_S, ProbeBudget(0.0), uplink_bps=2e6).probed_nbytes
    assert 0.9 * DAY_NBYTES < spent <= DAY_NBYTES


@pytest.mark.parametrize(
    ("text", "day_nbytes"), [("50MB/day", 50e6), ("1 MiB/day", 2.0**20), ("0", 0.0)]
)
def test_budgets_are_sizes_a_day(text: str, day_nbytes: float) -> None:
    assert parse_budget(text) == day_nbytes


@pytest.mark.parametrize(
    "text", ["50MB", "1MB/s", "-1MB/day", "1KB/day", "nan", "", "50Mb/day"]
)
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_budget(text)


def test_a_link_that_speaks_or_is_not_well_is_not_probed() -> None:
    budget = ProbeBudget(0.0).heard(10.0, 50_000)
    assert probe_due(budget, 10.0 + SILENT_S / 2, uplink_bps=1e6) == 0
    assert probe_due(budget, 20.0, uplink_bps=1e6, link="suspect") == 0
    assert 0 < probe_due(budget, 20.0, uplink_bps=1e6) <= PACE_NBYTES_PER_S * KEEP_S
