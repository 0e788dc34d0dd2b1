"""Budgets of accuracy: calibrations as documents, and plans that keep to what was asked."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import comb, inf, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_partitioner.costs.budget import (
    BY_METRIC,
    LABELLED,
    UNLABELLED,
    Budget,
    default_budget,
)
from midstream_partitioner.costs.calibration import (
    Calibration,
    Fidelity,
    load_calibration,
    save_calibration,
)
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.envelope import envelope
from midstream_partitioner.planning.planner import OBJECTIVES, plan
from midstream_partitioner.units import parse_points, parse_share
from midstream_wire.errors import ModelError, UsageError

CaseOf = Callable[..., Any]

LINK = Link(2e6, 8e6, 0.03)
LOSSLESS = ("raw", "lossless", "png")
DIGEST = "a" * 64
SHARES = st.floats(0, 1)
DEVIATIONS = st.floats(0, 1e6)


def calibrated(case: Any, seed: int, *, labels: bool = True, **more: Any) -> Calibration:
    """A calibration of everything that `case` has costs for, with figures out of the air."""
    choose = random.Random(seed)

    def row(cut: str, codec: str, nbytes: int) -> Fidelity:
        exact = codec in LOSSLESS
        off = 0.0 if exact else 10 ** choose.uniform(-4, 0)
        loss = 0.0 if exact else choose.uniform(-2, 3)
        loss_square = 0.0 if exact else choose.uniform(abs(loss) / 100, 0.05)
        return Fidelity(
            cut=cut,
            codec=codec,
            payload_nbytes=nbytes // 2,
            payload_p95_nbytes=nbytes,
            bits_per_element=1.0,
            relative_l2_mean=off / 3,
            relative_l2_worst=off,
            cosine=1.0,
            agreement=1.0 if exact else choose.randint(950, 1000) / 1000,
            top1=0.8 if labels else None,
            top1_loss=loss if labels else None,
            top5_loss=None,
            loss_square=loss_square if labels else None,
        )

    given = {
        "graph_digest": case.partition.graph_digest,
        "partition_digest": case.partition.digest,
        "data": "out of the air",
        "generated": False,
        "samples": 1000,
        "metric": "top-1" if labels else None,
        "whole": 0.8 if labels else None,
    }
    rows = tuple(row(c.cut, c.codec, c.payload_nbytes) for c in case.edge.codecs)
    return Calibration(**(given | {"rows": rows} | more))


def keeps(budget: Budget, row: Fidelity, samples: int = 1000) -> bool:
    """The definition, written down once more: nothing worse would look as good by chance."""
    if row.codec in LOSSLESS:
        return True
    proven = not (budget.default and row.codec in ("half", "jpeg:90", "webp:80", "avif:80"))
    agreement, loss = row.agreement or 0.0, (row.top1_loss or 0.0) / 100
    if proven and row.loss_square is not None:
        spread = (row.loss_square * samples + 2) / (samples + 2)
        centre = loss * samples / (samples + 2)
        loss = centre + 1.6449 * sqrt((spread - centre**2) / (samples + 2))
    agrees = budget.min_agreement is None or agreement >= budget.min_agreement
    if proven and budget.min_agreement is not None:
        changes, changed = 1 - budget.min_agreement, round(samples * (1 - agreement))
        chance = sum(
            comb(samples, i) * changes**i * (1 - changes) ** (samples - i)
            for i in range(changed + 1)
        )
        agrees = chance <= 0.05
    return (
        (budget.max_loss is None or 100 * loss <= budget.max_loss)
        and agrees
        and (budget.max_error is None or (row.relative_l2_worst or 0.0) <= budget.max_error)
    )


BUDGETS: tuple[dict[str, Any], ...] = (
    {"max_loss": 1.0},
    {"min_agreement": 0.98},
    {"max_error": 0.01},
    {"max_loss": 2.0, "min_agreement": 0.96, "max_error": 0.3},
    {},
)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("asked", BUDGETS, ids=str)
def test_a_plan_is_the_best_of_all_cuts_and_codecs_within_the_budget(
    case_of: CaseOf, objective: str, asked: dict[str, Any]
) -> None:
    budget = Budget(**asked) if asked else LABELLED
    for seed in range(30):
        case = case_of(seed)
        found = calibrated(case, seed)
        made = plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            objective=objective,
            constraints=Constraints(**asked),
            calibration=found,
        )
        allowed = {(r.cut, r.codec) for r in found.rows if keeps(budget, r)}
        assert {(c.cut, c.codec) for c in made.candidates} == allowed | {("edge-only", "raw")}
        everything = plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            objective=objective,
            constraints=Constraints(codecs=found.codecs),
            calibration=found,
        )
        within = [
            c.value(objective)
            for c in everything.candidates
            if (c.cut, c.codec) in allowed or c.cut == "edge-only"
        ]
        assert made.chosen.value(objective) == min(within)
        assert made.budget == budget


def test_rejected_candidates_say_what_they_cost_and_what_was_allowed(case_of: CaseOf) -> None:
    case = case_of(4)
    cut = case.partition.cuts[1].id
    found = calibrated(case, 4)
    row = found.find(cut, "int8")
    assert row is not None
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "loses 1.2 points of top-1, at most 2.26 with 95 % confidence on 1000 samples, "
        "0.5 allowed": ({"max_loss": 0.5}, {"top1_loss": 1.2, "loss_square": 0.04}),
        "agrees in 99.5 %, at least 98.95 % with 95 % confidence on 1000 samples, 99 % asked "
        "for": ({"min_agreement": 0.99}, {"agreement": 0.995}),
        "deviates by 0.31 at worst, 0.1 allowed": (
            {"max_error": 0.1},
            {"relative_l2_worst": 0.31},
        ),
    }
    for reason, (asked, figures) in cases.items():
        rows = tuple(replace(each, **figures) if each == row else each for each in found.rows)
        made = plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            constraints=Constraints(**asked),
            calibration=replace(found, rows=rows),
        )
        assert (cut, "int8", reason) in {(c.cut, c.codec, why) for c, why in made.rejected}


def test_payloads_are_those_of_the_data_and_candidates_carry_what_was_measured(
    case_of: CaseOf,
) -> None:
    case = case_of(8)
    found = calibrated(case, 8)
    made = plan(case.partition, case.edge, case.cloud, LINK, calibration=found)
    for candidate in made.candidates:
        if candidate.cut != "edge-only":
            row = found.find(candidate.cut, candidate.codec)
            assert candidate.assessment.fidelity == row
            assert row is not None
            assert candidate.placement.payload_nbytes == row.payload_nbytes


def test_a_target_payload_bounds_what_nearly_every_request_sends(case_of: CaseOf) -> None:
    case = case_of(10)
    found = calibrated(case, 10)
    most = sorted(row.payload_p95_nbytes for row in found.rows)[len(found.rows) // 2]
    made = plan(
        case.partition,
        case.edge,
        case.cloud,
        LINK,
        constraints=Constraints(max_payload_nbytes=most),
        calibration=found,
    )
    known = [c.assessment.fidelity for c in made.candidates]
    assert all(row.payload_p95_nbytes <= most for row in known if row)
    assert any("allowed" in why and "sends" in why for _, why in made.rejected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_envelope_over_a_ladder_agrees_with_the_plans(
    case_of: CaseOf, objective: str
) -> None:
    for seed in range(20):
        case, asked = case_of(seed), Constraints(max_loss=1.5)
        found = calibrated(case, seed)
        rows = envelope(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            objective=objective,
            constraints=asked,
            calibration=found,
        )
        for uplink_bps in np.geomspace(1e3, 1e10, 40):
            made = plan(
                case.partition,
                case.edge,
                case.cloud,
                replace(LINK, uplink_bps=float(uplink_bps)),
                objective=objective,
                constraints=asked,
                calibration=found,
            )
            row = rows.at(float(uplink_bps))
            assert (row.cut, row.codec) == (made.chosen.cut, made.chosen.codec)


def test_pictures_of_the_input_keep_to_the_budget_like_any_codec(case_of: CaseOf) -> None:
    case = case_of(12)
    found = calibrated(case, 12)
    rows = tuple(
        replace(row, top1_loss=5.0) if row.codec in ("jpeg:90", "webp:80", "avif:80") else row
        for row in found.rows
    )
    made = plan(
        case.partition, case.edge, case.cloud, LINK, calibration=replace(found, rows=rows)
    )
    assert not {"jpeg:90", "webp:80", "avif:80"} & {c.codec for c in made.candidates}
    # What was not calibrated stays the baseline that it is without a calibration.
    rows = tuple(row for row in found.rows if row.codec != "jpeg:90")
    made = plan(
        case.partition, case.edge, case.cloud, LINK, calibration=replace(found, rows=rows)
    )
    assert "jpeg:90" in {c.codec for c in made.candidates}


def test_without_data_a_calibration_changes_nothing(case_of: CaseOf) -> None:
    case = case_of(3)
    blind = calibrated(case, 3, labels=False, generated=True)
    made = plan(case.partition, case.edge, case.cloud, LINK, calibration=blind)
    assert made == plan(case.partition, case.edge, case.cloud, LINK)
    assert made.budget is None
    assert made.accuracy.startswith("not calibrated")


def test_the_default_budget_follows_from_what_was_measured_and_is_said(
    case_of: CaseOf,
) -> None:
    case = case_of(2)
    for found, budget, said in (
        (calibrated(case, 2), LABELLED, "at most 1 points of top-1 lost, at least 97 %"),
        (calibrated(case, 2, metric="mAP"), BY_METRIC, "at most 1 points of mAP lost"),
        (
            calibrated(case, 2, labels=False),
            UNLABELLED,
            "at least 97 % agreement, at most 0.1",
        ),
    ):
        assert default_budget(found) == budget
        made = plan(case.partition, case.edge, case.cloud, LINK, calibration=found)
        assert made.budget == budget
        assert made.accuracy.startswith(said)
        assert "by default" in made.accuracy
        assert "95 % confidence on 1000 samples of out of the air" in made.accuracy


def test_what_was_named_is_planned_whatever_it_loses(case_of: CaseOf) -> None:
    case = case_of(6)
    found = calibrated(case, 6)
    rows = tuple(
        replace(r, top1_loss=50.0, loss_square=0.6) if r.codec == "int8" else r
        for r in found.rows
    )
    made = plan(
        case.partition,
        case.edge,
        case.cloud,
        LINK,
        constraints=Constraints(codecs=("int8",)),
        calibration=replace(found, rows=rows),
    )
    assert {c.codec for c in made.candidates} == {"int8", "raw"}
    bounded = plan(
        case.partition,
        case.edge,
        case.cloud,
        LINK,
        constraints=Constraints(codecs=("int8",), max_loss=1.0),
        calibration=replace(found, rows=rows),
    )
    assert {c.cut for c in bounded.candidates} == {"edge-only"}
    reasons = {why for c, why in bounded.rejected if c.codec == "int8"}
    assert len(reasons) == 1
    assert reasons.pop().startswith("loses 50 points of top-1, at most ")


@pytest.mark.parametrize(
    ("asked", "samples", "needed"),
    [({"min_agreement": 0.99}, 298, 299), ({"max_loss": 1.0}, 230, 231), ({}, 230, 231)],
    ids=str,
)
def test_a_sample_too_small_to_show_it_allows_nothing_lossy_that_wants_proof(
    case_of: CaseOf, asked: dict[str, Any], samples: int, needed: int
) -> None:
    """Every answer stays as it was, and there are too few of them, by one, or just enough."""
    case = case_of(6)
    found = calibrated(case, 6)
    same = tuple(
        replace(row, agreement=1.0, top1_loss=0.0, loss_square=0.0, relative_l2_worst=0.0)
        for row in found.rows
    )
    for count, allowed in ((samples, False), (needed, True)):
        made = plan(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            constraints=Constraints(**asked),
            calibration=replace(found, rows=same, samples=count),
        )
        codecs = {c.codec for c in made.candidates}
        assert ("int8" in codecs) is allowed
        assert (f"{needed} or more are needed" in made.accuracy) is not allowed
        # What is allowed without any sample, a small one does not take away by default.
        assert ("half" in codecs) is (allowed or not asked)


def test_a_calibration_of_an_earlier_version_bounds_losses_by_changed_answers(
    case_of: CaseOf,
) -> None:
    case = case_of(6)
    found = calibrated(case, 6)
    old = replace(found.rows[0], agreement=0.99, top1_loss=0.0, loss_square=None)
    new = replace(old, loss_square=0.01)
    assert found.loss_at_most(old) == pytest.approx(found.loss_at_most(new))
    unknown = Budget(max_loss=5.0).objection(old, replace(found, metric="mAP"))
    assert unknown == "has a loss whose spread was not kept: run `midstream calibrate` again"


def test_a_cloud_that_has_not_measured_a_codec_is_taken_to_decode_it_at_its_own_speed(
    case_of: CaseOf,
) -> None:
    case = case_of(7)
    slow = replace(
        case.edge,
        codecs=tuple(
            replace(c, decode_s=4 * k.decode_s)
            for c, k in zip(case.edge.codecs, case.cloud.codecs, strict=True)
        ),
    )
    known = {(c.cut, c.codec): c.decode_s for c in case.cloud.codecs}
    blind = replace(
        case.cloud, codecs=tuple(c for c in case.cloud.codecs if c.codec != "half")
    )
    made = plan(case.partition, slow, blind, LINK)
    halves = [c for c in made.candidates if c.codec == "half"]
    assert halves
    for candidate in halves:
        expected = known[candidate.cut, "half"]
        assert candidate.estimate.decode_s == pytest.approx(expected)


def test_what_only_the_calibrating_machine_has_timed_is_planned_at_the_devices_own_pace(
    case_of: CaseOf,
) -> None:
    """The edge takes three times what the calibrating machine takes, the cloud half."""
    case = case_of(7)
    ids = {cut.id for cut in case.partition.cuts[1:-1]}
    found = calibrated(case, 7)
    rows = tuple(replace(row, encode_s=0.002, decode_s=0.001) for row in found.rows)
    extra = tuple(
        replace(row, codec="ec:1", payload_nbytes=7, encode_s=0.02, decode_s=0.01)
        for row in rows
        if row.codec == "half" and row.cut in ids
    )
    found = replace(found, rows=(*rows, *extra))

    def paced(profile: Profile, factor: float) -> Profile:
        costs = [
            replace(cost, encode_s=0.002 * factor, decode_s=0.001 * factor)
            for cost in profile.codecs
        ]
        return replace(profile, codecs=tuple(costs))

    edge, cloud = paced(case.edge, 3), paced(case.cloud, 0.5)
    part = replace(case.partition, calibration=found)
    asked = Constraints(codecs=("ec:1", "half"))
    made = plan(part, edge, cloud, LINK, constraints=asked)
    steps = [each for each in made.candidates if each.codec == "ec:1"]
    assert {each.cut for each in steps} == ids
    for each in steps:
        assert each.placement.payload_nbytes == 7
        assert each.estimate.encode_s == pytest.approx(0.06)
        assert each.estimate.decode_s == pytest.approx(0.005)
        assert each.assessment.encode_scale == pytest.approx(3)
        assert each.assessment.decode_scale == pytest.approx(0.5)
    assert {c.assessment.encode_scale for c in made.candidates if c.codec == "half"} == {None}
    assert "ec:1 on the edge, 3 to 3 times" in made.scaled()
    assert not plan(case.partition, edge, cloud, LINK).scaled()


def test_budgets_without_the_calibration_they_need_are_refused(case_of: CaseOf) -> None:
    case, other = case_of(1), case_of(2)
    arguments = (case.partition, case.edge, case.cloud, LINK)
    bounds: tuple[dict[str, Any], ...] = (
        {"max_loss": 1.0},
        {"min_agreement": 0.9},
        {"max_error": 0.1},
    )
    for asked in bounds:
        with pytest.raises(UsageError, match="needs a calibration on data"):
            plan(*arguments, constraints=Constraints(**asked))
        blind = calibrated(case, 1, labels=False, generated=True)
        with pytest.raises(UsageError, match="needs a calibration on data"):
            plan(*arguments, constraints=Constraints(**asked), calibration=blind)
    with pytest.raises(UsageError, match="needs a calibration with labels"):
        plan(
            *arguments,
            constraints=Constraints(max_loss=1.0),
            calibration=calibrated(case, 1, labels=False),
        )
    with pytest.raises(UsageError, match="the calibration must be of partition"):
        plan(*arguments, calibration=calibrated(other, 1))


@pytest.mark.parametrize(
    "wrong",
    [{"max_loss": -1.0}, {"min_agreement": 1.5}, {"max_error": nan}, {"max_loss": inf}],
    ids=str,
)
def test_bounds_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be from 0 to"):
        Constraints(**wrong)


FIDELITIES = st.builds(
    Fidelity,
    cut=st.text(max_size=8),
    codec=st.sampled_from(["half", "ec:0.5", "klt:16+ec:0.5"]),
    payload_nbytes=st.integers(0, 1 << 40),
    payload_p95_nbytes=st.integers(0, 1 << 40),
    bits_per_element=st.floats(0, 1e6),
    relative_l2_mean=DEVIATIONS | st.none(),
    relative_l2_worst=DEVIATIONS | st.none(),
    cosine=st.floats(-1, 1) | st.none(),
    agreement=SHARES | st.none(),
    top1=SHARES | st.none(),
    top1_loss=st.floats(-100, 100) | st.none(),
    top5_loss=st.floats(-100, 100) | st.none(),
    loss_square=SHARES | st.none(),
    encode_s=SHARES | st.none(),
    decode_s=SHARES | st.none(),
)


@given(
    st.builds(
        Calibration,
        graph_digest=st.just(DIGEST),
        partition_digest=st.just(DIGEST),
        data=st.text(max_size=20),
        generated=st.booleans(),
        samples=st.integers(1, 1000),
        metric=st.none() | st.just("top-1"),
        whole=SHARES | st.none(),
        rows=st.lists(FIDELITIES, max_size=4).map(tuple),
    )
)
def test_a_calibration_survives_its_document(found: Calibration) -> None:
    assert Calibration.from_json(found.to_json()) == found


def test_a_calibration_is_found_beside_its_own_partition_alone(tmp_path: Path) -> None:
    found = Calibration(DIGEST, DIGEST, "data", False, 1, None, None, ())
    assert load_calibration(tmp_path, partition_digest=DIGEST) is None
    path = save_calibration(found, tmp_path)
    assert load_calibration(tmp_path, partition_digest=DIGEST) == found
    with pytest.raises(ModelError, match="must be of the partition beside it"):
        load_calibration(tmp_path, partition_digest="b" * 64)
    path.write_text(path.read_text().replace('"samples": 1', '"samples": 0'))
    with pytest.raises(
        UsageError, match=r"calibration\.json must be a calibration .* samples"
    ):
        load_calibration(tmp_path, partition_digest=DIGEST)
    path.write_text("I am a letter")
    with pytest.raises(UsageError, match="calibrate again"):
        load_calibration(tmp_path, partition_digest=DIGEST)


def test_losses_and_shares_are_written_as_people_say_them() -> None:
    assert parse_points("0.5pt") == 0.5
    assert parse_share("99%") == pytest.approx(0.99)
    assert parse_share("0.985") == 0.985
    for text in ("0.5", "0.5%", "-1pt", "101pt", "much"):
        with pytest.raises(UsageError, match="a loss must be"):
            parse_points(text)
    for text in ("101%", "99pt", "-1%", "most"):
        with pytest.raises(UsageError, match="a share must be"):
            parse_share(text)
