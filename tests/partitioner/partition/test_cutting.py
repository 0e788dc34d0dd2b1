"""Cutting a network once into a chain of segments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from midstream_partitioner.graph.cuts import cut_of, position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import ModelError
from midstream_wire.tensors import Array

MakeNetwork = Callable[..., Network]
RunWhole = Callable[..., dict[str, Array]]
RunPlaced = Callable[..., dict[str, Array]]


def test_the_trivial_cuts_are_always_there(branches: Network) -> None:
    part = partition(branches, ())
    assert [cut.id for cut in part.cuts] == ["cloud-only", "edge-only"]
    assert len(part.segments) == 1
    assert part.segments[0].nodes == tuple(range(6))


def test_cuts_may_come_in_any_order_and_twice(branches: Network) -> None:
    cuts = position_cuts(branches.graph)
    part = partition(branches, [cuts[4], cuts[1], cuts[4], cuts[0]])
    assert [len(cut.head) for cut in part.cuts] == [0, 1, 4, 6]
    assert part.digest == partition(branches, [cuts[1], cuts[4]]).digest


def test_the_same_network_and_cuts_give_the_same_bytes(
    branches: Network, branches_model: onnx.ModelProto
) -> None:
    again = load_network(branches_model.SerializeToString())
    first, second = (partition(n, position_cuts(n.graph)) for n in (branches, again))
    assert [s.model for s in first.segments] == [s.model for s in second.segments]
    assert first.digest == second.digest


def test_another_choice_of_cuts_is_another_partition(branches: Network) -> None:
    cuts = position_cuts(branches.graph)
    assert partition(branches, cuts[:3]).digest != partition(branches, cuts[:4]).digest


def test_cuts_that_are_not_nested_are_refused(branches: Network) -> None:
    left, right = cut_of(branches.graph, {0, 1}), cut_of(branches.graph, {0, 2})
    with pytest.raises(ModelError, match=f"must be nested; {right.id} and {left.id}"):
        partition(branches, [left, right])


def test_every_node_runs_in_exactly_one_segment(branches: Network) -> None:
    part = partition(
        branches, [cut_of(branches.graph, {0, 2}), cut_of(branches.graph, {0, 1, 2})]
    )
    ran = [index for segment in part.segments for index in segment.nodes]
    assert sorted(ran) == list(range(6))
    assert [segment.nodes for segment in part.segments] == [(0, 2), (1,), (3, 4, 5)]


def test_weights_add_up_to_those_of_the_network(branches: Network) -> None:
    part = partition(branches, position_cuts(branches.graph))
    assert part.weight_nbytes(0, 6) == branches.graph.weight_nbytes == 256 + 256 + 128
    assert part.weight_nbytes(0, 1) == 256
    assert part.weight_nbytes(3, 5) == 0


def test_what_crosses_and_what_a_reply_carries(branches: Network) -> None:
    part = partition(branches, position_cuts(branches.graph))
    assert [spec.name for spec in part.crossing(4)] == ["x", "early"]
    assert [spec.name for spec in part.outputs_from(3)] == ["y", "early"]
    assert [spec.name for spec in part.outputs_from(4)] == ["y"]
    assert part.outputs_from(6) == ()


def test_an_output_made_on_the_edge_stays_there(
    branches: Network, inputs: dict[str, Array], run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    part = partition(branches, position_cuts(branches.graph))
    whole = run_whole(branches, inputs)
    for k in range(len(part.cuts)):
        answer = run_placed(part, k, inputs)
        assert all(np.allclose(answer[name], whole[name], rtol=1e-5) for name in whole)


def test_cuts_are_found_by_id(branches: Network) -> None:
    part = partition(branches, position_cuts(branches.graph))
    assert [part.index_of(cut.id) for cut in part.cuts] == list(range(7))
    with pytest.raises(ModelError, match="'c9-abcdef' is none of them"):
        part.index_of("c9-abcdef")


def test_a_weight_used_on_both_sides_travels_with_both(
    make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    network = make_network(
        """net (float[1, 4] x) => (float[1, 4] y) {
        w = Transpose(v) a = MatMul(x, w) y = MatMul(a, w) }""",
        {"v": np.arange(16, dtype=np.float32).reshape(4, 4)},
    )
    part = partition(network, position_cuts(network.graph))
    assert [segment.weight_nbytes for segment in part.segments] == [64, 64]
    inputs = {"x": np.ones((1, 4), np.float32)}
    np.testing.assert_array_equal(
        run_placed(part, 1, inputs)["y"], run_whole(network, inputs)["y"]
    )


def test_segments_are_models_that_others_can_read(branches: Network) -> None:
    part = partition(branches, position_cuts(branches.graph)[2:4])
    for segment in part.segments:
        model = onnx.load_model_from_string(segment.model)
        onnx.checker.check_model(model, full_check=True)
        assert tuple(value.name for value in model.graph.input) == segment.inputs
        assert tuple(value.name for value in model.graph.output) == segment.outputs
