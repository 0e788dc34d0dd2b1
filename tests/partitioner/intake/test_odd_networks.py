"""Networks of kinds that exporters make and few tools open: each is cut, and answers alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from midstream_lab.verification.verify import verify_cuts
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array, TensorSpec

#: Silero's voice detector as published, and what feeds it: 512 new samples at 16 kHz, 64 old.
SILERO = {
    "models/silero-vad-16k-sequence.onnx": {"sequence_length": 3},
    "models/silero-vad-16k-stream.onnx": {"batch": 1, "sequence": 576},
    "llm/silero_vad_16k_op15.onnx": {"batch": 1, "sequence": 576},
}


def parse(text: str, opset: int = 17) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def verified(network: Network, inputs: Mapping[str, Array], *, every: int = 1) -> int:
    """Cut at every so many positions; how many were, none of which fails."""
    cuts = position_cuts(network.graph)[::every]
    found = verify_cuts(network, cuts=cuts, inputs=[inputs])
    assert found.failures == ()
    assert found.checked == len(cuts)
    return len(cuts)


def specs_of(network: Network) -> list[TensorSpec]:
    return [network.graph.tensors[name].spec for name in network.graph.inputs]


@pytest.mark.parametrize("name", SILERO)
def test_the_voice_detector_in_its_published_forms(name: str, data_folder: Path) -> None:
    sizes = tuple(sorted(SILERO[name].items()))
    network = load_network(data_folder / name, sizes=sizes)
    (inputs,) = read_inputs(network.feed, specs_of(network), None, count=1, seed=0)
    if "sr" in inputs:
        inputs["sr"] = np.array(16000)
    assert verified(network, inputs, every=6) > 4


PADDED = """
net (float[batch, samples] x) => (float[batch, m] y) {
  p = Constant <value = int64[4] {0, 0, 0, 40}> ()
  padded = Pad <mode = "reflect"> (x, p)
  nz = NonZero(padded)
  first = Constant <value = int64[1] {0}> ()
  found = Gather(nz, first)
  n = Shape(found)
  f = Cast <to = 1> (n)
  s = ReduceSum(f)
  y = Mul(padded, s) }"""


def test_a_network_that_no_size_of_one_fits_names_the_size_and_one_that_does() -> None:
    with pytest.raises(ModelError) as caught:
        load_network(parse(PADDED))
    told = str(caught.value)
    assert "at the sizes assumed, batch=1, samples=1, this one does not" in told
    assert "--size batch=1,samples=128, at which it runs" in told
    network = load_network(parse(PADDED), sizes=(("samples", 128),))
    x = np.random.default_rng(0).standard_normal((1, 128)).astype(np.float32)
    assert verified(network, {"x": x}) > 3


NAMELESS = """
net (float[?, ?] x, float[2, ?, 4] state) => (float[?, ?] y, float[2, 4] kept) {
  p = Constant <value = int64[4] {0, 0, 0, 40}> ()
  padded = Pad <mode = "reflect"> (x, p)
  nz = NonZero(padded)
  n = Shape(nz)
  f = Cast <to = 1> (n)
  s = ReduceSum(f)
  y = Mul(padded, s)
  axes = Constant <value = int64[1] {1}> ()
  kept = Squeeze(state, axes) }"""


def test_lengths_without_a_name_are_tried_one_by_one() -> None:
    with pytest.raises(ModelError, match=r"--size state:1=1,x:0=1,x:1=128, at which it runs"):
        load_network(parse(NAMELESS))


NESTED = """
net (float[n, 4] x, bool outer, bool inner) => (float[n, 4] y) {
  a = Relu(x)
  b = Neg(x)
  c = If (outer) <
    then_branch = t () => (float[n, 4] d) {
      e = Add(a, b)
      d = If (inner) <
        then_branch = tt () => (float[n, 4] f) { f = Mul(e, x) },
        else_branch = te () => (float[n, 4] g) { h = Sub(a, e) g = Abs(h) } > },
    else_branch = o () => (float[n, 4] i) { i = If (inner) <
        then_branch = ot () => (float[n, 4] j) { j = Sub(b, a) },
        else_branch = oe () => (float[n, 4] k) { k = Identity(x) } > } >
  y = Add(c, a) }"""


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_bodies_within_bodies_take_what_they_need_across_a_cut(
    outer: bool, inner: bool
) -> None:
    network = load_network(parse(NESTED))
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    inputs = {"x": x, "outer": np.array(outer), "inner": np.array(inner)}
    assert verified(network, inputs) == 5


SCALED = """
net (float[batch, 4] x, float gain, int64 times) => (float[batch, 4] y) {
  a = Mul(x, gain)
  b = Cast <to = 1> (times)
  c = Mul(a, b)
  y = Relu(c) }"""


def test_single_numbers_are_inputs_from_files_too(tmp_path: Path) -> None:
    network = load_network(parse(SCALED))
    path = tmp_path / "inputs.npz"
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(path, x=x, gain=np.float32(2), times=np.array([1, 2, 3]))
    found = list(read_inputs(network.feed, specs_of(network), str(path), count=3))
    assert [float(each["gain"]) for each in found] == [2, 2, 2]
    assert [int(each["times"]) for each in found] == [1, 2, 3]
    assert {each["times"].shape for each in found} == {()}
    for each in found:
        assert verified(network, each) == 5
    np.savez(path, x=np.float32(1), gain=np.float32(2), times=np.array(1))
    with pytest.raises(UsageError, match="x must be samples of"):
        next(iter(read_inputs(network.feed, specs_of(network), str(path), count=1)))


def test_a_network_of_single_numbers_alone(tmp_path: Path) -> None:
    network = load_network(parse("net (float x) => (float y) { a = Neg(x) y = Exp(a) }"))
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.float32(0.5))
    (inputs,) = read_inputs(network.feed, specs_of(network), str(path), count=1)
    assert verified(network, inputs) == 3
