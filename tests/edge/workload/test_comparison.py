"""The placements that a plan is held against."""

from __future__ import annotations

import pytest

from midstream_edge.workload.comparison import BASELINES, contenders_of
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.assess import Assessment
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.planning.plan import Candidate, Plan


def plan_of(part: Partition, *ranked: tuple[str, str]) -> Plan:
    """A plan with these cuts and codecs for candidates, best first."""
    known = {cut.id: cut for cut in part.cuts}
    candidates = tuple(
        Candidate(
            Assessment(
                Placement(cut, codec, 0, f"{cut} {codec}", True, 0, 0, 0, 0, 0, 0, None),
                known.get(cut, part.cuts[-1]),
                0,
            ),
            Estimate(),
            0.0,
            throughput_hz=1.0,
        )
        for cut, codec in ranked
    )
    return Plan(candidates[0], None, candidates, Link(1e6, 1e6, 0.1), "latency", (), "")


@pytest.mark.parametrize("codec", ["jpeg:90", "webp:80", "avif:80", "half", "png"])
def test_the_input_is_sent_with_the_codec_that_is_planned_best(
    small: Partition, codec: str
) -> None:
    inner = small.cuts[1].id
    made = plan_of(
        small,
        (EDGE_ONLY, "raw"),
        (inner, "half"),
        (CLOUD_ONLY, codec),
        (inner, "raw"),
        (CLOUD_ONLY, "jpeg:50"),
        (CLOUD_ONLY, "raw"),
    )
    assert [(c.name, c.candidate.cut, c.candidate.codec) for c in contenders_of(made)] == [
        ("edge-only", EDGE_ONLY, "raw"),
        ("cloud-only raw", CLOUD_ONLY, "raw"),
        ("cloud-only compressed", CLOUD_ONLY, codec),
        ("best cut", inner, "half"),
    ]


def test_what_the_constraints_rule_out_is_no_baseline(small: Partition) -> None:
    inner = small.cuts[1].id
    names = [c.name for c in contenders_of(plan_of(small, (inner, "half"), (inner, "raw")))]
    assert names == ["best cut"]
    assert not {*names} & {*BASELINES}


def test_a_choice_that_is_none_of_the_baselines_is_run_as_well(small: Partition) -> None:
    ranked = ((CLOUD_ONLY, "webp:80"), (CLOUD_ONLY, "jpeg:90"), (CLOUD_ONLY, "raw"))
    made = plan_of(small, *ranked)
    asked = Plan(
        made.candidates[1], None, made.candidates, made.link, made.objective, (), made.accuracy
    )
    assert [(c.name, c.candidate.codec) for c in contenders_of(asked)][-1] == (
        "plan", "jpeg:90",
    )  # fmt: skip
