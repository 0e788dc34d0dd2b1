"""Small networks, written in ONNX's own textual form, and ways to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from midstream_partitioner.chain import Chain, State
from midstream_partitioner.intake import Network, load_network
from midstream_partitioner.partition import Partition
from midstream_partitioner.runtime import Executor
from midstream_wire.tensors import Array


def make_model(
    text: str, weights: Mapping[str, Array] | None = None, *, opset: int = 17, ir: int = 8
) -> onnx.ModelProto:
    """The graph in `text` (docs: onnx.parser) with `weights` as initializers."""
    model = parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def make_network(
    text: str, weights: Mapping[str, Array] | None = None, **options: Any
) -> Network:
    return load_network(make_model(text, weights, **options).SerializeToString())


def run_whole(network: Network, inputs: State) -> dict[str, Array]:
    return Executor(network.model.SerializeToString()).run(inputs)


def run_placed(part: Partition, k: int, inputs: State) -> dict[str, Array]:
    """The answer with segments [0, k) on the edge: what it made and what the cloud replies."""
    chain, last = Chain(part), len(part.segments)
    state = chain.run(inputs, 0, k)
    crossed = {spec.name: state[spec.name] for spec in part.crossing(k)}
    reply = chain.run(crossed, k, last)
    replied = {spec.name: reply[spec.name] for spec in part.outputs_from(k)}
    return {spec.name: (state | replied)[spec.name] for spec in part.outputs}


#: Two branches that meet, a skip across both, and a second output made half-way.
BRANCHES = """
net (float[batch, 8] x) => (float[batch, 4] y, float[batch, 8] early) {
  stem = MatMul(x, w0)
  left = Relu(stem)
  right = MatMul(stem, w1)
  early = Add(left, right)
  skip = Mul(early, x)
  y = MatMul(skip, w2)
}"""


def branch_weights(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"w0": (8, 8), "w1": (8, 8), "w2": (8, 4)}
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


@pytest.fixture(name="make_model", scope="session")
def _make_model() -> Callable[..., onnx.ModelProto]:
    return make_model


@pytest.fixture(name="make_network", scope="session")
def _make_network() -> Callable[..., Network]:
    return make_network


@pytest.fixture(name="run_whole", scope="session")
def _run_whole() -> Callable[..., dict[str, Array]]:
    return run_whole


@pytest.fixture(name="run_placed", scope="session")
def _run_placed() -> Callable[..., dict[str, Array]]:
    return run_placed


@pytest.fixture(scope="session")
def branches() -> Network:
    """Six nodes: two branches that meet, a skip from the input, an output made half-way."""
    return make_network(BRANCHES, branch_weights())


@pytest.fixture(scope="session")
def branches_model() -> onnx.ModelProto:
    return make_model(BRANCHES, branch_weights())


@pytest.fixture
def inputs() -> dict[str, Array]:
    """Three samples for `branches`."""
    return {"x": np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)}
