"""What is no model, or a damaged or hostile one, ends in one clear sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from midstream_partitioner.backends import onnxruntime_backend as runtime
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import MidstreamError, ModelError

MakeModel = Callable[..., onnx.ModelProto]
MakeNetwork = Callable[..., Network]

#: Every kind of field that a reader touches: attributes, a body, weights, a computed shape.
VARIED = """
net (float[N, 3, 8, 8] x, bool c) => (float[N, 4] y, int64[K] k)
  <int64[2] s = {0, -1}, float[2] unused_by_shape = {1.5, 2.5}> {
  a = Conv <kernel_shape = [3, 3], strides = [1, 1]> (x, w)
  b = Relu(a)
  d = If (c) <
    then_branch = yes () => (float[N, 4, 6, 6] t) { t = Add(b, b) },
    else_branch = no () => (float[N, 4, 6, 6] e) { e = Mul(b, a) }>
  r = Reshape(d, s)
  y = MatMul(r, f)
  z = Shape(a)
  k = Identity(z)
}"""


def take_in(source: Path | bytes | onnx.ModelProto) -> None:
    network = load_network(source)
    Chain(partition(network, position_cuts(network.graph)))


def sentence(source: Path | bytes | onnx.ModelProto) -> str:
    """What taking `source` in complains about: one line that ends with what to do."""
    with pytest.raises(ModelError) as caught:
        take_in(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def varied(make_model: MakeModel) -> bytes:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "f": (144, 4)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return make_model(VARIED, weights).SerializeToString()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"\0" * 100, b"PK\x03\x04" * 9],
    ids=["empty", "text", "picture", "zeros", "archive"],
)
def test_a_file_that_is_no_model_is_called_that(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert f"must be an ONNX file with nodes; {path} is not one" in sentence(path)
    assert "the bytes given is not one" in sentence(content)


def test_a_truncated_model_is_refused(varied: bytes) -> None:
    for length in range(0, len(varied), 97):
        sentence(varied[:length])


def test_flipped_bits_never_surface_as_another_error(varied: bytes) -> None:
    """Most flips hit weights and go unseen; here four in five hit what is around them."""
    structure = [*range(700), *range(len(varied) - 500, len(varied))]
    refused = []
    for seed in range(400):
        dice = random.Random(seed)
        damaged = bytearray(varied)
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.choice(structure) if dice.random() < 0.8 else dice.randrange(len(varied))
            damaged[at] ^= 1 << dice.randrange(8)
        try:
            take_in(bytes(damaged))
        except MidstreamError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in text for text in refused)


def test_an_unknown_operator_is_named(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { a = Relu(x) y = Frobnicate(a) }")
    assert "Frobnicate" in sentence(model)


def test_an_operator_of_an_unknown_domain_is_named(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)
    assert "com.example" in sentence(model)


def test_an_opset_newer_than_the_runtime_is_refused_where_it_would_run(
    make_model: MakeModel,
) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Relu(x) }", opset=99)
    assert "must run on onnxruntime" in sentence(model)


def test_memory_for_a_tiny_model_that_wants_16_gib_is_refused(make_model: MakeModel) -> None:
    model = make_model("""
        net (float[1] x) => (float[a, b] y) {
        s = Constant <value_ints = [65536, 65536]> ()
        k = ConstantOfShape(s) y = Add(k, x) }""")
    assert model.ByteSize() < 150
    assert "would take 16" in sentence(model)


def test_memory_wanted_behind_what_inference_sees_is_refused(make_model: MakeModel) -> None:
    """The size comes out of a ReduceSum, which shape inference does not compute."""
    model = make_model("""
        net (float[1] x) => (float[a, b] y) {
        parts = Constant <value_ints = [400000, 255360]> ()
        side = ReduceSum <keepdims = 1> (parts)
        s = Concat <axis = 0> (side, side)
        k = ConstantOfShape(s) y = Add(k, x) }""")
    assert "of this machine's memory" in sentence(model)


def calling_twice(levels: int) -> onnx.ModelProto:
    """Local functions that each call the one below twice: doubled with every level."""
    functions = [
        f'<domain: "f", opset_import: ["" : 17, "f" : 1]> '
        f"F{level} (a) => (b) {{ m = f.F{level - 1}(a) b = f.F{level - 1}(m) }}"
        for level in range(1, levels)
    ]
    first = '<domain: "f", opset_import: ["" : 17]> F0 (a) => (b) { b = Relu(a) }'
    net = f"net (float[4] x) => (float[4] y) {{ y = f.F{levels - 1}(x) }}"
    header = '<ir_version: 9, opset_import: ["" : 17, "f" : 1]>'
    return parser.parse_model("\n".join((header, net, first, *functions)))


def test_functions_that_double_with_every_level_are_counted_before_they_are_written_out() -> (
    None
):
    assert "must have at most 1,000,000 nodes" in sentence(calling_twice(28))
    assert "must have at most 1,000,000 nodes" in sentence(calling_twice(2000))
    take_in(calling_twice(6))


def test_functions_that_call_each_other_in_a_circle_are_refused() -> None:
    model = calling_twice(3)
    model.functions[0].node[0].domain, model.functions[0].node[0].op_type = "f", "F2"
    assert "a local function must not call itself" in sentence(model)


def test_a_loop_without_an_end_is_given_up(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output's shape is known once it has run, which it never has."""
    monkeypatch.setattr(runtime, "OBSERVED_S", 0.3)
    model = make_model("""
        net (float[4] x) => (float[n] y) {
        trips = Constant <value_int = 4000000000000000000> ()
        go = Constant <value = bool {1}> ()
        y = Loop (trips, go, x) <
            body = body (int64 i, bool c, float[m] s) => (bool d, float[k] t) {
            d = Identity(c) t = Neg(s) }> }""")
    assert "must run within 0 s on one input" in sentence(model)


