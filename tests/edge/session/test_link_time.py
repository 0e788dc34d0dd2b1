"""What a session tells of the link is the link's time, not the encoder's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.session import transmission
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement
from midstream_wire import frames
from midstream_wire.codecs import Codec
from midstream_wire.tensors import Array

pytestmark = pytest.mark.usefixtures("steady_link")


@dataclass(frozen=True)
class Watching:
    """Sends everything by one placement, and believes what it sees."""

    belief: LinkBelief
    name: str = "watching"

    def decide(self, situation: Situation) -> Decision:
        return Decision(0)

    def learn(self, evidence: Evidence) -> Self:
        return replace(self, belief=self.belief.observe(evidence))


@pytest.fixture(scope="module")
def wide() -> Partition:
    """Passes 3 MB on: the input crosses in four blocks."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["r"]),
         helper.make_node("ReduceMean", ["r"], ["y"], axes=[2, 3])],
        "wide",
        [value("x", TensorProto.FLOAT, [1, 48, 128, 128])],
        [value("y", TensorProto.FLOAT, [1, 48, 1, 1])],
        [numpy_helper.from_array(np.ones((1, 48, 1, 1), np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return partition(load_network(model, name="wide"), [])


def test_a_slow_encoder_does_not_make_the_link_slow(wide: Partition) -> None:
    drawn = np.random.default_rng(0).standard_normal((1, 48, 128, 128))
    inputs = {"x": drawn.astype(np.float32)}
    repository = Repository()
    repository.add("wide", wide)
    placement = Placement(
        "c", "ec:0.5", 0, "cut", True, 0.0, 0.0, 0.0, 0.001, 1000, 100, 0.001
    )
    with (
        serving(repository) as address,
        EdgeSession(
            Chain(wide, slowdown=30.0), str(address), plan=(0, "raw"), timeout_s=30.0
        ) as session,
    ):
        link = session.measure_link()
        director = session.follow(Watching(LinkBelief.of(link)), [placement])
        answers = [session.infer(inputs) for _ in range(4)]
        encode_s = min(answer.timings.encode_s for answer in answers)
        encoder_bps = 8 * answers[-1].payload_nbytes / encode_s
        assert all(answer.where == "cloud" for answer in answers)
        assert director.belief is not None
        assert director.belief.uplink_bps > 5 * encoder_bps


@pytest.mark.parametrize("slowdown", [1.0, 8.0])
def test_what_a_codec_does_before_its_first_piece_is_encoding(
    monkeypatch: pytest.MonkeyPatch, slowdown: float
) -> None:
    now_s = 100.0

    def spend(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    def encode(kind: Codec, array: Array, **_: object) -> Iterator[bytes]:
        spend(2.0)  # looks at the whole array
        return _pieces(spend)

    clock: Any = type("Clock", (), {"monotonic": lambda: now_s, "sleep": spend})
    monkeypatch.setattr(transmission, "time", clock)
    monkeypatch.setattr(transmission, "encode", encode)
    nowhere: Any = None
    sending = transmission.Transmission(
        1, nowhere, {"x": np.zeros(3, np.float32)},
        k=0, codec="raw", useful_s=1e6, message_nbytes=1 << 19,
    )  # fmt: skip
    sent = []
    for frame in sending.frames(slowdown):
        spend(50.0)  # the link's, whatever it does
        sent.append(frame)
    pieces = [
        piece for frame in sent if isinstance(frame, frames.Request) for piece in frame.pieces
    ]
    assert sum(len(piece.data) for piece in pieces) == 6
    assert sending.encode_s == pytest.approx(slowdown * 2.5)


def _pieces(spend: Callable[[float], None]) -> Iterator[bytes]:
    for _ in range(2):
        spend(0.25)
        yield b"123"
