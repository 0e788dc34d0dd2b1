"""Figures against rows worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from midstream_lab.report.wording import percent, policy_words, verdict
from midstream_lab.results.bootstrap import blocks_of
from midstream_lab.results.comparison import BEST_FIXED, best_mixture_s, shared_span
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import Figures, Summary, summarise

Plain = Callable[..., RunResult]
Make = Callable[..., list[RunResult]]

#: What the report of an experiment must say of every policy.
PROMISED = {
    "regret_mean", "regret_worst", "p50_s", "p95_s", "p99_s", "lost", "duplicated", "local",
    "switches", "policy_errors", "probe_share",
}  # fmt: skip


def figures(results: Iterable[RunResult], policy: str, *place: str) -> Figures:
    found = summarise(results).find(policy, *place)
    assert found is not None
    return found


def test_regret_is_the_mean_latency_over_the_oracles_less_one(plain: Plain) -> None:
    found = figures([plain("oracle", [0.1, 0.3]), plain("adaptive", [0.2, 0.25])], "adaptive")
    assert found.regret_mean == pytest.approx(0.225 / 0.2 - 1)
    assert found.regret_worst == found.regret_mean
    assert found.regret_worst_at == "line"
    assert found.mean_s == pytest.approx(0.225)


def test_regret_is_averaged_over_traces_and_the_worst_is_named(plain: Plain) -> None:
    results = [
        plain("oracle", [0.1, 0.1], trace="calm"),
        plain("adaptive", [0.11, 0.11], trace="calm"),
        plain("oracle", [1.0, 1.0], trace="rough"),
        plain("adaptive", [1.5, 1.5], trace="rough"),
    ]
    found = figures(results, "adaptive")
    assert found.regret_mean == pytest.approx((0.1 + 0.5) / 2)
    assert found.regret_worst == pytest.approx(0.5)
    assert found.regret_worst_at == "rough"
    assert found.requests == 4


def test_the_worst_trace_is_that_of_all_its_seeds_together(plain: Plain) -> None:
    results = [
        plain("oracle", [1.0], seed=seed, trace=trace) for seed in (0, 1) for trace in "ab"
    ]
    for trace, seed, latency_s in (("a", 0, 1.5), ("a", 1, 1.0), ("b", 0, 1.3), ("b", 1, 1.3)):
        results.append(plain("adaptive", [latency_s], trace=trace, seed=seed))
    found = figures(results, "adaptive")
    assert found.regret_worst == pytest.approx(0.3)
    assert found.regret_worst_at == "b"


def test_only_what_all_policies_saw_of_the_trace_is_compared(plain: Plain) -> None:
    early = plain("oracle", [9.0, 0.1, 0.1, 0.1], start_s=0.0)
    late = plain("adaptive", [0.1, 0.1, 0.1, 9.0], start_s=1.0)
    found = figures([early, late], "adaptive")
    assert found.regret_mean == pytest.approx(0.0)
    assert found.p99_s == pytest.approx(0.1)
    assert found.requests == 4
    assert shared_span([np.array([0.0, 4.0]), np.array([1.0, 5.0])]) == (1.0, 4.0)
    assert shared_span([np.array([0.0, 1.0]), np.array([3.0, 5.0])]) == (3.0, 3.0)


def test_the_best_fixed_placement_is_chosen_in_hindsight_for_every_trace(plain: Plain) -> None:
    results = [
        plain(policy, [latency_s] * 3, trace=trace)
        for trace, times in (("slow", (0.4, 0.5, 0.9)), ("fast", (0.1, 0.5, 0.2)))
        for policy, latency_s in zip(
            ("oracle", "edge-only", "fixed:c1:raw"), times, strict=True
        )
    ]
    found = summarise(results)
    chosen = {each.trace: each.policy for each in found.best_fixed}
    assert chosen == {"slow": "edge-only", "fast": "fixed:c1:raw"}
    best = found.find(BEST_FIXED)
    assert best is not None
    assert best.regret_mean == pytest.approx((0.25 + 1.0) / 2)
    assert best.runs == 2


def test_without_an_oracle_the_best_policy_of_each_trace_stands_in(plain: Plain) -> None:
    found = summarise([plain("ewma", [0.2]), plain("adaptive", [0.1])])
    assert found.reference == "best policy"
    assert [each.policy for each in found.policies] == ["adaptive", "ewma"]
    assert [each.regret_mean for each in found.policies] == pytest.approx([0.0, 1.0])


def test_where_an_oracle_ran_on_some_traces_the_others_have_no_regret(plain: Plain) -> None:
    results = [
        plain("oracle", [0.1], trace="a"),
        plain("adaptive", [0.2], trace="a"),
        plain("adaptive", [0.2], trace="b"),
    ]
    assert figures(results, "adaptive").regret_mean == pytest.approx(1.0)
    assert figures(results, "adaptive", "net", "b").regret_mean is None


def test_every_trace_counts_the_same_however_many_requests_it_had(plain: Plain) -> None:
    """Back to back, a slow trace has room for few requests, and would hardly be seen."""
    results = [
        plain("adaptive", [0.1] * 300, trace="fast", energy_j=1.0),
        plain("adaptive", [1.0] * 3, trace="slow", energy_j=3.0),
    ]
    found = figures(results, "adaptive")
    assert found.mean_s == pytest.approx(0.55)
    assert found.energy_j == pytest.approx(2.0)
    assert found.p95_s == pytest.approx(1.0)
    assert figures(results, "adaptive", "net", "fast").p95_s == pytest.approx(0.1)


def test_quantiles_are_those_of_all_requests(plain: Plain) -> None:
    times = [(at + 1) / 1000 for at in range(100)]  # one a second: 20 blocks
    found = figures([plain("adaptive", times)], "adaptive")
    assert found.p50_s == pytest.approx(np.quantile(times, 0.5))
    assert found.p99_s == pytest.approx(np.quantile(times, 0.99))
    assert found.p95_low_s is not None
    assert found.p95_high_s is not None
    assert found.p95_low_s <= np.quantile(times, 0.95) <= found.p95_high_s


def test_what_was_not_answered_has_no_latency_and_is_counted(plain: Plain) -> None:
    found = figures([plain("adaptive", [0.1, None, 0.3], lost=1, answered=2)], "adaptive")
    assert found.mean_s == pytest.approx(0.2)
    assert found.lost == 1
    assert found.requests == 3


def test_void_runs_count_for_nothing_and_are_named(plain: Plain) -> None:
    results = [
        plain("oracle", [0.1]),
        plain("adaptive", [0.1], seed=1, void="the rate was off by 9 %"),
    ]
    found = summarise(results)
    assert found.runs == 1
    assert found.find("adaptive") is None
    assert [(each.run, each.reason) for each in found.void] == [
        ("adaptive on net over line, seed 1", "the rate was off by 9 %")
    ]


def test_counts_add_up_and_probes_are_weighed_by_what_was_sent(plain: Plain) -> None:
    results = [
        plain("adaptive", [0.1], trace="a", hedges=1, switches=2, local=3, duplicated=1,
              policy_errors=1, probe_share=0.5, uplink_nbytes=100),
        plain("adaptive", [0.1], trace="b", hedges=1, switches=5, probe_share=0.1,
              policy_errors=3, uplink_nbytes=300),
    ]  # fmt: skip
    found = figures(results, "adaptive")
    assert (found.hedges, found.switches, found.local, found.duplicated) == (2, 7, 3, 1)
    assert found.policy_errors == 4
    (told,) = (each for each in verdict(summarise(results), {}) if "failed" in each)
    assert told.startswith("The policy adaptive failed 4 times")
    assert found.probe_share == pytest.approx((0.5 * 100 + 0.1 * 300) / 400)


def test_racing_is_held_against_others_at_equal_energy() -> None:
    plain_cloud, race = (1.0, 0.4), (3.0, 0.2)
    assert best_mixture_s([plain_cloud, race], 3.0) == pytest.approx(0.2)
    assert best_mixture_s([plain_cloud, race], 2.0) == pytest.approx(0.3)
    assert best_mixture_s([plain_cloud, race], 1.0) == pytest.approx(0.4)
    assert best_mixture_s([plain_cloud, race], 9.0) == pytest.approx(0.2)
    assert np.isnan(best_mixture_s([plain_cloud, race], 0.5))


def test_who_spends_half_of_racings_extra_energy_is_held_against_half_of_its_gain(
    plain: Plain,
) -> None:
    results = [
        plain("cloud-only", [0.4], energy_j=1.0),
        plain("race", [0.2], energy_j=3.0),
        plain("adaptive", [0.33], energy_j=2.0),
        plain("thrifty", [0.5], energy_j=0.5),
    ]
    found = figures(results, "adaptive")
    assert found.behind_equal_energy_mean == pytest.approx(0.33 / 0.3 - 1)
    assert figures(results, "thrifty").behind_equal_energy_mean is None
    assert figures(results, "race").behind_equal_energy_worst == pytest.approx(0.0)


def test_a_hard_stretch_that_all_meet_does_not_blur_who_is_better(plain: Plain) -> None:
    """Half of the trace is ten times slower, and the ratio is 1.1 throughout."""
    times = [0.1] * 30 + [1.0] * 30
    results = [plain("oracle", times), plain("adaptive", [each * 1.1 for each in times])]
    found = figures(results, "adaptive")
    assert found.regret_mean_low == pytest.approx(0.1)
    assert found.regret_mean_high == pytest.approx(0.1)
    assert found.mean_high_s is not None
    assert found.mean_low_s is not None
    assert found.mean_high_s - found.mean_low_s > 0.1


def test_a_run_too_short_to_tell_has_no_interval(plain: Plain) -> None:
    found = figures([plain("oracle", [0.1] * 20), plain("adaptive", [0.2] * 20)], "adaptive")
    assert found.regret_mean == pytest.approx(1.0)
    assert (found.regret_mean_low, found.p99_high_s) == (None, None)


def test_blocks_divide_a_run_into_five_seconds_each() -> None:
    index, count = blocks_of(np.array([2.0, 6.9, 7.1, 62.0]), 2.0, 62.0)
    assert count == 12
    assert index.tolist() == [0, 0, 1, 11]
    assert blocks_of(np.array([1.0]), 1.0, 1.0)[1] == 1


def test_the_same_results_give_the_same_summary_in_any_order(made_up: Make) -> None:
    results = made_up(policies=("oracle", "adaptive", "edge-only"), duration_s=10.0)
    first = json.dumps(summarise(results).to_dict())
    assert json.dumps(summarise(results[::-1]).to_dict()) == first
    assert json.dumps(summarise(results, seed=1).to_dict()) != first


def test_the_document_holds_what_was_promised_and_no_nan(made_up: Make, plain: Plain) -> None:
    results = [*made_up(duration_s=8.0), plain("adaptive", [None])]
    found: dict[str, Any] = summarise(results).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["policies"]["adaptive"].keys() >= PROMISED
    assert {"oracle", "race", BEST_FIXED} <= found["policies"].keys()


def test_nothing_gives_an_empty_summary() -> None:
    found = summarise([])
    assert (found.runs, found.policies) == (0, ())
    assert verdict(found, {}) == ["No run counts yet: there is nothing to say."]


def test_the_verdict_says_where_splitting_cannot_win(plain: Plain) -> None:
    found: Summary = summarise([plain("oracle", [0.1]), plain("adaptive", [0.102])])
    first, *others = verdict(found, {})
    assert first == (
        "Adaptive takes 2.0 % longer than a clairvoyant oracle on average over 1 trace."
    )
    assert "All 2 requests were answered exactly once." in others
    assert others[-1].startswith("On net the oracle never cuts inside the model")


def test_the_verdict_does_not_hide_what_was_lost(plain: Plain) -> None:
    found = summarise([plain("adaptive", [0.1, None], lost=1, duplicated=2)])
    assert "Of 2 requests 1 got no answer and 2 were answered twice." in verdict(found, {})


def test_figures_and_names_are_told_in_words() -> None:
    assert [percent(share) for share in (0.0, 0.0041, 0.018, 1.234, -0.02, None)] == [
        "0.0 %", "0.41 %", "1.8 %", "123 %", "−2.0 %", "–"
    ]  # fmt: skip
    labels = {"c1-ab int8": "after relu int8"}
    assert policy_words("fixed:c1-ab:int8", labels) == "fixed: after relu int8"
    assert policy_words("periodic:5s", labels) == "re-plan every 5s (Neurosurgeon)"
    assert policy_words("cloud-only:jpeg:90", labels) == "cloud-only, jpeg:90"
    assert policy_words("my-own", labels) == "my-own"
