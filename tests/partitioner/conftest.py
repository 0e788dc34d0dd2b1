"""Small networks, written in ONNX's own textual form, and ways to run them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import CodecCost, Profile, Stat
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.graph.cuts import cut_of
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.partition import Partition, Segment
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


RandomGraph = Callable[..., Graph]
ClosedSets = Callable[[Graph], Iterator[frozenset[int]]]
CaseOf = Callable[..., "Case"]

PICTURES = ("png", "jpeg:90", "webp:80", "avif:80")


@pytest.fixture(scope="session")
def random_graph() -> RandomGraph:
    """Networks of up to `most_nodes` nodes with shared tensors, several inputs and outputs."""

    def build(seed: int, *, most_nodes: int = 9, least_nodes: int = 1) -> Graph:
        choose = random.Random(seed)
        tensors = {}
        names: list[str] = []

        def tensor(name: str) -> str:
            nominal = (1, choose.randint(1, 4000))
            dtype = choose.choice(["float32", "float32", "uint8"])
            tensors[name] = Tensor(name, dtype, nominal, nominal)
            names.append(name)
            return name

        inputs = tuple(tensor(f"x{i}") for i in range(choose.choice([1, 1, 2])))
        nodes = []
        for index in range(choose.randint(least_nodes, most_nodes)):
            recent = names[-4:] if choose.random() < 0.8 else names
            read = choose.sample(recent, min(len(recent), choose.choice([1, 1, 2, 3])))
            made = [tensor(f"t{index}.{i}") for i in range(choose.choice([1, 1, 1, 2]))]
            nodes.append(
                Node(
                    index=index,
                    name=f"n{index}",
                    op_type="Op",
                    inputs=tuple(read),
                    outputs=tuple(made),
                    weight_nbytes=choose.choice([0, 10, 200, 1000]),
                    flops=choose.randint(0, 10**6),
                    layer=choose.random() < 0.5,
                )
            )
        used = {name for node in nodes for name in node.inputs}
        ends = [name for node in nodes for name in node.outputs if name not in used]
        extra = [name for name in names if name in used and choose.random() < 0.1]
        return Graph(
            name=f"random-{seed}",
            nodes=tuple(nodes),
            tensors=tensors,
            inputs=inputs,
            outputs=(*ends, *extra),
            digest=f"{seed:064x}",
        )

    return build


@pytest.fixture(scope="session")
def closed_sets() -> ClosedSets:
    """Every closed set of a network, by trying all subsets."""

    def every(graph: Graph) -> Iterator[frozenset[int]]:
        for chosen in product([False, True], repeat=len(graph.nodes)):
            head = frozenset(index for index, inside in enumerate(chosen) if inside)
            if graph.is_closed(head):
                yield head

    return every


@dataclass(frozen=True)
class Case:
    """A partition that nobody runs, and what its two devices measured."""

    graph: Graph
    partition: Partition
    edge: Profile
    cloud: Profile


@pytest.fixture(scope="session")
def case_of(random_graph: RandomGraph) -> CaseOf:
    """A random network cut at some of its positions, with random profiles of both sides.

    The input is a picture, so that its codecs are candidates of the first cut.
    """

    def build(seed: int, *, held: int | None = None) -> Case:
        choose = random.Random(seed)
        graph = random_graph(seed, least_nodes=4)
        inner = choose.sample(range(1, len(graph.nodes)), choose.choice([1, 2, 3]))
        bounds = [0, *sorted(inner), len(graph.nodes)]
        cuts = tuple(cut_of(graph, range(bound)) for bound in bounds)
        segments = tuple(
            Segment(
                index=index,
                digest=f"{seed}-{index}",
                inputs=before.tensors,
                outputs=after.tensors,
                nodes=tuple(sorted(after.head - before.head)),
                weight_nbytes=choose.randint(0, 10**6),
                source=b"",
            )
            for index, (before, after) in enumerate(pairwise(cuts))
        )
        partition = Partition(
            name=graph.name,
            graph_digest=graph.digest,
            segments=segments,
            cuts=cuts,
            inputs=tuple(graph.tensors[name].spec for name in graph.inputs),
            outputs=tuple(graph.tensors[name].spec for name in graph.outputs),
            specs={name: tensor.spec for name, tensor in graph.tensors.items()},
            feed=Feed(),
        )
        codecs = tuple(
            CodecCost(
                cut=cut.id,
                codec=name,
                payload_nbytes=choose.randint(100, 100_000),
                encode_s=choose.expovariate(2000),
                decode_s=choose.expovariate(2000),
            )
            for cut in cuts[:-1]
            for name in (
                "raw",
                "lossless",
                "half",
                "int8",
                *(PICTURES if cut is cuts[0] else ()),
            )
        )
        replies = tuple(choose.randint(0, 5000) for _ in segments)

        def profile(slowdown: float, count: int) -> Profile:
            times = [choose.expovariate(200) * slowdown for _ in range(count)]
            return Profile(
                device=Device("bench", 1, slowdown),
                graph_digest=graph.digest,
                partition_digest=partition.digest,
                segments=tuple(Stat(time, time, time, 9) for time in times),
                codecs=codecs,
                replies_nbytes=(*replies, 0),
            )

        count = len(segments)
        edge = profile(choose.choice([1.0, 8.0]), count if held is None else min(held, count))
        return Case(graph, partition, edge, profile(1.0, count))

    return build
