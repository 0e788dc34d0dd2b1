"""Operations of operators against counts made by hand from their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.intake.operators import Call, operations
from midstream_partitioner.planning.choose_cuts import static_profile
from midstream_wire.tensors import Array

MakeModel = Callable[..., onnx.ModelProto]
MS = "com.microsoft"


def _count(
    op: str, inputs: list[tuple[int, ...] | None], output: tuple[int, ...], **attributes: Any
) -> float:
    domain, _, op_type = op.rpartition(".")
    node = helper.make_node(op_type, ["x"], ["y"], **attributes)
    call = Call(inputs, [output], {each.name: each for each in node.attribute})
    return operations(domain, op_type, call)


@pytest.mark.parametrize(
    ("op", "inputs", "output", "attributes", "by_hand"),
    [
        ("Conv", [(1, 8, 6, 6), (16, 8, 3, 3)], (1, 16, 4, 4), {}, 2 * 16 * 16 * 72),
        ("Conv", [(1, 8, 6, 6), (8, 1, 3, 3)], (1, 8, 4, 4), {"group": 8}, 2 * 8 * 16 * 9),
        (
            "QLinearConv",
            [(1, 8, 6, 6), (), (), (16, 8, 3, 3), (), (), (), ()],
            (1, 16, 4, 4),
            {},
            2 * 16 * 16 * 72,
        ),
        ("ConvTranspose", [(1, 8, 4, 4), (8, 3, 2, 2)], (1, 3, 8, 8), {}, 2 * 128 * 12),
        (
            "DeformConv",
            [(1, 2, 5, 5), (4, 2, 3, 3), (1, 18, 3, 3)],
            (1, 4, 3, 3),
            {},
            2 * 36 * 18 + 8 * 2 * 9 * 9,
        ),
        ("MatMul", [(5, 7, 3, 4), (4, 6)], (5, 7, 3, 6), {}, 2 * 35 * 3 * 4 * 6),
        ("MatMul", [(4,), (2, 4, 6)], (2, 6), {}, 2 * 2 * 4 * 6),
        ("Gemm", [(4, 3), (6, 4)], (3, 6), {"transA": 1, "transB": 1}, 2 * 3 * 4 * 6),
        ("QLinearMatMul", [(3, 4), (), (), (4, 6), (), (), (), ()], (3, 6), {}, 144),
        ("MatMulInteger", [(3, 4), (4, 6)], (3, 6), {}, 144),
        (f"{MS}.QGemm", [(4, 3), (), (), (6, 4)], (3, 6), {"transA": 1, "transB": 1}, 144),
        (f"{MS}.FusedMatMul", [(2, 4, 3), (2, 4, 6)], (2, 3, 6), {"transA": 1}, 2 * 144),
        (
            f"{MS}.FusedMatMul",
            [(3, 2, 4), (6, 2, 4)],
            (2, 3, 6),
            {"transBatchA": 1, "transBatchB": 1, "transB": 1},
            2 * 144,
        ),
        (f"{MS}.DynamicQuantizeMatMul", [(9, 3, 4), (4, 6), (1,)], (9, 3, 6), {}, 9 * 144),
        (
            f"{MS}.MatMulNBits",
            [(1, 9, 64), (32, 2, 16)],
            (1, 9, 32),
            {"K": 64, "N": 32, "bits": 4, "block_size": 32},
            2 * 9 * 64 * 32,
        ),
        ("Einsum", [(2, 3, 4), (4, 5)], (2, 3, 5), {"equation": "bij,jk->bik"}, 240),
        ("Einsum", [(7, 3, 4), (7, 4, 5)], (7, 3, 5), {"equation": "...ij,...jk"}, 840),
        ("Einsum", [(3, 4), (3, 4)], (3, 4), {"equation": "ij,ij->ij"}, 12),
        (  # from left to right: [2, 3] x [3, 4], then [2, 4] x [4, 5]
            "Einsum",
            [(2, 3), (3, 4), (4, 5)],
            (2, 5),
            {"equation": "ab,bc,cd->ad"},
            2 * 24 + 2 * 40,
        ),
        (
            "LSTM",
            [(64, 2, 32), (2, 64, 32), (2, 64, 16)],
            (64, 2, 2, 16),
            {"hidden_size": 16},
            64 * 2 * (2 * 2 * 64 * 48 + 13 * 2 * 16),
        ),
        (
            "GRU",
            [(64, 2, 32), (1, 48, 32), (1, 48, 16)],
            (64, 1, 2, 16),
            {"hidden_size": 16},
            64 * 2 * (2 * 48 * 48 + 11 * 16),
        ),
        (
            "RNN",
            [(5, 1, 32), (1, 16, 32), (1, 16, 16)],
            (5, 1, 1, 16),
            {"hidden_size": 16},
            5 * (2 * 16 * 48 + 3 * 16),
        ),
        (
            f"{MS}.DynamicQuantizeLSTM",
            [(64, 1, 32), (1, 32, 64), (1, 16, 64)],
            (64, 1, 1, 16),
            {"hidden_size": 16},
            64 * (2 * 64 * 48 + 13 * 16),
        ),
        (
            f"{MS}.Attention",
            [(2, 10, 64), (64, 192), (192,)],
            (2, 10, 64),
            {"num_heads": 4},
            2 * 20 * 64 * 192 + 4 * 20 * 10 * 64 + 5 * 4 * 20 * 10,
        ),
        (
            f"{MS}.QAttention",
            [(2, 10, 64), (64, 192), (192,), (), (), None, (), ()],
            (2, 10, 64),
            {"num_heads": 4},
            2 * 20 * 64 * 192 + 4 * 20 * 10 * 64 + 5 * 4 * 20 * 10,
        ),
        (
            "Attention",
            [(2, 8, 10, 16), (2, 2, 30, 16), (2, 2, 30, 16)],
            (2, 8, 10, 16),
            {},
            4 * 2 * 8 * 10 * 30 * 16 + 5 * 2 * 8 * 10 * 30,
        ),
        (
            f"{MS}.MultiHeadAttention",
            [(2, 10, 64), (2, 30, 64), (2, 30, 64)],
            (2, 10, 64),
            {"num_heads": 4},
            4 * 2 * 10 * 30 * 64 + 5 * 4 * 2 * 10 * 30,
        ),
        (
            f"{MS}.GroupQueryAttention",
            [(1, 1, 64), (1, 1, 16), (1, 1, 16), (1, 2, 99, 8), (1, 2, 99, 8)],
            (1, 1, 64),
            {"num_heads": 8, "kv_num_heads": 2},
            4 * 100 * 64 + 5 * 8 * 100,
        ),
        (
            f"{MS}.GroupQueryAttention",
            [(1, 10, 96), None, None],
            (1, 10, 64),
            {"num_heads": 8, "kv_num_heads": 2},
            4 * 10 * 10 * 64 + 5 * 8 * 10 * 10,
        ),
        (
            f"{MS}.MoE",
            [(10, 16), (10, 4), (4, 16, 32), None, (4, 32, 16)],
            (10, 16),
            {"k": 2},
            2 * 10 * 2 * 2 * 16 * 32,
        ),
        ("MaxPool", [(1, 4, 8, 8)], (1, 4, 4, 4), {"kernel_shape": [3, 3]}, 64 * 9),
        ("GlobalAveragePool", [(1, 4, 8, 8)], (1, 4, 1, 1), {}, 256),
        ("Softmax", [(3, 10)], (3, 10), {}, 5 * 30),
        ("DFT", [(1, 256, 1)], (1, 256, 2), {"axis": 1}, 5 * 256 * 8),
        ("Relu", [(3, 10)], (3, 10), {}, 30),
    ],
)
def test_operators_count_what_their_definition_says(
    op: str,
    inputs: list[tuple[int, ...] | None],
    output: tuple[int, ...],
    attributes: dict[str, Any],
    by_hand: int,
) -> None:
    assert _count(op, inputs, output, **attributes) == by_hand


def test_shapes_that_are_unknown_or_do_not_fit_count_one_an_output() -> None:
    assert _count("MatMul", [None, (4, 6)], (3, 6)) == 18
    assert _count("Einsum", [(2, 3), (4, 5)], (2, 5), equation="abc,cd->ad") == 10
    assert _count("LSTM", [(3,)], (7,)) == 7


def test_a_quantized_convolution_costs_what_the_float_one_does(make_model: MakeModel) -> None:
    weights: dict[str, Array] = {
        "w": np.ones((64, 64, 3, 3), np.int8),
        "s": np.array(0.1, np.float32),
        "z": np.array(128, np.uint8),
        "zw": np.array(0, np.int8),
        "f": np.ones((64, 64, 3, 3), np.float32),
    }
    whole = load_network(
        make_model(
            "net (uint8[1, 64, 28, 28] x) => (uint8[1, 64, 26, 26] y) "
            "{ y = QLinearConv(x, s, z, w, s, zw, s, z) }",
            {name: weights[name] for name in ("w", "s", "z", "zw")},
        )
    )
    plain = load_network(
        make_model(
            "net (float[1, 64, 28, 28] x) => (float[1, 64, 26, 26] y) { y = Conv(x, f) }",
            {"f": weights["f"]},
        )
    )
    assert whole.graph.nodes[0].flops == plain.graph.nodes[0].flops
    assert static_profile(whole.graph) == static_profile(plain.graph)
    assert whole.graph.nodes[0].layer


def _looped(op: str, **more: Any) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "W")
    shape = numpy_helper.from_array(np.array([1, 8]), "shape")
    inside = [
        helper.make_node("MatMul", ["c", "W"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "W"], ["d"]),
    ]
    carried = value("c", TensorProto.FLOAT, None), value("d", TensorProto.FLOAT, None)
    x, y = value("x", TensorProto.FLOAT, [1, 8]), value("y", TensorProto.FLOAT, [1, 8])
    if op == "Loop":
        inside.append(helper.make_node("Identity", ["go"], ["on"]))
        body = helper.make_graph(
            inside,
            "body",
            [
                value("i", TensorProto.INT64, []),
                value("go", TensorProto.BOOL, []),
                carried[0],
            ],
            [value("on", TensorProto.BOOL, []), carried[1]],
        )
        node = helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)
    else:
        body = helper.make_graph(inside, "body", [carried[0]], [carried[1]])
        node = helper.make_node("Scan", ["x3"], ["y"], body=body, num_scan_inputs=1)
        x = value("x3", TensorProto.FLOAT, [5, 1, 8])
        y = value("y", TensorProto.FLOAT, [5, 1, 8])
    rounds = numpy_helper.from_array(np.array(10), "rounds")
    weights = [weight, shape] + ([rounds] if op == "Loop" else [])
    return helper.make_model(
        helper.make_graph([node], "net", [x], [y], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


@pytest.mark.parametrize(("op", "rounds"), [("Loop", 10), ("Scan", 5)])
def test_a_body_counts_once_a_round(op: str, rounds: int) -> None:
    graph = load_network(_looped(op)).graph
    once = 2 * (2 * 8 * 8) + 8 + (1 if op == "Loop" else 0)
    assert graph.nodes[0].flops == rounds * once


def test_a_branch_counts_the_dearer_of_the_two() -> None:
    value = helper.make_tensor_value_info
    out = [value("t", TensorProto.FLOAT, [1, 8])]
    dear = helper.make_graph([helper.make_node("MatMul", ["x", "W"], ["t"])], "a", [], out)
    cheap = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "b", [], out)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("If", ["flag"], ["y"], then_branch=dear, else_branch=cheap)],
            "net",
            [value("x", TensorProto.FLOAT, [1, 8]), value("flag", TensorProto.BOOL, [])],
            [value("y", TensorProto.FLOAT, [1, 8])],
            [numpy_helper.from_array(np.ones((8, 8), np.float32), "W")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert load_network(model).graph.nodes[0].flops == 2 * 8 * 8


def test_a_local_function_counts_what_is_in_it(make_model: MakeModel) -> None:
    text = """
    net (float[1, 8] x) => (float[1, 8] y) { h = local.Twice(x, w) y = Relu(h) }
    <domain: "local", opset_import: ["" : 17, "local" : 1]>
    Twice (a, b) => (c) { d = local.Once(a, b) c = local.Once(d, b) }
    <domain: "local", opset_import: ["" : 17]>
    Once (a, b) => (c) { c = MatMul(a, b) }"""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n{text}'
    )
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    model.graph.initializer.append(weight)
    assert load_network(model).graph.nodes[0].flops == 2 * (2 * 8 * 8)
