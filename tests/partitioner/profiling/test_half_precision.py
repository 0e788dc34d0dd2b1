"""float16 and bfloat16: taken in, run, verified, and over the link in every codec."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from midstream_lab.verification.verify import verify_cuts, verify_partition
from midstream_partitioner.backends import providers
from midstream_partitioner.compare import relative_error
from midstream_partitioner.costs.device import Device
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import wire_nbytes
from midstream_partitioner.profiling.calibrator import calibrate
from midstream_partitioner.profiling.dataset import read_data
from midstream_partitioner.profiling.fit_transforms import fit_transforms
from midstream_partitioner.profiling.profiler import exchange, profile_layers, profile_segments
from midstream_wire.errors import ModelError
from midstream_wire.tensors import DTYPES, Array

KINDS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
#: One unit in the last place.
UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
CODECS = (
    *("raw", "lossless", "half", "int8", "int8c"),
    *("ec:0.25", "ec@2KB", "ecc:0.25", "ctx:0.25"),
)


def weights_of(dtype: Any, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (10, 8), "b2": (10,)}
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(dtype)
        for name, shape in shapes.items()
    }


def model_of(dtype: str) -> onnx.ModelProto:
    """Convolutions, a residual branch, a normalisation, a linear layer: all in `dtype`."""
    kind = KINDS[dtype]
    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], **same),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], **same),
        helper.make_node("Sigmoid", ["c1"], ["s1"]),
        helper.make_node("Add", ["r0", "s1"], ["a1"]),
        helper.make_node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p1"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", kind, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", kind, ["batch", 10])],
        [
            numpy_helper.from_array(array, name)
            for name, array in weights_of(DTYPES[dtype]).items()
        ],
    )
    opset = [helper.make_opsetid("", 22)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest) -> Network:
    return load_network(model_of(request.param))


@pytest.fixture(scope="module")
def part(network: Network) -> Partition:
    by_label = {cut.tensors[0]: cut for cut in position_cuts(network.graph) if cut.tensors}
    return partition(network, [by_label[name] for name in ("r0", "p1", "f")])


@pytest.fixture(scope="module")
def inputs(network: Network) -> dict[str, Array]:
    dtype = DTYPES[network.graph.tensors["x"].spec.dtype]
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16))
    return {"x": x.astype(dtype)}


def dtype_of(network: Network) -> str:
    return network.graph.tensors["x"].spec.dtype


def test_every_activation_is_of_the_dtype_that_the_file_says(network: Network) -> None:
    kinds = {tensor.spec.dtype for tensor in network.graph.tensors.values()}
    assert kinds == {dtype_of(network)}


def test_it_computes_what_float32_does_to_its_own_rounding(
    network: Network, part: Partition, inputs: dict[str, Array]
) -> None:
    answer = Chain(part).run(inputs, 0, len(part.segments))["y"]
    assert answer.dtype == DTYPES[dtype_of(network)]
    wide = model_of(dtype_of(network))
    wide_weights = {t.name: numpy_helper.to_array(t) for t in wide.graph.initializer}
    expected = _in_float64(inputs["x"].astype(np.float64), wide_weights)
    error = np.abs(answer.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert 0 < error <= 8 * UNITS[dtype_of(network)]


def test_all_placements_and_all_cuts_verify(
    network: Network, part: Partition, inputs: dict[str, Array]
) -> None:
    assert verify_partition(part, inputs=[inputs]).failures == ()
    cuts = position_cuts(network.graph)
    assert verify_cuts(network, cuts=cuts, inputs=[inputs]).failures == ()


def test_bfloat16_is_rounded_behind_every_node_wherever_the_cut_is(
    inputs: dict[str, Array],
) -> None:
    """No rounding depends on what else a segment holds: whole and split give the same bits."""
    network = load_network(model_of("bfloat16"))
    x = {"x": inputs["x"].astype(ml_dtypes.bfloat16)}
    whole = Chain(partition(network, [])).run(x, 0, 1)["y"]
    part = partition(network, position_cuts(network.graph)[1:-1])
    split = Chain(part).run(x, 0, len(part.segments))["y"]
    assert split.tobytes() == whole.tobytes()


def test_bfloat16_inside_bodies_and_functions() -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 22, "own" : 1]>
        net (bfloat16[2] x, bool c) => (bfloat16[2] y) {
          a = own.twice(x)
          y = If (c) <
            then_branch = t () => (bfloat16[2] u) { u = Add(a, x) },
            else_branch = e () => (bfloat16[2] v) { k = Cast <to = 16> (a) v = Mul(k, x) } > }
        <domain: "own", opset_import: ["" : 22]>
        twice (p) => (q) { q = Add(p, p) }""")
    network = load_network(model)
    x = np.array([1.0078125, -3.0], ml_dtypes.bfloat16)
    chain = Chain(partition(network, []))
    for choice, expected in ((True, [3.03125, -9.0]), (False, [2.03125, 18.0])):
        y = chain.run({"x": x, "c": np.array(choice)}, 0, 1)["y"]
        assert y.dtype == x.dtype
        assert y.astype(np.float64).tolist() == expected


