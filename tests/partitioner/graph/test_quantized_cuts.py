"""Quantized operators stay whole: what crosses around them is the 8-bit tensor, exactly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.costs.link import Link
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import cut_of, position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.search.cost_table import costs_of
from midstream_partitioner.search.min_cut import CutSearch
from midstream_wire.errors import ModelError

#: Quantized convolutions in every form that onnxruntime computes in integers: bare, behind a
#: pool that it moves to the 8-bit side, with a clamp that the quantizer's range does, and in a
#: residual sum. `f` is a float part that no quantizer follows at once.
_QDQ = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 3, 8, 8] x) => (float[n, 4, 7, 7] y) {
    q0 = QuantizeLinear(x, s, z)
    d0 = DequantizeLinear(q0, s, z)
    w0 = DequantizeLinear(k0, ks, kz)
    c0 = Conv <pads = [1, 1, 1, 1]> (d0, w0)
    q1 = QuantizeLinear(c0, s, z)
    d1 = DequantizeLinear(q1, s, z)
    p1 = MaxPool <kernel_shape = [2, 2]> (d1)
    w1 = DequantizeLinear(k1, ks, kz)
    c1 = Conv <pads = [1, 1, 1, 1]> (p1, w1)
    r1 = Relu(c1)
    q2 = QuantizeLinear(r1, s, z0)
    d2 = DequantizeLinear(q2, s, z0)
    w2 = DequantizeLinear(k2, ks, kz)
    c2 = Conv <pads = [1, 1, 1, 1]> (d2, w2)
    q3 = QuantizeLinear(c2, s, z)
    d3 = DequantizeLinear(q3, s, z)
    a3 = Add(d2, d3)
    q4 = QuantizeLinear(a3, s, z)
    d4 = DequantizeLinear(q4, s, z)
    f = Sin(d4)
    g = Cos(f)
    q5 = QuantizeLinear(f, s, z)
    d5 = DequantizeLinear(q5, s, z)
    y = Add(g, d5) }"""


@pytest.fixture(scope="module")
def network() -> Network:
    model = parser.parse_model(_QDQ)
    rng = np.random.default_rng(0)
    weights = {
        "s": np.float32(0.05),
        "z": np.uint8(121),
        "z0": np.uint8(0),
        "ks": np.float32(0.004),
        "kz": np.int8(0),
        "k0": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "k2": rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
        "k1": rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
    }
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return load_network(model)


def test_only_8_bit_tensors_cross_where_operators_are_quantized(network: Network) -> None:
    crossing = [cut.tensors for cut in position_cuts(network.graph)]
    inside = [names for names in crossing if names and names != ("x",)]
    quantized = [names for names in inside if set(names) <= {"q0", "q1", "q2", "q3", "q4"}]
    assert quantized == [("q0",), ("q1",), ("q2",), ("q4",)]
    assert [names for names in inside if "f" in names or "g" in names]
    floats = {"d0", "c0", "p1", "c1", "r1", "d2", "a3", "d4"}
    assert floats.isdisjoint(name for names in crossing for name in names)


def test_every_cut_gives_the_bits_of_the_whole(network: Network) -> None:
    rng = np.random.default_rng(1)
    inputs = {"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)}
    expected = Executor(network.model.SerializeToString()).run(inputs)["y"]
    cuts = [cut for cut in position_cuts(network.graph) if not {"f", "g"} & {*cut.tensors}]
    for cut in cuts:
        part = partition(network, [cut])
        found = Chain(part).run(inputs, 0, len(part.segments))["y"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=cut.label)


@pytest.mark.parametrize("last", ["DequantizeLinear_1", "Conv_3", "MaxPool_6", "Relu_9"])
def test_a_cut_inside_a_quantized_operator_is_refused(network: Network, last: str) -> None:
    nodes = network.graph.nodes
    index = next(node.index for node in nodes if node.name == last)
    with pytest.raises(ModelError, match="a quantized operator must stay whole"):
        cut_of(network.graph, range(index + 1))


def test_the_best_cuts_keep_quantized_operators_whole(network: Network) -> None:
    graph = network.graph
    seconds = [1e-3 for _ in graph.nodes]
    # Where 8-bit tensors cost a thousand times their bytes, floats would win if they could.
    dear = {name: 1e6 for name, tensor in graph.tensors.items() if tensor.dtype == "uint8"}
    search = CutSearch(graph, costs_of(graph, seconds, seconds, wire_nbytes=dear))
    for slowdown in (0.1, 1.0, 10.0):
        head = search.best(Link(1e6, 1e6, 0.01), edge_slowdown=slowdown).head
        assert not graph.fused & {*graph.crossing(head)}


def test_floats_that_are_used_as_floats_too_may_cross(network: Network) -> None:
    assert network.graph.may_cross("f")
    assert network.graph.may_cross("x")


def test_a_quantized_weight_may_serve_twice(network: Network) -> None:
    """onnxruntime refuses it where it is to widen the weight: each operator gets a copy."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    for node in model.graph.node:
        node.input[:] = ["k1" if name == "k2" else name for name in node.input]
    found = Executor(model.SerializeToString())
    assert found.run({"x": np.ones((1, 3, 8, 8), np.float32)})["y"].shape == (1, 4, 7, 7)


def test_sums_of_8_bit_products_do_not_saturate_whatever_the_processor() -> None:
    """Two products of 255 x 127 are more than 16 bits hold."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (uint8[1, 64] x) => (float[1, 8] y) {
        d = DequantizeLinear(x, s, z)
        w = DequantizeLinear(k, s, kz)
        m = MatMul(d, w)
        q = QuantizeLinear(m, t, z)
        y = DequantizeLinear(q, t, z) }""")
    weights = {
        "s": np.float32(1),
        "t": np.float32(64 * 127),
        "z": np.uint8(0),
        "kz": np.int8(0),
        "k": np.full((64, 8), 127, np.int8),
    }
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    found = Executor(model.SerializeToString()).run({"x": np.full((1, 64), 255, np.uint8)})
    np.testing.assert_array_equal(found["y"], np.full((1, 8), 64 * 127 * 255, np.float32))
