"""What a file declares of shapes is a hint; what inference and a run say counts."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.partitioner.conftest import make_model, make_network

from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition

TWO = "{ feat = MatMul(x, w1) b = Relu(feat) y = MatMul(b, w2) }"
WEIGHTS = {"w1": np.ones((8, 8), np.float32), "w2": np.ones((8, 4), np.float32)}


def shape_of(network: Network, name: str) -> tuple[int | str, ...]:
    return network.graph.tensors[name].shape


@pytest.mark.parametrize("declared", ["1, 4", "batch, 5", "N, 4", "1, 2, 3"])
def test_a_declared_output_shape_changes_nothing(declared: str) -> None:
    network = make_network(f"net (float[batch, 8] x) => (float[{declared}] y) {TWO}", WEIGHTS)
    plain = make_network(f"net (float[batch, 8] x) => (float[batch, 4] y) {TWO}", WEIGHTS)
    assert shape_of(network, "y") == ("batch", 4)
    assert network.graph.digest == plain.graph.digest
    part = partition(network, position_cuts(network.graph))
    answer = Chain(part).run({"x": np.ones((4, 8), np.float32)}, 0, len(part.segments))
    assert answer["y"].shape == (4, 4)
    part.outputs[0].check(answer["y"])


def test_declared_shapes_of_values_inside_change_nothing() -> None:
    model = make_model(f"net (float[batch, 8] x) => (float[batch, 4] y) {TWO}", WEIGHTS)
    model.graph.value_info.append(
        helper.make_tensor_value_info("feat", TensorProto.FLOAT, [1, 9])
    )
    assert shape_of(load_network(model), "feat") == ("batch", 8)


def test_declared_shapes_inside_bodies_change_nothing() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node(op_type, ["r"], [f"out_{op_type}"])],
            op_type,
            [],
            [helper.make_tensor_value_info(f"out_{op_type}", TensorProto.FLOAT, [1, 4])],
        )
        for op_type in ("Neg", "Abs")
    ]
    model = make_model(
        """net (float[batch, 4] x, bool c) => (float[1, 4] y) {
            r = Relu(x)
            y = Identity(r) }"""
    )
    model.graph.node[1].CopyFrom(
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    )
    assert shape_of(load_network(model), "y") == ("batch", 4)


def test_an_output_that_inference_cannot_tell_is_taken_from_a_run() -> None:
    network = make_network(
        """net (float[n, 4] x) => (float[7, 3] y) {
            nz = NonZero(x)
            y = Cast <to = 1> (nz) }"""
    )
    assert shape_of(network, "y") == (2, "?")


@pytest.mark.parametrize("size", [-1, 0, -7])
def test_a_size_that_cannot_be_is_an_open_dimension(size: int) -> None:
    model = make_model("net (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    network = load_network(model)
    assert shape_of(network, "x") == ("?", 4)
    assert network.graph.inputs == ("x",)
    assert network.graph.tensors["x"].spec.admits("float32", (3, 4))
    answer = Chain(partition(network, ())).run({"x": np.ones((3, 4), np.float32)}, 0, 1)
    assert answer["y"].shape == (3, 4)


def test_an_empty_name_is_an_open_dimension() -> None:
    model = make_model("net (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = ""
    assert shape_of(load_network(model), "x") == ("?", 4)