def test_nodes_out_of_order_are_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Relu(a) a = Relu(x) }")
    assert "must come after what it uses; Relu '' uses 'a'" in sentence(model)


def test_a_tensor_made_twice_is_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Relu(x) y = Abs(x) }")
    assert "every tensor must be made once; 'y'" in sentence(model)


def test_an_output_that_nothing_makes_is_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] z) { y = Relu(x) }")
    assert "nothing makes 'z'" in sentence(model)


def test_a_network_without_outputs_is_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => () { y = Relu(x) }")
    assert "must have outputs" in sentence(model)


def test_a_network_without_inputs_is_refused(make_model: MakeModel) -> None:
    model = make_model("net () => (float[2] y) { y = RandomNormal <shape = [2]> () }")
    assert "at least one input" in sentence(model)


def test_a_network_that_only_passes_its_input_on_is_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2] x) => (float[2] x) { y = Relu(x) }")
    assert "must compute its outputs" in sentence(model)


def test_shapes_that_contradict_each_other_are_refused(make_model: MakeModel) -> None:
    model = make_model("net (float[2, 3] x) => (float[2, 3] y) { y = MatMul(x, x) }")
    sentence(model)


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[2], raw_data=b"1234"),
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[2], raw_data=b"1" * 4096),
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[2], float_data=[1.0]),
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[-2], raw_data=bytes(8)),
        TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40]),
        TensorProto(name="b", data_type=TensorProto.UNDEFINED, dims=[2], raw_data=bytes(8)),
        TensorProto(name="b", data_type=77, dims=[2], raw_data=bytes(8)),
    ],
    ids=["short", "long", "few", "negative", "huge", "undefined", "unknown"],
)
def test_a_weight_that_is_not_what_it_says_is_refused(
    tensor: TensorProto, make_model: MakeModel
) -> None:
    model = make_model("net (float[2] x) => (float[2] y) { y = Add(x, b) }")
    model.graph.initializer.append(tensor)
    assert "'b'" in sentence(model)


def test_a_dimension_whose_name_is_no_text_is_one_without_a_name(
    make_model: MakeModel,
) -> None:
    model = make_model(
        "net (float[rows, 2] x) => (float[rows, 2] y) { a = Abs(x) y = Abs(a) }"
    )
    damaged = model.SerializeToString().replace(b"rows", b"\xff\xfe\xfd\xfc")
    assert load_network(damaged).graph.tensors["a"].shape == ("?", 2)
    take_in(damaged)


def test_names_that_are_no_text_are_refused() -> None:
    node = helper.make_node("Relu", ["x"], ["?????"])
    value = helper.make_tensor_value_info("?????", TensorProto.FLOAT, [2])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph([node], "net", [x], [value]))
    damaged = model.SerializeToString().replace(b"?????", b"\xff\xfe\xfd\xfc\xfb")
    assert "names must be UTF-8" in sentence(damaged)
