"""The central claim on other backends: every placement answers as the default whole does.

Run where the libraries are (`make test-torch`, `make test-openvino`), skipped elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser
from tests.partitioner.profiling.test_half_precision import model_of
from tests.proofs.conftest import TRAINED, load, take_in

from midstream_lab.networks import NETWORKS
from midstream_lab.verification.verify import verify_partition
from midstream_partitioner.backends import torch_backend
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_partitioner.compare import argmax_equal, relative_error
from midstream_partitioner.costs.device import Device
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.profiling.profiler import profile_layers, profile_segments
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import DTYPES

# The converter's own, of how it indexes; without a test around it is told to be silent.
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")

DOZEN = 12
NAMES = (
    *(name for name in NETWORKS if name != "vgg16"),  # half a gigabyte of weights
    *("light_shufflenet", "light_squeezenet", "light_inception_v1"),
    *TRAINED,
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"name": "torch"}, marks=pytest.mark.torch, id="torch"),
        pytest.param({"provider": "openvino"}, marks=pytest.mark.openvino, id="openvino"),
    ],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return open_backend(**request.param)
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_every_placement_answers_as_the_whole_within_the_backends_rounding(
    name: str, backend: Backend, request: pytest.FixtureRequest
) -> None:
    subject = take_in(load(name, request))
    positions = position_cuts(subject.network.graph)[1:-1]
    cuts = random.Random(1).sample(positions, min(DOZEN, len(positions)))
    part = partition(subject.network, cuts)
    chain, last = Chain(part, backend=backend), len(part.segments)
    state, bits = dict(subject.inputs), set()
    for k in range(last + 1):
        if k:
            state = chain.run(state, k - 1, k)
        crossed = {spec.name: state[spec.name] for spec in part.crossing(k)}
        reply = chain.run(crossed, k, last)
        replied = {spec.name: reply[spec.name] for spec in part.outputs_from(k)}
        answer = {spec.name: (state | replied)[spec.name] for spec in part.outputs}
        assert relative_error(subject.expected, answer) <= backend.unit
        assert argmax_equal(subject.expected, answer)
        bits.add(tuple(array.tobytes() for array in answer.values()))
    assert backend.repeats
    assert len(bits) == 1
    # Ten times further, another input is told from this one.
    assert relative_error(subject.otherwise, answer) > 10 * backend.unit


def test_verify_holds_a_backend_to_the_whole(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    subject = take_in(load("digits", request))
    part = partition(subject.network, position_cuts(subject.network.graph)[3:9:3])
    found = verify_partition(part, inputs=[subject.inputs], backend=backend)
    assert found.failures == ()
    assert found.backend == backend.name
    assert 0 < found.max_relative_error <= backend.unit


def test_a_profile_names_its_backend_and_has_every_time(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    subject = take_in(load("digits", request))
    part = partition(subject.network, position_cuts(subject.network.graph)[3:9:3])
    chain = Chain(part, backend=backend)
    device = Device("here", threads=1)
    found = profile_segments(chain, [subject.inputs], device, runs=3, codecs=["raw"])
    assert found.device.backend == backend.name
    assert all(stat.median_s > 0 for stat in found.segments)


def test_many_threads_share_a_chain(backend: Backend, request: pytest.FixtureRequest) -> None:
    subject = take_in(load("digits", request))
    part = partition(subject.network, position_cuts(subject.network.graph)[3:9:3])
    chain, last = Chain(part, backend=backend), len(part.segments)
    expected = chain.run(subject.inputs, 0, last)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: chain.run(subject.inputs, 0, last), range(64)))
    for answer in answers:
        assert all(answer[name].tobytes() == expected[name].tobytes() for name in expected)


def test_a_span_is_fused_on_the_backend(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    subject = take_in(load("digits", request))
    part = partition(subject.network, position_cuts(subject.network.graph)[3:9:3])
    chain, last = Chain(part, backend=backend), len(part.segments)
    chain.fuse(0, last)
    assert relative_error(subject.expected, chain.run(subject.inputs, 0, last)) <= backend.unit


def test_a_run_is_given_up(backend: Backend, request: pytest.FixtureRequest) -> None:
    subject = take_in(load("digits", request))
    part = partition(subject.network, [])
    chain, stop = Chain(part, backend=backend), Stop()
    chain.run(subject.inputs, 0, 1, stop=stop)
    stop.tell()
    with pytest.raises(Stopped):
        chain.run(subject.inputs, 0, 1, stop=stop)


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_precision_runs(backend: Backend, dtype: str, unit: float) -> None:
    network = load_network(model_of(dtype))
    part = partition(network, position_cuts(network.graph)[1:-1])
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(DTYPES[dtype])
    last = len(part.segments)
    expected = Chain(part).run({"x": x}, 0, last)
    answer = Chain(part, backend=backend).run({"x": x}, 0, last)
    assert answer["y"].dtype == x.dtype
    assert relative_error(expected, answer) <= 2 * unit


@pytest.mark.torch
def test_layers_are_timed_one_by_one_on_torch(request: pytest.FixtureRequest) -> None:
    subject = take_in(load("digits", request))
    found = profile_layers(
        subject.network,
        subject.inputs,
        Device("here", threads=1),
        runs=3,
        backend=_torch(),
    )
    assert all(layer.time.median_s > 0 for layer in found.layers)
    assert {layer.fused_into for layer in found.layers} == {None}
    assert found.device.backend == "torch-cpu"


@pytest.mark.torch
def test_names_that_differ_by_a_dot_stay_apart_on_torch() -> None:
    """The converter makes attributes of names, where both would be one."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "net (float[1, 2] x) => (float[1, 2] y)"
        '<float[2] "a.b" = {1.0, 2.0}, float[2] "a_b" = {10.0, 20.0}>'
        '{ t = Add(x, "a.b") \n y = Mul(t, "a_b") }'
    )
    made = _run(model, [np.array([[1.0, 1.0]], np.float32)])
    np.testing.assert_array_equal(made, [[20.0, 60.0]])


