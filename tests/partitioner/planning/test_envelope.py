"""Envelopes, against plans made at every bandwidth of a dense grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from midstream_partitioner.costs.link import Link
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.envelope import envelope, envelope_of
from midstream_partitioner.planning.planner import OBJECTIVES, Planner
from midstream_wire.errors import PlanError, UsageError

CaseOf = Callable[..., Any]

LINK = Link(1e6, 8e6, 0.03)
GRID = np.geomspace(1e3, 1e10, 120)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_row_at_a_bandwidth_is_the_plan_there(case_of: CaseOf, objective: str) -> None:
    for seed in range(60):
        case = case_of(seed)
        planner = Planner(case.partition, case.edge, case.cloud, objective=objective)
        found = envelope_of(planner, LINK, queue_s=0.002)
        assert found.rows[0].from_bps == 0.0
        for uplink_bps in GRID:
            made = planner.plan(replace(LINK, uplink_bps=float(uplink_bps)), queue_s=0.002)
            row = found.at(float(uplink_bps))
            assert (row.cut, row.codec, row.k) == (
                made.chosen.cut,
                made.chosen.codec,
                made.chosen.k,
            ), (seed, uplink_bps)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_both_neighbours_are_level_where_rows_meet(case_of: CaseOf, objective: str) -> None:
    for seed in range(60):
        case = case_of(seed)
        planner = Planner(case.partition, case.edge, case.cloud, objective=objective)
        found = envelope_of(planner, LINK)
        starts = [row.from_bps for row in found.rows]
        assert starts == sorted(set(starts))
        for before, after in pairwise(found.rows):
            assert (before.cut, before.codec) != (after.cut, after.codec)
            made = planner.plan(replace(LINK, uplink_bps=after.from_bps))
            values = {(c.cut, c.codec): c.value(objective) for c in made.candidates}
            assert values[before.cut, before.codec] == pytest.approx(
                values[after.cut, after.codec], rel=1e-9
            )


def test_a_range_holds_the_rows_of_the_whole_within_it(case_of: CaseOf) -> None:
    for seed in range(40):
        case = case_of(seed)
        whole = envelope(case.partition, case.edge, case.cloud, LINK)
        part = envelope(case.partition, case.edge, case.cloud, LINK, from_bps=2e6, to_bps=5e7)
        assert part.rows[0].from_bps == 2e6
        assert part.rows[-1].from_bps < 5e7
        for uplink_bps in np.geomspace(2.001e6, 4.999e7, 40):
            ours, theirs = part.at(float(uplink_bps)), whole.at(float(uplink_bps))
            assert replace(ours, from_bps=0.0) == replace(theirs, from_bps=0.0)


def test_where_no_candidate_meets_the_deadline_the_row_says_so(case_of: CaseOf) -> None:
    seen = 0
    for seed in range(40):
        case = case_of(seed)
        fastest = Planner(case.partition, case.edge, case.cloud).plan(
            replace(LINK, uplink_bps=1e9)
        )
        constraints = Constraints(deadline_s=fastest.chosen.latency_s * 1.5)
        planner = Planner(case.partition, case.edge, case.cloud, constraints=constraints)
        found = envelope_of(planner, LINK)
        seen += not found.rows[0].in_time
        for uplink_bps in GRID:
            link = replace(LINK, uplink_bps=float(uplink_bps))
            row = found.at(float(uplink_bps))
            if row.in_time:
                assert planner.plan(link).chosen.cut == row.cut
            else:
                with pytest.raises(PlanError):
                    planner.plan(link)
    assert seen > 5


def test_a_deadline_that_no_bandwidth_meets_is_a_plan_error(case_of: CaseOf) -> None:
    case = case_of(2)
    with pytest.raises(PlanError, match="none does: allow more time"):
        envelope(
            case.partition,
            case.edge,
            case.cloud,
            LINK,
            constraints=Constraints(deadline_s=1e-9),
        )


def test_constraints_that_leave_nothing_name_the_nearest_miss(case_of: CaseOf) -> None:
    case = case_of(2, held=1)
    forbid = Constraints(forbidden=frozenset({"*"}))
    with pytest.raises(PlanError, match="is forbidden by"):
        envelope(case.partition, case.edge, case.cloud, LINK, constraints=forbid)


def test_a_range_that_is_none_is_refused(case_of: CaseOf) -> None:
    case = case_of(2)
    with pytest.raises(UsageError, match="must span a range"):
        envelope(case.partition, case.edge, case.cloud, LINK, from_bps=5e6, to_bps=1e6)


def test_an_envelope_reads_as_a_sentence(case_of: CaseOf) -> None:
    case = case_of(4)
    found = envelope(case.partition, case.edge, case.cloud, LINK)
    text = found.sentence()
    assert all(row.label in text for row in found.rows)
    assert text.count(";") == len(found.rows) - 1
    only = envelope(
        case.partition,
        case.edge,
        case.cloud,
        LINK,
        constraints=Constraints(forbidden=frozenset({"*"})),
    )
    assert only.sentence() == "at every bandwidth: edge-only"
