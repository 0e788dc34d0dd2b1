"""Plans offer what the protocol carries, and say why the rest is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_cloud.session import Limits
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.plan import Plan
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.profiler import profile_segments
from midstream_wire.limits import (
    MAX_NAMES_NBYTES,
    MAX_REQUEST_NBYTES,
    MAX_TENSORS,
    MIB,
)
from midstream_wire.tensors import Array
from midstream_wire.transfers import obstacle

FAST = Link(1e9, 1e9, 0.001)


def _columns(inputs: int, outputs: int = 1, *, name: str = "column") -> Partition:
    """A table model: an input a column, an output a split."""
    value = helper.make_tensor_value_info
    names = [f"{name}{at}" for at in range(inputs)]
    nodes = [
        helper.make_node("Concat", names, ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["y"]),
        *(helper.make_node("Relu", ["y"], [f"y{at}"]) for at in range(1, outputs)),
    ]
    made = ["y", *(f"y{at}" for at in range(1, outputs))]
    graph = helper.make_graph(
        nodes,
        "columns",
        [value(each, TensorProto.FLOAT, ["n", 1]) for each in names],
        [value(each, TensorProto.FLOAT, ["n", 2]) for each in made],
        [numpy_helper.from_array(np.ones((inputs, 2), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return partition(load_network(model), [])


def _inputs(part: Partition) -> dict[str, Array]:
    return {spec.name: np.ones((1, 1), np.float32) for spec in part.inputs}


def _planned(part: Partition, **changes: Any) -> Plan:
    chain = Chain(part)
    found = profile_segments(
        chain, [_inputs(part)], this_device(), runs=3, codecs=("raw", "half")
    )
    found = replace(found, **changes)
    return Planner(part, found.slowed(100.0), found).plan(FAST)


def _remote(plan: Plan) -> list[str]:
    return [each.label for each in plan.candidates if each.cut != "edge-only"]


def test_as_many_tensors_as_the_protocol_allows_are_offered_and_arrive() -> None:
    part = _columns(MAX_TENSORS)
    plan = _planned(part)
    assert "cloud-only raw" in _remote(plan)
    repository = Repository()
    repository.add(part.name, part)
    with (
        serving(repository) as address,
        EdgeSession(Chain(part), str(address), plan=(0, "raw")) as session,
    ):
        answer = session.infer(_inputs(part))
    assert (answer.where, answer.reason) == ("cloud", None)
    assert answer.outputs["y"].tolist() == [[MAX_TENSORS, MAX_TENSORS]]


@pytest.mark.parametrize(
    ("part", "changes", "why"),
    [
        (_columns(MAX_TENSORS + 1), {}, "would take 1,025 tensors, 1,024 allowed"),
        (_columns(2, MAX_TENSORS + 1), {}, "would be answered with 1,025 tensors, 1,024"),
        (_columns(300, name="n" * 4000), {}, "bytes of tensor names, 1,048,576 allowed"),
        (_columns(2), {"crossings_nbytes": (300 * MIB, 0)}, "300.0 MiB of tensors, 256 MiB"),
        (_columns(2), {"replies_nbytes": (300 * MIB, 0)}, "would be answered with 300.0 MiB"),
    ],
)
def test_what_the_protocol_cannot_carry_is_left_out_and_said_why(
    part: Partition, changes: dict[str, Any], why: str
) -> None:
    plan = _planned(part, **changes)
    assert _remote(plan) == []
    (found,) = plan.rejected
    assert found[0].label == "sending the input"
    assert why in found[1]


def test_the_last_byte_and_the_last_dimension_count() -> None:
    assert obstacle(["x"], ndim=32, nbytes=MAX_REQUEST_NBYTES) is None
    assert obstacle(["x"], ndim=33, nbytes=4) == "a tensor of 33 dimensions, 32 allowed"
    assert obstacle(["x"], ndim=1, nbytes=MAX_REQUEST_NBYTES + 1) is not None
    assert obstacle(["é" * (MAX_NAMES_NBYTES // 2)], ndim=1, nbytes=4) is None
    assert obstacle(["é" * (MAX_NAMES_NBYTES // 2) + "x"], ndim=1, nbytes=4) is not None


def test_a_request_beyond_the_servers_limit_fails_alone_and_says_so() -> None:
    part = _columns(3)
    repository = Repository()
    repository.add(part.name, part)
    settings = Settings(limits=Limits(max_request_nbytes=1 << 16))
    with (
        serving(repository, settings=settings) as address,
        EdgeSession(Chain(part), str(address), plan=(0, "raw")) as session,
    ):
        small = {name: np.ones((9, 1), np.float32) for name in _inputs(part)}
        large = {name: np.ones((9000, 1), np.float32) for name in small}
        assert session.infer(small).where == "cloud"
        refused = session.infer(large)
        assert "0.1 MiB of tensors, 0.0625 MiB allowed" in (refused.reason or "")
        assert refused.outputs["y"].shape == (9000, 2)
        assert session.infer(small).where == "cloud"
        assert session.stats.reconnects == 0


def test_a_reply_is_planned_at_the_size_that_the_server_sends() -> None:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((16, 3, 3, 3)).astype("f"), "w")
    shift = numpy_helper.from_array(np.full((1, 16, 1, 1), -9.0, np.float32), "b")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model: onnx.ModelProto = helper.make_model(
        helper.make_graph(
            nodes,
            "mask",
            [value("x", TensorProto.FLOAT, ["n", 3, 64, 64])],
            [value("y", TensorProto.FLOAT, ["n", 16, 64, 64])],
            [weight, shift],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    part = partition(load_network(model), [])
    inputs = {"x": rng.standard_normal((2, 3, 64, 64)).astype(np.float32)}
    found = profile_segments(Chain(part), [inputs], this_device(), runs=3, codecs=("raw",))
    planned = next(
        each for each in Planner(part, found, found).plan(FAST).candidates if each.k == 0
    )
    repository = Repository()
    repository.add(part.name, part)
    with (
        serving(repository) as address,
        EdgeSession(Chain(part), str(address), plan=(0, "raw")) as session,
    ):
        answer = session.infer(inputs)
    assert answer.where == "cloud"
    assert (
        planned.placement.reply_nbytes == answer.reply_nbytes < answer.outputs["y"].nbytes / 2
    )
