"""The networks on which the proofs run, each loaded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import numpy_helper

from midstream_lab.networks import NETWORKS
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_wire.tensors import Array

THREADS = 2

LIGHT_FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
LIGHT = tuple(sorted(path.stem for path in LIGHT_FOLDER.glob("*.onnx")))
TRAINED = ("resnet20-cifar10", "ultraface-rfb-320")
#: Half a minute to draw its 143 million weights, for a path like VGG-16: in the slow suite.
BIG = "light_vgg19"


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """A network, an input, and what the unsplit network answers to it and to another one."""

    network: Network
    inputs: dict[str, Array]
    expected: dict[str, Array]
    otherwise: dict[str, Array]


def take_in(network: Network) -> Subject:
    specs = [network.graph.tensors[name].spec for name in network.graph.inputs]
    inputs, others = read_inputs(network.feed, specs, None, count=2, seed=0)
    whole = Executor(network.model.SerializeToString(), threads=THREADS)
    return Subject(network, inputs, whole.run(inputs), whole.run(others))


def enliven(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """`model` with seeded weights where onnx's test data fills them with one constant.

    As they come, all classes of these networks are equally likely whatever the input, and no
    fault would show in the answer. For the same reason the last Softmax goes: one of random
    logits is 1, whatever the others are.
    """
    rng = np.random.default_rng(seed)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for position in reversed(range(len(model.graph.node))):
        node = model.graph.node[position]
        if node.op_type == "ConstantOfShape" and node.input[0] in stored:
            shape = stored[node.input[0]].tolist()
            name = node.output[0]
            model.graph.initializer.append(numpy_helper.from_array(_weights(shape, rng), name))
            del model.graph.node[position]
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=last.input[0]))
        del model.graph.node[-1]
    return model


def _weights(shape: list[int], rng: np.random.Generator) -> Array:
    """He's scale for kernels; for vectors what a variance or a scale may be, or a bias."""
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def load(name: str, request: pytest.FixtureRequest) -> Network:
    if name in NETWORKS:
        reference = NETWORKS[name]
        return load_network(reference.build(), feed=reference.feed, name=name)
    if name in LIGHT:
        return load_network(enliven(onnx.load(LIGHT_FOLDER / f"{name}.onnx")), name=name)
    folder: Path = request.getfixturevalue("data_folder")
    return load_network(folder / "models" / f"{name}.onnx")


def _parameters() -> list[Any]:
    names = (*NETWORKS, *LIGHT, *TRAINED)
    return [pytest.param(n, marks=pytest.mark.slow if n == BIG else ()) for n in names]


@pytest.fixture(scope="module", params=_parameters())
def subject(request: pytest.FixtureRequest) -> Subject:
    return take_in(load(request.param, request))


@pytest.fixture(scope="module", params=LIGHT)
def light(request: pytest.FixtureRequest) -> tuple[Network, Array]:
    """A network of onnx's test data as it comes, and the output stored beside it."""
    network = load_network(LIGHT_FOLDER / f"{request.param}.onnx")
    stored = onnx.TensorProto()
    stored.ParseFromString((LIGHT_FOLDER / f"{request.param}_output_0.pb").read_bytes())
    return network, numpy_helper.to_array(stored)
