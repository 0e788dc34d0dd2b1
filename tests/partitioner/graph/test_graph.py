"""The graph as midstream sees it: activations, producers, consumers, depths, digests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from midstream_partitioner.graph.graph import INPUT
from midstream_partitioner.intake.onnx_model import Network, load_network

MakeNetwork = Callable[..., Network]


def test_constants_are_no_part_of_the_graph(branches: Network) -> None:
    graph = branches.graph
    assert set(graph.tensors) == {"x", "stem", "left", "right", "early", "skip", "y"}
    assert graph.nodes[0].inputs == ("x",)
    assert graph.producer["x"] == INPUT
    assert graph.producer["early"] == 3
    assert graph.consumers["x"] == (0, 4)
    assert graph.consumers["y"] == ()


def test_nominal_shapes_have_symbolic_dimensions_at_one(branches: Network) -> None:
    tensor = branches.graph.tensors["early"]
    assert tensor.shape == ("batch", 8)
    assert tensor.nominal == (1, 8)
    assert tensor.nbytes == 32
    assert str(tensor.spec) == "float32 [batch, 8]"


def test_a_tensor_consumed_twice_crosses_once(branches: Network) -> None:
    assert branches.graph.crossing({0}) == ("x", "stem")
    assert branches.graph.crossing(range(4)) == ("x", "early")
    assert branches.graph.crossing(range(6)) == ()


def test_only_sets_that_hold_their_producers_are_closed(branches: Network) -> None:
    graph = branches.graph
    assert graph.is_closed(())
    assert graph.is_closed({0, 2})
    assert not graph.is_closed({2})
    assert not graph.is_closed({0, 1, 3})


def test_a_weight_shared_by_two_nodes_counts_at_the_first(make_network: MakeNetwork) -> None:
    weights = {"w": np.ones((8, 8), np.float32)}
    network = make_network(
        "net (float[1, 8] x) => (float[1, 8] y) { a = MatMul(x, w) y = MatMul(a, w) }", weights
    )
    assert [node.weight_nbytes for node in network.graph.nodes] == [256, 0]
    assert network.graph.weight_nbytes == 256


def test_flops_of_products_and_convolutions_are_exact(make_network: MakeNetwork) -> None:
    weights = {
        "k": np.ones((4, 3, 3, 3), np.float32),
        "w": np.ones((144, 10), np.float32),
    }
    network = make_network(
        """net (float[1, 3, 8, 8] x) => (float[1, 10] y) {
        a = Conv(x, k) b = Relu(a) c = Flatten(b) y = Gemm(c, w) }""",
        weights,
    )
    flops = {node.op_type: node.flops for node in network.graph.nodes}
    assert flops["Conv"] == 2 * (4 * 6 * 6) * (3 * 3 * 3)
    assert flops["Gemm"] == 2 * 10 * 144
    assert flops["Relu"] == 4 * 6 * 6


def _as_float_data(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).ravel()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.tolist())


def _with_remarks(model: onnx.ModelProto) -> None:
    model.doc_string = model.graph.doc_string = "about the model"
    model.producer_name, model.producer_version = "someone", "7"
    model.graph.node[0].doc_string = "about a node"
    model.graph.input[0].doc_string = "about an input"
    model.graph.initializer[0].doc_string = "about a weight"
    model.metadata_props.add(key="author", value="someone")
    model.graph.node[0].metadata_props.add(key="made at", value="line 3")


@pytest.mark.parametrize("change", [_as_float_data, _with_remarks])
def test_digest_ignores_how_the_network_is_written_down(
    branches_model: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(branches_model)
    change(model)
    assert model.SerializeToString() != branches_model.SerializeToString()
    assert load_network(model).graph.digest == load_network(branches_model).graph.digest


def test_digest_changes_with_one_bit_of_one_weight(branches_model: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(branches_model)
    tensor = model.graph.initializer[1]
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    assert load_network(model).graph.digest != load_network(branches_model).graph.digest


def test_digest_of_a_file_is_that_of_its_bytes(
    branches_model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("digest") / "net.onnx"
    path.write_bytes(branches_model.SerializeToString())
    from_file, from_bytes = load_network(path), load_network(path.read_bytes())
    assert from_file.graph.digest == from_bytes.graph.digest
    assert from_file.name == "net"
