"""Taking networks in: every opset, every way of writing one down, and what may be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import OLDEST_OPSET, Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array

MakeModel = Callable[..., onnx.ModelProto]
MakeNetwork = Callable[..., Network]
RunWhole = Callable[..., dict[str, Array]]
RunPlaced = Callable[..., dict[str, Array]]

#: The newest that the oldest supported and the current onnxruntime both run is 21; this one is
#: the newest of the current.
NEWEST_OPSET = 26
#: The oldest onnxruntime that is allowed takes no newer one.
EVERY_RUNTIMES_OPSET = 23

CONVOLVED = """
net (float[n, 3, 8, 8] x) => (float[n, 5] y) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k)
  b = Relu(a)
  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
  f = Flatten(p)
  y = Gemm(f, w, v)
}"""

COUNTED = """
net (float[n, 4] x, int64 count) => (float[n, 4] y) {
  a = Add(x, bias)
  go = Constant <value = bool {1}> ()
  b = Loop <body = step (int64 i, bool c, float[n, 4] carried)
      => (bool c_out, float[n, 4] next) {
    c_out = Identity(c)
    t = Mul(carried, a)
    next = Add(t, bias) }> (count, go, x)
  y = Relu(b)
}"""

CHOSEN = """
net (float[n, 4] x, bool which) => (float[n, 4] y) {
  a = Add(x, bias)
  b = If (which) <
    then_branch = yes () => (float[n, 4] t) { t = Mul(a, scale) },
    else_branch = no () => (float[n, 4] e) { e = Sub(a, x) }>
  y = Relu(b)
}"""

SCANNED = """
net (float[5, 4] x) => (float[5, 4] y) {
  a = Mul(x, scale)
  first = Gather <axis = 0> (a, zero)
  last, b = Scan <num_scan_inputs = 1, body = step (float[4] s, float[4] row)
      => (float[4] s_out, float[4] out) {
    t = Add(s, row)
    s_out = Mul(t, bias)
    out = Add(t, first) }> (first, a)
  y = Relu(b)
}"""

VECTORS = {
    "bias": np.linspace(0.1, 0.4, 4, dtype=np.float32),
    "scale": np.linspace(-1.0, 1.0, 4, dtype=np.float32),
    "zero": np.array(0, np.int64),
}


@contextmanager
def newest_runtimes_alone(opset: int) -> Iterator[None]:
    """Skip where the installed onnxruntime is too old for an opset that not all must take."""
    try:
        yield
    except ModelError as error:
        if opset <= EVERY_RUNTIMES_OPSET or "its opset must be at most" not in str(error):
            raise
        pytest.skip(str(error))


def split_everywhere(network: Network) -> Any:
    return partition(network, position_cuts(network.graph))


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_every_opset_is_taken_in_and_runs_split(
    opset: int, make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    rng = np.random.default_rng(opset)
    shapes = {"k": (4, 3, 3, 3), "w": (64, 5), "v": (5,)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    network = make_network(CONVOLVED, weights, opset=opset, ir=min(3 + opset // 4, 10))
    assert [node.op_type for node in network.graph.nodes] == [
        "Conv", "Relu", "MaxPool", "Flatten", "Gemm",
    ]  # fmt: skip
    part = split_everywhere(network)
    for batch in (1, 3):
        inputs = {"x": rng.standard_normal((batch, 3, 8, 8)).astype(np.float32)}
        with newest_runtimes_alone(opset):
            answer = run_placed(part, 2, inputs)["y"]
        np.testing.assert_allclose(
            answer, run_whole(network, inputs)["y"], rtol=1e-5, atol=1e-5
        )


def test_an_opset_that_is_too_old_says_which_one_came(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Relu(x) }", opset=6)
    with pytest.raises(ModelError, match=r"opset must be 7 or newer; .* has 6"):
        load_network(model)


def test_initializers_listed_as_inputs_are_no_inputs(branches_model: onnx.ModelProto) -> None:
    old = onnx.ModelProto()
    old.CopyFrom(branches_model)
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    network = load_network(old)
    assert network.graph.inputs == ("x",)
    assert network.graph.digest == load_network(branches_model).graph.digest


def test_nodes_without_names_get_one_each(make_network: MakeNetwork) -> None:
    network = make_network("net (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }")
    assert [node.name for node in network.graph.nodes] == ["Relu_0", "Relu_1"]


def test_nodes_of_one_name_are_told_apart(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }")
    for node in model.graph.node:
        node.name = "act"
    assert len({node.name for node in load_network(model).graph.nodes}) == 2


def test_nodes_and_weights_that_no_output_needs_are_gone(make_network: MakeNetwork) -> None:
    network = make_network(
        "net (float[4] x) => (float[4] y) { y = Relu(x) d = Add(x, bias) e = Abs(d) }", VECTORS
    )
    assert [node.op_type for node in network.graph.nodes] == ["Relu"]
    assert not network.model.graph.initializer


def test_several_inputs_and_outputs_keep_their_order(
    make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    network = make_network("""
        net (float[n, 4] b, float[n, 4] a) => (float[n, 4] z, float[n, 4] y) {
        s = Add(a, b) y = Mul(s, a) z = Sub(y, b) }""")
    assert network.graph.inputs == ("b", "a")
    assert network.graph.outputs == ("z", "y")
    part = split_everywhere(network)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((2, 4)).astype(np.float32) for name in "ab"}
    whole = run_whole(network, inputs)
    for k in range(len(part.cuts)):
        answer = run_placed(part, k, inputs)
        assert list(answer) == ["z", "y"]
        assert all(np.array_equal(answer[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("text", "op_type", "captured"),
    [
        (CHOSEN, "If", {"a", "x", "which"}),
        (COUNTED, "Loop", {"a", "x", "count"}),
        (SCANNED, "Scan", {"a", "first"}),
    ],
    ids=["If", "Loop", "Scan"],
)
def test_bodies_stay_whole_and_what_they_capture_is_consumed(
    text: str,
    op_type: str,
    captured: set[str],
    make_network: MakeNetwork,
    run_whole: RunWhole,
    run_placed: RunPlaced,
) -> None:
    network = make_network(text, VECTORS)
    node = next(node for node in network.graph.nodes if node.op_type == op_type)
    assert set(node.inputs) == captured
    part = split_everywhere(network)
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {
        "x": rng.standard_normal((5, 4)).astype(np.float32),
        "which": np.array(True),
        "count": np.array(3, np.int64),
    }
    inputs = {name: inputs[name] for name in network.graph.inputs}
    whole = run_whole(network, inputs)["y"]
    for k in range(len(part.cuts)):
        answer = run_placed(part, k, inputs)["y"]
        np.testing.assert_allclose(answer, whole, rtol=1e-5, atol=1e-6)


def test_a_body_takes_the_weights_it_captures_along(make_network: MakeNetwork) -> None:
    network = make_network(CHOSEN, VECTORS)
    before, _, after = split_everywhere(network).segments
    held = [
        {tensor.name for tensor in onnx.load_model_from_string(s.model).graph.initializer}
        for s in split_everywhere(network).segments
    ]
    assert held == [{"bias"}, {"scale"}, set()]
    assert before.weight_nbytes == 16
    assert after.weight_nbytes == 0


def test_sequences_never_cross(make_network: MakeNetwork) -> None:
    network = make_network("""
        net (float[n, 4] x) => (float[m, 4] y) {
        a = Relu(x) s = SequenceConstruct(a, x) b = ConcatFromSequence <axis = 0> (s)
        y = Abs(b) }""")
    assert network.graph.tensors["s"].carriable is False
    assert [len(cut.head) for cut in position_cuts(network.graph)] == [0, 1, 3, 4]
    split_everywhere(network)


def test_bfloat16_crosses(make_network: MakeNetwork) -> None:
    """Though onnxruntime hands out no numpy array of it."""
    network = make_network("""
        net (float[n, 4] x) => (float[n, 4] y) { a = Cast <to = 16> (x) y = Cast <to = 1> (a) }
    """)
    assert [cut.tensors for cut in position_cuts(network.graph)] == [("x",), ("a",), ()]
    assert len(split_everywhere(network).segments) == 2


def test_string_inputs_and_outputs_are_refused(make_model: MakeModel) -> None:
    text = "net (string[2] x) => (string[2] y) { y = Identity(x) }"
    with pytest.raises(
        ModelError, match=r"inputs must be dense tensors of .*; 'x' is of type string"
    ):
        load_network(make_model(text))


def test_quantized_weights_stay_quantized_and_with_their_consumer(
    make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    rng = np.random.default_rng(0)
    network = make_network(
        """net (float[n, 16] x) => (float[n, 8] y) {
        xq = QuantizeLinear(x, sx, zero)
        xd = DequantizeLinear(xq, sx, zero)
        wd = DequantizeLinear(wq, sw, zero)
        a = MatMul(xd, wd)
        y = Relu(a) }""",
        {
            "wq": rng.integers(-127, 127, (16, 8)).astype(np.int8),
            "sw": np.array(0.01, np.float32),
            "sx": np.array(0.05, np.float32),
            "zero": np.array(0, np.int8),
        },
    )
    types = [node.op_type for node in network.graph.nodes]
    assert types == ["QuantizeLinear", "DequantizeLinear", "MatMul", "Relu"]
    assert network.graph.tensors["xq"].dtype == "int8"
    part = split_everywhere(network)
    # The 8-bit tensor crosses: what is made of it belongs to the operator that takes it.
    product = onnx.load_model_from_string(part.segments[1].model).graph
    assert sorted(node.op_type for node in product.node) == [
        "DequantizeLinear", "DequantizeLinear", "MatMul",
    ]  # fmt: skip
    stored = {tensor.name: tensor.data_type for tensor in product.initializer}
    assert stored["wq"] == TensorProto.INT8
    assert part.segments[1].weight_nbytes < 16 * 8 + 16
    inputs = {"x": rng.standard_normal((2, 16)).astype(np.float32)}
    np.testing.assert_allclose(
        run_placed(part, 1, inputs)["y"], run_whole(network, inputs)["y"], rtol=1e-5
    )


def test_constants_are_outputs_like_any_other(
    make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    """Made by a node, or stored, and used by the network besides."""
    network = make_network(
        """net (float[n, 4] x) => (float[n, 4] y, float[4] made, float[4] bias) {
        made = Abs(scale)
        a = Add(x, bias)
        y = Mul(a, made) }""",
        VECTORS,
    )
    inputs = {"x": np.ones((2, 4), np.float32)}
    whole = run_whole(network, inputs)
    np.testing.assert_array_equal(whole["bias"], VECTORS["bias"])
    part = split_everywhere(network)
    for k in range(len(part.cuts)):
        answer = run_placed(part, k, inputs)
        assert all(np.array_equal(answer[name], whole[name]) for name in whole)


def test_an_input_handed_straight_to_an_output_never_crosses(
    make_network: MakeNetwork, run_placed: RunPlaced
) -> None:
    network = make_network(
        "net (float[4] x, float[4] z) => (float[4] y, float[4] z) { y = Abs(x) }"
    )
    part = split_everywhere(network)
    assert [spec.name for spec in part.crossing(0)] == ["x"]
    assert [spec.name for spec in part.outputs_from(0)] == ["y"]
    inputs = {name: np.full(4, -1, np.float32) for name in "xz"}
    for k in (0, 1):
        np.testing.assert_array_equal(run_placed(part, k, inputs)["z"], inputs["z"])


def test_random_numbers_are_drawn_once_for_all_who_use_them(
    make_network: MakeNetwork, run_placed: RunPlaced
) -> None:
    network = make_network("""
        net (float[4] x) => (float[4] y, float[4] z) {
        r = RandomNormal <shape = [4]> ()
        y = Add(x, r) a = Abs(y) b = Sub(y, r) z = Mul(b, a) }""")
    assert "r" in network.graph.tensors
    inputs = {"x": np.arange(4, dtype=np.float32)}
    answer = run_placed(split_everywhere(network), 2, inputs)
    expected = inputs["x"] * np.abs(answer["y"])
    np.testing.assert_allclose(answer["z"], expected, rtol=1e-4, atol=1e-5)


def test_shapes_that_depend_on_values_are_observed(
    make_network: MakeNetwork, run_whole: RunWhole, run_placed: RunPlaced
) -> None:
    network = make_network("""
        net (float[n, 6] x) => (int64[r, m] where, float[p, q] y) {
        where = NonZero(x)
        swapped = Constant <value_ints = [1, 0]> ()
        shape = Shape(where)
        to = Gather(shape, swapped)
        z = Reshape(where, to)
        y = Cast <to = 1> (z) }""")
    graph = network.graph
    assert graph.tensors["where"].dtype == "int64"
    assert len(graph.tensors["where"].nominal) == 2
    part = split_everywhere(network)
    inputs = {"x": np.array([[0, 1, 0, 2, 3, 0]], np.float32)}
    whole = run_whole(network, inputs)
    for k in range(len(part.cuts)):
        answer = run_placed(part, k, inputs)
        assert all(np.array_equal(answer[name], whole[name]) for name in whole)


def test_a_feed_in_front_makes_the_picture_the_input(
    make_model: MakeModel, tmp_path: Path, run_placed: RunPlaced
) -> None:
    model = make_model("net (float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) { y = Relu(x) }")
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "net.toml").write_text('kind = "image"\nscale = "1/255"\nmean = 0.5\n')
    network = load_network(path)
    spec = partition(network, ()).inputs[0]
    assert (spec.dtype, spec.shape) == ("uint8", ("n", 4, 4, 3))
    picture = np.full((1, 4, 4, 3), 255, np.uint8)
    answer = run_placed(split_everywhere(network), 1, {spec.name: picture})["y"]
    np.testing.assert_allclose(answer, np.full((1, 3, 4, 4), 0.5), rtol=1e-6)


@pytest.mark.parametrize("field", ["float_data", "raw_data"])
def test_weights_come_in_either_field(field: str, make_model: MakeModel) -> None:
    model = make_model("net (float[n, 2] x) => (float[n, 2] y) { y = Add(x, b) }")
    values = np.array([1, 2], np.float32)
    raw = field == "raw_data"
    tensor = helper.make_tensor(
        "b", TensorProto.FLOAT, [2], values.tobytes() if raw else values, raw
    )
    model.graph.initializer.append(tensor)
    kept = load_network(model).model.graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(kept), values)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path, "a\0b", "x" * 5000):
        with pytest.raises(UsageError, match=r"a model must be an ONNX file.*cannot be read"):
            load_network(path)
