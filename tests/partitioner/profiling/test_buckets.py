"""Measuring a network with open dimensions bucket by bucket."""

from __future__ import annotations

import numpy as np
import pytest
from tests.partitioner.conftest import make_model

from midstream.loaders import at_sizes, open_buckets
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.size_spans import MOST_BUCKETS, parse_sizes
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.over_sizes import over_sizes
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.buckets import grouped, profile_sizes
from midstream_wire.errors import TensorError, UsageError
from midstream_wire.tensors import TensorSpec

DEVICE = Device("here", threads=1)
WORDS = TensorSpec("ids", "int64", ("batch", "seq"))


@pytest.fixture(scope="module")
def part() -> Partition:
    """Pairs of numbers: of an odd length it cannot run."""
    network = load_network(
        make_model(
            """net (float[batch, seq] x) => (float[batch, rows, 2] y) {
               a = Relu (x)
               y = Reshape (a, pairs) }""",
            {"pairs": np.array([1, -1, 2])},
        ),
        sizes=parse_sizes(["batch=1,seq=8..128"]),
    )
    return partition(network, position_cuts(network.graph))


def test_a_profile_covers_every_bucket_of_the_feed(part: Partition) -> None:
    samples = open_buckets(part, None)
    found = profile_sizes(Chain(part), samples, DEVICE, runs=1, codecs=["raw"])
    measured = {dict(each.sizes)["seq"]: each for each in found.buckets}
    assert sorted(measured) == [8, 16, 32, 64, 128]
    assert found.sizes == part.feed.sizes
    for size, each in measured.items():
        assert each.crossings_nbytes == (4 * size, 4 * size, 0)
        assert len(each.segments) == 2
        assert {cost.codec for cost in each.codecs} == {"raw"}


def test_a_size_that_cannot_run_is_named(part: Partition) -> None:
    odd = at_sizes(part, parse_sizes(["seq=7"]))
    with pytest.raises(TensorError, match="at batch=1, seq=7: the model cannot run"):
        profile_sizes(Chain(odd), open_buckets(odd, None), DEVICE, runs=1, codecs=["raw"])


def test_a_size_of_a_dimension_that_is_not_open_is_refused(part: Partition) -> None:
    with pytest.raises(UsageError, match="batch, seq"):
        at_sizes(part, parse_sizes(["height=7"]))


def test_samples_are_grouped_by_size_and_many_are_thinned() -> None:
    samples = [{"ids": np.zeros((1, n), np.int64)} for n in (9, 3, 9, 4)]
    groups = grouped([WORDS], samples)
    assert [(dict(sizes)["seq"], len(same)) for sizes, same in groups.items()] == [
        (3, 1), (4, 1), (9, 2),
    ]  # fmt: skip
    many = [{"ids": np.zeros((1, n), np.int64)} for n in range(1, 100)]
    kept = [dict(sizes)["seq"] for sizes in grouped([WORDS], many)]
    assert len(kept) == MOST_BUCKETS
    assert (kept[0], kept[-1]) == (1, 99)


def test_tied_dimensions_are_one_in_buckets_and_plans() -> None:
    network = load_network(
        make_model(
            """net (float[batch, ?] x, float[batch, ?] mask) => (float[batch, ?] y) {
               a = Mul (x, mask)
               y = Relu (a) }"""
        ),
        sizes=parse_sizes(["x:1=mask:1=4..16", "batch=1"]),
    )
    both = partition(network, position_cuts(network.graph))
    found = profile_sizes(
        Chain(both), open_buckets(both, None), DEVICE, runs=1, codecs=["raw"]
    )
    assert [dict(each) for each in sorted(bucket.sizes for bucket in found.buckets)] == [
        {"batch": 1, "mask:1": n, "x:1": n} for n in (4, 8, 16)
    ]
    planner = Planner(both, found.slowed(1e4), found)
    (curve,) = over_sizes(planner, Link(1e6, 1e6, 1e-3), both.feed.asked)
    assert curve.name == "x:1=mask:1"
    assert (curve.pieces[0].first, curve.pieces[-1].last) == (4, 16)
    sent = next(o for o in planner.at((("mask:1", 11), ("x:1", 11))).allowed if o.k == 0)
    assert sent.payload_nbytes == pytest.approx(2 * 4 * 11, abs=200)