def test_bfloat16_in_a_devices_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    part = partition(load_network(model_of("bfloat16")), [])
    traits = providers.Traits(memory="cpu")
    monkeypatch.setitem(vars(providers)["_TRAITS"], "cpu", traits)
    with pytest.raises(ModelError, match="bfloat16 cross no cut in the memory of a device"):
        Chain(part)


@pytest.mark.parametrize("codec", CODECS)
def test_activations_cross_in_every_codec(
    part: Partition, inputs: dict[str, Array], codec: str
) -> None:
    chain = Chain(part)
    state = chain.run(inputs, 0, 1)
    made = exchange(chain, 1, state, codec)
    sent = {spec.name: state[spec.name] for spec in part.crossing(1)}
    nbytes = sum(array.nbytes for array in sent.values())
    for name, array in sent.items():
        arrived = made.delivered[name]
        assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
        # Of two bytes already, half makes no fewer: it is lossless.
        lossy = codec not in ("raw", "lossless", "half")
        assert lossy != (arrived.tobytes() == array.tobytes())
    assert 0 < made.payload_nbytes < (0.9 if lossy else 1.0) * nbytes + 200
    assert relative_error(sent, made.delivered) < 0.25
    chain.run(made.delivered, 1, len(part.segments))


def test_transforms_and_priors_of_half_precision(part: Partition) -> None:
    data = read_data(part, None, count=24)
    chain = Chain(part)
    able = Chain(fit_transforms(chain, data.inputs, [0.9], dials=[1.0], shaped=[1.0]))
    sample, tried = data.inputs[0], set()
    for k in range(len(part.segments)):
        state = able.run(sample, 0, k)
        for name in able.partition.transforms_at(k):
            packs = name.startswith("prior")
            found = exchange(able, k, state, f"{name}+{'raw' if packs else 'int8'}")
            error = relative_error(
                {spec.name: state[spec.name] for spec in part.crossing(k)}, found.delivered
            )
            assert error < 0.6
            able.run(found.delivered, k, len(part.segments))
            tried.add(name.partition(":")[0])
    assert tried == {"klt", "prior", "shaped"}


def test_it_is_profiled_and_calibrated(
    network: Network, part: Partition, inputs: dict[str, Array]
) -> None:
    device = Device("here", threads=1)
    found = profile_segments(Chain(part), [inputs], device, runs=2, codecs=("raw", "int8"))
    assert {cost.codec for cost in found.codecs} == {"raw", "int8"}
    layers = profile_layers(network, inputs, device, runs=2)
    assert layers.whole.median_s > 0
    timed = {layer.name for layer in layers.layers if layer.time.median_s > 0}
    assert {"Conv_0", "Conv_2", "MaxPool_5", "Gemm_8"} <= timed
    made = calibrate(Chain(part), read_data(part, None, count=4), codecs=["int8", "ec:0.5"])
    assert {"int8", "ec:0.5"} <= set(made.codecs)


def _in_float64(x: Array, weights: dict[str, Array]) -> Array:
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def convolve(planes: Array, kernel: Array) -> Array:
        padded = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        made: Array = np.einsum("ncyxij,ocij->noyx", windows, kernel)
        return made

    first = np.maximum(convolve(x, w["w0"]), 0)
    second = first + 1 / (1 + np.exp(-convolve(first, w["w1"])))
    pooled = second.reshape(*second.shape[:2], 8, 2, 8, 2).max((3, 5))
    made: Array = pooled.mean((2, 3)) @ w["w2"].T + w["b2"]
    return made


def test_cuts_are_chosen_by_what_two_bytes_become(network: Network) -> None:
    """Packed without loss, where float32 counts as halves: 0.5 behind a Relu, else 0.8."""
    wire = wire_nbytes(network.graph)
    tensors = network.graph.tensors
    assert wire["r0"] == 0.5 * tensors["r0"].nbytes
    assert wire["c1"] == 0.8 * tensors["c1"].nbytes
