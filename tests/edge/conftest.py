"""A small network, cut into four segments, and servers that hold it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_edge.link import failure_detector as sentry
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]


def make_model(*, seed: int = 0) -> bytes:
    """conv, relu, conv, relu, mean, gemm: 1x3x32x32 to ten numbers, and a side output."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="head", transB=1),
        helper.make_node("ReduceMax", ["r1"], ["peak"], name="peak", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10]),
            helper.make_tensor_value_info("peak", TensorProto.FLOAT, []),
        ],
        [weight("w1", 16, 3, 3, 3), weight("w2", 24, 16, 3, 3), weight("w3", 10, 24)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def cut_up(model: bytes) -> Partition:
    network = load_network(model, name="small")
    cuts = position_cuts(network.graph)
    return partition(network, [cuts[2], cuts[4], cuts[6]])


@pytest.fixture(scope="session")
def small() -> Partition:
    return cut_up(make_model())


@pytest.fixture(scope="session")
def other() -> Partition:
    """Another network under the same name."""
    return cut_up(make_model(seed=1))


@pytest.fixture(scope="session")
def chain(small: Partition) -> Chain:
    return Chain(small)


@pytest.fixture(scope="session")
def picture() -> Callable[[int], Inputs]:
    """The n-th input."""

    def make(n: int) -> Inputs:
        values = np.random.default_rng(n).normal(size=(1, 3, 32, 32))
        return {"x": values.astype(np.float32)}

    return make


@pytest.fixture(scope="session")
def expected(chain: Chain) -> Callable[[Inputs], dict[str, Array]]:
    """What the unsplit chain answers."""
    return lambda inputs: chain.run(inputs, 0, chain.last)


Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve(small: Partition) -> Serve:
    """`serve(partition, settings=..., slowdown=..., segment_s=...)`: one in this process.

    `segment_s`: its tails take so long for each segment, whatever the machine does.
    """

    @contextmanager
    def begin(
        held: Partition = small,
        *,
        settings: Settings | None = None,
        slowdown: float = 1.0,
        segment_s: float | None = None,
    ) -> Iterator[str]:
        repository = Repository()
        repository.add("small", held, slowdown=slowdown if segment_s is None else 2.0)
        if segment_s is not None:
            repository.models["small"].chain.keep_pace([segment_s] * len(held.segments))
        with serving(repository, settings=settings) as address:
            yield str(address)

    return begin


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[str]:
    """One server for all tests that do it no harm."""
    with serve() as address:
        yield address


SERVER_PROCESS = """
import sys
from pathlib import Path
from midstream_cloud.repository import Repository
from midstream_cloud.server import run
from midstream_partitioner.partition.folder import load_partition

repository = Repository()
repository.add("small", load_partition(Path(sys.argv[1])), slowdown=float(sys.argv[3]))
run(repository, sys.argv[2], on_start=lambda address: print(address, flush=True))
"""

Spawn = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture
def spawn(small: Partition, tmp_path: Path) -> Spawn:
    """`spawn(address, slowdown=...)`: a server as a process of its own; it and its address."""
    folder = tmp_path / "small.midstream"
    save_partition(small, folder)

    @contextmanager
    def begin(
        address: str = "127.0.0.1:0", *, slowdown: float = 1.0
    ) -> Iterator[tuple[subprocess.Popen[str], str]]:
        command = [sys.executable, "-c", SERVER_PROCESS, str(folder), address, str(slowdown)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process, process.stdout.readline().strip()
            finally:
                process.kill()

    return begin


@pytest.fixture(scope="session")
def sleepy_server(serve: Serve) -> Iterator[str]:
    """Takes 15 s for each segment: an edge that waited for its answer would show it."""
    with serve(segment_s=15.0, settings=Settings(workers=8)) as address:
        yield address


@pytest.fixture
def steady_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stall of a busy machine is taken for one of the link."""
    for patience in ("ACK_S", "WINDOW_S", "PONG_S"):
        monkeypatch.setattr(sentry, patience, 60.0)


@pytest.fixture(scope="session")
def paced(chain: Chain) -> Callable[[float], Chain]:
    """`paced(segment_s)`: the whole network on a device that takes so long for a segment."""

    def make(segment_s: float) -> Chain:
        slow = chain.at_speed(2.0)
        slow.keep_pace([segment_s] * chain.last)
        return slow

    return make


@pytest.fixture(scope="session")
def small_slow(small: Partition) -> Chain:
    """The whole network on a device ten times slower."""
    return Chain(small, slowdown=10.0)


@pytest.fixture(scope="session")
def small_prefix(small: Partition) -> Chain:
    """Half the network on an edge that is short of memory."""
    return Chain(small, last=2)
