"""Inputs that are no secret: what plans may send of a network with several inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import choose_cuts
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.profiler import profile_segments
from midstream_wire.errors import UsageError

MakeNetwork = Callable[..., Network]

TEXT = """net (float[1, 3, 32, 32] x, float[1, 32, 8, 8] mask) => (float[1, 4] y) {
    a = Conv <strides = [4, 4]> (x, k) b = Relu(a) c = Mul(b, mask)
    d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
    f = Flatten(d) y = MatMul(f, w) }"""


@pytest.fixture
def network(make_network: MakeNetwork) -> Network:
    weights = {"k": np.ones((32, 3, 4, 4), np.float32), "w": np.ones((512, 4), np.float32)}
    return make_network(TEXT, weights)


@pytest.fixture
def part(network: Network) -> Partition:
    layer_s = [0.01] * len(network.graph.nodes)
    return partition(network, choose_cuts(network.graph, layer_s))


def profile(part: Partition) -> Profile:
    rng = np.random.default_rng(0)
    specs = {spec.name: spec.shape for spec in part.inputs}
    sample = {
        name: rng.random([int(size) for size in shape], dtype=np.float32)
        for name, shape in specs.items()
    }
    return profile_segments(Chain(part), [sample], Device("here", threads=1), runs=3)


def inner_cuts(part: Partition, **asked: object) -> set[str]:
    """Tensors that a plan under `asked` may send."""
    found = profile(part)
    constraints = Constraints(min_depth=1, **asked)  # type: ignore[arg-type]
    made = Planner(part, found, found, constraints=constraints).plan(Link(1e8, 1e8, 0.01))
    sent = {cut.id: cut.tensors for cut in part.cuts}
    return {name for candidate in made.candidates for name in sent[candidate.cut]}


@pytest.mark.parametrize("public", [(), ("mask",)])
def test_cuts_hide_each_input_for_when_it_is_the_only_secret(
    network: Network, public: tuple[str, ...]
) -> None:
    """Which input is secret may be said once the cuts are chosen, and beforehand."""
    asked = Constraints(public=frozenset(public))
    layer_s = [0.01] * len(network.graph.nodes)
    cuts = choose_cuts(network.graph, layer_s, constraints=asked)
    assert max(cut.depth_of(["x"]) for cut in cuts) >= 1


def test_a_public_mask_may_cross_and_a_secret_one_may_not(part: Partition) -> None:
    known = inner_cuts(part, public=frozenset({"mask"}))
    assert known
    assert "x" not in known
    assert inner_cuts(part, public=frozenset({"x", "mask"})) >= {"x", "mask"}
    assert "mask" not in inner_cuts(part)


def test_the_feed_says_what_is_public_as_a_constraint_does(part: Partition) -> None:
    fed = replace(part, feed=replace(part.feed, public=("mask",)))
    assert inner_cuts(fed) == inner_cuts(part, public=frozenset({"mask"}))


def test_public_names_that_are_no_inputs_are_refused(
    part: Partition, make_network: MakeNetwork
) -> None:
    with pytest.raises(UsageError, match=r"which are x, mask \(not maks\)"):
        inner_cuts(part, public=frozenset({"maks"}))
    with pytest.raises(UsageError, match="list of strings"):
        Feed.from_dict({"public": 7})


def test_depths_outlive_the_file(part: Partition, tmp_path: Path) -> None:
    folder = tmp_path / "net.midstream"
    save_partition(part, folder)
    assert load_partition(folder).cuts == part.cuts
