"""What segments take of the process's memory, and holding no more than is allowed."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream.deployment import EdgeSetup
from midstream_partitioner.backends import onnxruntime_backend as runtime
from midstream_partitioner.backends.onnxruntime_backend import MOST_THREADS, Executor
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution import resident_memory as memory
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.resident_memory import resident_nbytes
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.buckets import memory_by_segments, profile_sizes
from midstream_wire.errors import ModelError, ResourceError
from midstream_wire.limits import MIB

SIDE = 1024  # weights of 4 MiB a layer

needs_proc = pytest.mark.skipif(resident_nbytes() is None, reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def part() -> Partition:
    """Three layers of 4 MiB each, one a segment."""
    rng = np.random.default_rng(0)
    names, last = [], "x"
    nodes: list[onnx.NodeProto] = []
    for at in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [f"m{at}"]))
        names.append(f"w{at}")
        last = f"m{at}"
    weights = [
        numpy_helper.from_array(rng.standard_normal((SIDE, SIDE), np.float32), name)
        for name in names
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIDE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, SIDE])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = load_network(model)
    return partition(network, position_cuts(network.graph)[1:-1])


@pytest.fixture(scope="module")
def profile(part: Partition) -> Profile:
    """One whose memory is written down: 10 MB a segment."""
    x = {"x": np.ones((1, SIDE), np.float32)}
    made = profile_sizes(Chain(part), [x], Device("here", threads=1), runs=2, codecs=["raw"])
    assert made.memory_nbytes == ()  # of a chain that was not weighed
    return replace(made, memory_nbytes=(0, 10 * MIB, 20 * MIB, 30 * MIB))


@needs_proc
def test_every_segment_takes_at_least_its_weights(part: Partition) -> None:
    chain = Chain(part, weigh=True)
    x = {"x": np.ones((1, SIDE), np.float32)}
    made = profile_sizes(chain, [x], Device("here", threads=1), runs=2, codecs=["raw"])
    assert len(made.memory_nbytes) == len(part.segments) + 1
    assert made.memory_nbytes[0] == 0
    for k in range(len(part.segments)):
        grown = made.memory_nbytes[k + 1] - made.memory_nbytes[k]
        assert 3 * MIB < grown < 20 * MIB


def test_running_adds_what_it_keeps(part: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sample and segment, as the process is seen to grow; never less for more segments."""
    chain = Chain(part)
    chain.held_nbytes = (0, 100, 200, 300)
    resident = iter([1000, 1007, 1007, 1002, 1010, 1011, 1011, 1011])
    monkeypatch.setattr(memory, "resident_nbytes", lambda: next(resident))
    x = {"x": np.ones((1, SIDE), np.float32)}
    assert memory_by_segments(chain, [x, x]) == (0, 108, 208, 303)


def test_without_a_way_to_tell_weights_in_files_count(
    part: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_STATM", Path("/nowhere"))
    chain = Chain(part, within_nbytes=9 * MIB)
    assert (chain.last, chain.held_nbytes) == (2, (0, 4 * MIB, 8 * MIB))
    with pytest.raises(ModelError, match=r"must lie within \[0, 2\)"):
        chain.run({"x": np.ones((1, SIDE), np.float32)}, 0, 3)


def test_a_plan_keeps_to_the_memory_that_was_measured(
    part: Partition, profile: Profile
) -> None:
    planner = Planner(
        part, profile, profile, constraints=Constraints(max_edge_nbytes=15 * MIB)
    )
    made = planner.plan(Link(1e6, 1e6, 0.01))
    assert {candidate.k for candidate in made.candidates} == {0, 1}
    assert any("takes 20 MiB of memory on the edge, 15 MiB" in why for _, why in made.rejected)
    unweighed = replace(profile, memory_nbytes=())
    again = Planner(
        part, unweighed, profile, constraints=Constraints(max_edge_nbytes=15 * MIB)
    )
    assert max(c.k for c in again.plan(Link(1e6, 1e6, 0.01)).candidates) == 3


def test_an_edge_holds_no_segment_beyond_its_memory(part: Partition, profile: Profile) -> None:
    side = EdgeSetup(profile=profile, within_nbytes=25 * MIB).hold(part)
    assert side.chain.last <= 2
    one = EdgeSetup(profile=profile, segments=1, within_nbytes=25 * MIB)
    assert one.hold(part).chain.last == 1
    assert EdgeSetup(profile=profile).hold(part).chain.last == 3


def test_a_chain_gives_up_segments_that_it_need_not_hold(part: Partition) -> None:
    chain = Chain(part)
    chain.keep(1)
    x = {"x": np.ones((1, SIDE), np.float32)}
    assert set(chain.run(x, 0, 1)) == {"m0"}
    with pytest.raises(ModelError, match=r"must lie within \[0, 1\)"):
        chain.run(x, 0, 2)
    chain.keep(5)
    assert chain.last == 1


def test_the_threads_of_all_sessions_are_bounded(
    part: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = part.segments[0].compilable
    with pytest.raises(ResourceError, match=f"at most {MOST_THREADS} threads together"):
        Executor(source, threads=MOST_THREADS + 2)
    monkeypatch.setattr(runtime, "_THREADS", runtime._Threads())
    monkeypatch.setattr(runtime, "MOST_THREADS", 3)
    held = Executor(source, threads=3)
    with pytest.raises(ResourceError, match="and 4 would be"):
        Executor(source, threads=3)
    assert Executor(source, threads=1)
    del held
    gc.collect()
    assert Executor(source, threads=4)
