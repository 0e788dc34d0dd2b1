"""Plans, against every candidate written down by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.plan import Candidate
from midstream_partitioner.planning.planner import OBJECTIVES, Planner, plan
from midstream_wire.errors import PlanError, UsageError

CaseOf = Callable[..., Any]

LINK = Link(4e6, 8e6, 0.03)
UNASKED = ("raw", "lossless", "half", "png", "jpeg:90", "webp:80", "avif:80")


def by_hand(case: Any, link: Link, queue_s: float = 0.0) -> dict[tuple[str, str], list[float]]:
    """[latency, period, joules] by cut and codec, for all that was measured."""
    edge, cloud, cuts = case.edge, case.cloud, case.partition.cuts
    device: Device = edge.device
    head = [sum(s.median_s for s in edge.segments[:k]) for k in range(len(cuts))]
    found = {("edge-only", "raw"): [head[-1], head[-1], device.active_w * head[-1]]}
    for cost in edge.codecs:
        k = [cut.id for cut in cuts].index(cost.cut)
        tail = sum(s.median_s for s in cloud.segments[k:])
        up = cost.payload_nbytes * 8 / link.uplink_bps
        down = cloud.replies_nbytes[k] * 8 / link.downlink_bps
        wait = queue_s + cost.decode_s + tail + link.rtt_s + link.fixed_s
        busy = head[k] + cost.encode_s
        whole = busy + up + wait + down
        found[cost.cut, cost.codec] = [
            whole,
            max(head[k], cost.encode_s, up, cost.decode_s + tail, down, whole / 8),
            device.active_w * busy
            + device.tx_w * up
            + device.idle_w * wait
            + device.rx_w * down,
        ]
    return found


def random_link(seed: int) -> Link:
    choose = random.Random(seed)
    return Link(10 ** choose.uniform(5, 9), 10 ** choose.uniform(5, 9), choose.random() / 5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_plan_is_the_best_of_all_candidates(case_of: CaseOf, objective: str) -> None:
    column = OBJECTIVES.index(objective)
    for seed in range(200):
        case, link = case_of(seed), random_link(seed)
        made = plan(
            case.partition, case.edge, case.cloud, link, objective=objective, queue_s=0.01
        )
        allowed = {
            key: values
            for key, values in by_hand(case, link, 0.01).items()
            if key[1] in UNASKED
        }
        best = min(values[column] for values in allowed.values())
        assert made.chosen.value(objective) == pytest.approx(best, rel=1e-9), seed
        assert {(c.cut, c.codec) for c in made.candidates} == set(allowed)
        for candidate in made.candidates:
            expected = allowed[candidate.cut, candidate.codec]
            figures = [candidate.latency_s, 1 / candidate.throughput_hz, candidate.energy_j]
            assert figures == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_candidates_come_best_first_and_the_runner_up_is_second(
    case_of: CaseOf, objective: str
) -> None:
    for seed in range(50):
        case = case_of(seed)
        made = plan(case.partition, case.edge, case.cloud, LINK, objective=objective)
        values = [candidate.value(objective) for candidate in made.candidates]
        assert values == sorted(values)
        assert made.candidates[:2] == (made.chosen, made.runner_up)


def test_a_plan_is_never_slower_than_the_best_trivial_placement(case_of: CaseOf) -> None:
    for seed in range(100):
        case, link = case_of(seed), random_link(seed + 1)
        made = plan(case.partition, case.edge, case.cloud, link)
        trivial = [c for c in made.candidates if c.cut in ("edge-only", "cloud-only")]
        assert {c.codec for c in trivial} >= {"raw", "png", "jpeg:90", "webp:80"}
        assert made.chosen.latency_s <= min(c.latency_s for c in trivial)


def test_planning_twice_gives_the_same_plan(case_of: CaseOf) -> None:
    case = case_of(11)
    planner = Planner(case.partition, case.edge, case.cloud)
    assert planner.plan(LINK) == plan(case.partition, case.edge, case.cloud, LINK)
    assert planner.plan(LINK) == planner.plan(LINK)


def test_private_plans_send_nothing_that_no_layer_has_touched(case_of: CaseOf) -> None:
    private = Constraints(min_depth=1)
    for seed in range(60):
        case = case_of(seed)
        made = plan(case.partition, case.edge, case.cloud, LINK, constraints=private)
        inputs = [spec.name for spec in case.partition.inputs]
        depths = {cut.id: cut.depth_of(inputs) for cut in case.partition.cuts}
        assert all(depths[candidate.cut] >= 1 for candidate in made.candidates)
        inputs = [
            reason for c, reason in made.rejected if c.cut == "cloud-only" and c.codec == "raw"
        ]
        assert inputs == ["sends the input itself, layer 1 or deeper asked for"]


def test_eight_bits_are_used_only_when_named(case_of: CaseOf) -> None:
    case = case_of(5)
    made = plan(case.partition, case.edge, case.cloud, LINK)
    assert all(candidate.codec != "int8" for candidate in made.candidates)
    assert "sends int8, which is lossy and was not named" in {why for _, why in made.rejected}
    named = Constraints(codecs=("int8",))
    made = plan(case.partition, case.edge, case.cloud, LINK, constraints=named)
    assert {(c.cut, c.codec) for c in made.candidates} == {
        ("edge-only", "raw"),
        *((cut.id, "int8") for cut in case.partition.cuts[:-1]),
    }


def test_lossless_plans_use_codecs_that_give_the_same_bytes_back(case_of: CaseOf) -> None:
    case = case_of(6)
    made = plan(
        case.partition, case.edge, case.cloud, LINK, constraints=Constraints(lossless=True)
    )
    assert {c.codec for c in made.candidates} == {"raw", "lossless", "png"}
    assert all(candidate.placement.lossless for candidate in made.candidates)


def test_a_codec_is_named_with_or_without_its_default_quality(case_of: CaseOf) -> None:
    case = case_of(6)
    assert Constraints(codecs=("jpeg",)) == Constraints(codecs=("jpeg:90",))
    made = plan(
        case.partition, case.edge, case.cloud, LINK, constraints=Constraints(codecs=("jpeg",))
    )
    assert {(c.cut, c.codec) for c in made.candidates} == {
        ("edge-only", "raw"),
        ("cloud-only", "jpeg:90"),
    }


def test_the_edge_holds_no_more_weights_than_allowed(case_of: CaseOf) -> None:
    case = case_of(9)
    most = case.partition.weight_nbytes(0, 1)
    made = plan(
        case.partition,
        case.edge,
        case.cloud,
        LINK,
        constraints=Constraints(max_edge_nbytes=most),
    )
    assert {candidate.k for candidate in made.candidates} == {0, 1}
    assert any("of memory on the edge" in reason for _, reason in made.rejected)


def test_cuts_are_forbidden_by_id_label_or_tensor(case_of: CaseOf) -> None:
    case = case_of(9)
    inner = case.partition.cuts[1]
    for pattern in (inner.id, inner.label.replace("after", "*"), inner.tensors[-1]):
        constraints = Constraints(forbidden=frozenset({pattern}))
        made = plan(case.partition, case.edge, case.cloud, LINK, constraints=constraints)
        assert inner.id not in {candidate.cut for candidate in made.candidates}
        assert "edge-only" in {candidate.cut for candidate in made.candidates}


def test_a_pattern_that_is_of_no_cut_is_told(case_of: CaseOf) -> None:
    part = case_of(9).partition
    known = part.cuts[1].id
    Constraints(forbidden=frozenset({known, "*"})).check_forbidden(part)
    with pytest.raises(
        UsageError, match=r"and 'conv\[9\]' is of none: its cuts are cloud-only"
    ):
        Constraints(forbidden=frozenset({known, "conv[9]"})).check_forbidden(part)


def test_an_edge_that_holds_a_prefix_is_planned_for_that_prefix(case_of: CaseOf) -> None:
    case = case_of(13, held=1)
    made = plan(case.partition, case.edge, case.cloud, LINK)
    assert {candidate.k for candidate in made.candidates} == {0, 1}


def test_a_deadline_that_nothing_meets_names_the_nearest_miss(case_of: CaseOf) -> None:
    case = case_of(3)
    free = plan(case.partition, case.edge, case.cloud, LINK)
    with pytest.raises(PlanError) as caught:
        plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            constraints=Constraints(deadline_s=free.chosen.latency_s / 2),
        )
    assert f"nearest is {free.chosen.label}, which takes" in str(caught.value)


def test_a_deadline_binds_whatever_the_objective(case_of: CaseOf) -> None:
    case = case_of(3)
    fast = plan(case.partition, case.edge, case.cloud, LINK).chosen
    constraints = Constraints(deadline_s=fast.latency_s)
    for objective in OBJECTIVES:
        made = plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            objective=objective,
            constraints=constraints,
        )
        assert made.chosen.latency_s <= fast.latency_s


def test_profiles_of_another_partition_are_refused(case_of: CaseOf) -> None:
    one, other = case_of(1), case_of(2)
    with pytest.raises(UsageError, match="the edge's profile must be of partition"):
        plan(one.partition, other.edge, one.cloud, LINK)
    short = replace(one.cloud, segments=one.cloud.segments[:1])
    with pytest.raises(UsageError, match="the cloud's profile must cover all"):
        plan(one.partition, one.edge, short, LINK)


def test_what_cannot_be_asked_is_said_in_one_sentence(case_of: CaseOf) -> None:
    case = case_of(1)
    with pytest.raises(UsageError, match="an objective must be one of"):
        plan(case.partition, case.edge, case.cloud, LINK, objective="speed")
    with pytest.raises(UsageError, match="jpeg:10 was not"):
        plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            constraints=Constraints(codecs=("jpeg:10",)),
        )
    with pytest.raises(UsageError, match="deadline_s must be 0 or more"):
        Constraints(deadline_s=-1.0)
    with pytest.raises(UsageError, match="a codec must be one of"):
        Constraints(codecs=("gzip",))


def test_an_explanation_names_the_winner_and_what_it_beats(case_of: CaseOf) -> None:
    for seed in range(30):
        case = case_of(seed)
        for objective in OBJECTIVES:
            made = plan(case.partition, case.edge, case.cloud, LINK, objective=objective)
            text = made.explain()
            assert text.startswith(made.chosen.label[:1].upper() + made.chosen.label[1:])
            trivial: list[Candidate] = [
                c for c in made.candidates if c.cut in ("edge-only", "cloud-only")
            ]
            best_trivial = trivial[0]
            assert best_trivial.label in text or best_trivial is made.chosen
            assert ("No cut inside the model" in text) == (made.chosen in trivial)