@pytest.mark.torch
@pytest.mark.parametrize(
    "nodes",
    [
        "y = MatMul(w, x)",  # a stored factor on the left
        "t = MatMul(x, w) \n y = Add(t, rows)",  # what is added is no bias
        "m = Transpose(w) \n y = Gemm(x, m, b)",  # weights that are computed
    ],
)
def test_products_with_stored_factors_are_what_onnx_says(nodes: str) -> None:
    """Some of these the converter alone gets wrong, without a word."""
    weights = "<float[2, 2] w = {1.0, 2.0, 3.0, 4.0}, float[2, 1] rows = {1.0, 2.0}, "
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>net (float[2, 2] x) => (float[2, 2] y)'
        + weights
        + "float[2] b = {5.0, 6.0}> { "
        + nodes
        + " }"
    )
    x = np.array([[1.0, -1.0], [2.0, 0.5]], np.float32)
    (expected,) = Executor(model.SerializeToString()).run({"x": x}).values()
    np.testing.assert_allclose(_run(model, [x]), expected)


@pytest.mark.torch
def test_a_layer_whose_weights_come_in_is_refused() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "net (float[2, 2] x, float[2, 2] w) => (float[2, 2] y) { y = Gemm(x, w) }"
    )
    with pytest.raises(ModelError, match="operators that onnx2pytorch can make of torch's"):
        _torch().compile(model.SerializeToString())


@pytest.mark.torch
def test_a_conversion_that_is_wrong_is_found_at_the_first_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "net (float[1, 2] x) => (float[1, 2] y) { y = Relu(x) }"
    )
    other = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "net (float[1, 2] v0) => (float[1, 2] v1) { v1 = Neg(v0) }"
    )
    _torch()
    monkeypatch.setattr(torch_backend, "convertible", lambda model, without: other)
    with pytest.raises(ModelError, match="must answer as onnxruntime does, and y differs by"):
        _run(model, [np.ones((1, 2), np.float32)])


@pytest.mark.torch
def test_what_the_converter_would_guess_is_refused() -> None:
    """It falls back on a function of torch by the operator's name, without its attributes."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
        "net (float[1, 2] x) => (float[1, 2] y) { y = com.microsoft.Gelu(x) }"
    )
    with pytest.raises(ModelError, match=r"Gelu of com\.microsoft cannot run"):
        _torch().compile(model.SerializeToString())


@pytest.mark.torch
def test_a_device_that_is_not_there_is_refused() -> None:
    _torch()
    with pytest.raises(UsageError, match="--device must be one that the installed torch"):
        open_backend("torch", device="abacus")


def _torch() -> Backend:
    try:
        return open_backend("torch")
    except UsageError as error:
        pytest.skip(str(error))


def _run(model: onnx.ModelProto, inputs: Sequence[Any]) -> Any:
    network = load_network(model)
    part = partition(network, [])
    names = [spec.name for spec in part.inputs]
    (answer,) = (
        Chain(part, backend=_torch()).run(dict(zip(names, inputs, strict=True)), 0, 1).values()
    )
    return answer
