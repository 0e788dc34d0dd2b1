"""What draws random numbers is found wherever it stands, and drawn once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.onnx_tools.random_nodes import RandomNodes
from midstream_partitioner.partition.cutting import partition

NORMAL = helper.make_node("RandomNormal", [], ["o"], shape=[1, 8], dtype=1)
BODY_OUTPUT = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 8])


def call(name: str) -> onnx.NodeProto:
    return helper.make_node(name, [], ["o"], domain="local")


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, [], ["o"], list(nodes), imports)


def in_if(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    body = helper.make_graph(list(nodes), "body", [], [BODY_OUTPUT])
    return helper.make_node("If", ["yes"], ["o"], then_branch=body, else_branch=body)


def like(op_type: str) -> list[onnx.NodeProto]:
    return [helper.make_node(op_type, ["ones"], ["o"])]


DRAWN: dict[str, tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]] = {
    "in the graph": ([NORMAL], []),
    "in a function": ([call("Noise")], [function("Noise", NORMAL)]),
    "in a function of a function": (
        [call("Outer")],
        [function("Outer", call("Noise")), function("Noise", NORMAL)],
    ),
    "in a branch": ([in_if(NORMAL)], []),
    "in a function in a branch": ([in_if(call("Noise"))], [function("Noise", NORMAL)]),
    "like a constant": (like("RandomUniformLike"), []),
    "normally like a constant": (like("RandomNormalLike"), []),
    "with a probability": (like("Bernoulli"), []),
    "dropped out": ([helper.make_node("Dropout", ["ones", "half", "yes"], ["o"])], []),
}


def noisy(nodes: list[onnx.NodeProto], functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    """(x + noise) - noise: x where the noise is drawn once, and noise where it is not."""
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("Add", ["x", "o"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Neg", ["a"], ["m"]),
            helper.make_node("Relu", ["m"], ["s"]),
            helper.make_node("Sub", ["r", "s"], ["b"]),
            helper.make_node("Sub", ["b", "o"], ["y"]),
        ],
        "noisy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [
            numpy_helper.from_array(np.full((1, 8), 0.5, np.float32), "ones"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array(False), "no"),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


@pytest.mark.parametrize("where", DRAWN)
def test_numbers_are_drawn_once_wherever_the_network_is_cut(where: str) -> None:
    model = noisy(*DRAWN[where])
    assert RandomNodes.of(model).names == (model.graph.node[0].name,)
    network = load_network(model)
    part = partition(network, position_cuts(network.graph))
    x = np.arange(8, dtype=np.float32).reshape(1, 8)
    answer = Chain(part).run({"x": x}, 0, len(part.segments))
    np.testing.assert_allclose(answer["y"], x, atol=1e-5)


def test_dropout_that_is_switched_off_draws_nothing() -> None:
    stored = helper.make_node("Dropout", ["ones", "half", "no"], ["o"])
    assert RandomNodes.of(noisy([stored], [])).names == ()
    unsaid = helper.make_node("Dropout", ["ones"], ["o"])
    assert RandomNodes.of(noisy([unsaid], [])).names == ()


def test_functions_that_call_each_other_in_a_circle_end() -> None:
    circle = [function("A", call("B")), function("B", call("A"), NORMAL)]
    assert RandomNodes.of(noisy([call("A")], circle)).operators == ("A",)
