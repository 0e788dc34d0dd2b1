"""What stays is fused in the background, used from one run to the next, and undone again."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from midstream_partitioner.execution.auto_fuse import Fuser, Span
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import ModelError
from midstream_wire.tensors import Array

PATIENCE_S = 60.0


class Recorder:
    """Notes what a fuser asks for."""

    def __init__(self, after: int = 3, *, broken: bool = False) -> None:
        self.calls: list[tuple[str, Span]] = []
        self.broken = broken
        self.fuser = Fuser(after, fuse=self.fuse, unfuse=self.unfuse)

    def fuse(self, span: Span, _: Mapping[str, Array]) -> None:
        self.calls.append(("fuse", span))
        if self.broken:
            raise ModelError("it cannot be fused")

    def unfuse(self, span: Span) -> None:
        self.calls.append(("unfuse", span))

    def note(self, *spans: Span) -> None:
        for span in spans:
            self.fuser.note(span, {})
            assert self.fuser.wait(PATIENCE_S)


def test_so_many_in_a_row_are_fused_once() -> None:
    recorder = Recorder()
    recorder.note((0, 3), (0, 3))
    assert recorder.calls == []
    recorder.note(*[(0, 3)] * 10)
    assert recorder.calls == [("fuse", (0, 3))]


def test_plans_that_alternate_are_left_apart() -> None:
    recorder = Recorder()
    recorder.note(*[(0, 3), (0, 2)] * 10)
    assert recorder.calls == []


def test_a_single_segment_neither_counts_nor_interrupts() -> None:
    recorder = Recorder()
    recorder.note(*[(0, 3), (2, 3), (1, 2)] * 3)
    assert recorder.calls == [("fuse", (0, 3))]


def test_another_that_stays_takes_its_place_and_back() -> None:
    recorder = Recorder()
    for span in ((0, 3), (0, 2), (0, 3)):
        recorder.note(*[span] * 3)
    spans = [call for call in recorder.calls if call[0] == "fuse"]
    assert spans == [("fuse", (0, 3)), ("fuse", (0, 2)), ("fuse", (0, 3))]
    assert recorder.calls[1] == ("unfuse", (0, 3))


def test_what_cannot_be_fused_is_not_tried_again_at_once() -> None:
    recorder = Recorder(broken=True)
    recorder.note(*[(0, 3)] * 10)
    assert recorder.calls == [("fuse", (0, 3))]


def test_runs_go_on_while_one_is_made() -> None:
    going, release = threading.Event(), threading.Event()

    def fuse(_: Span, __: Mapping[str, Array]) -> None:
        going.set()
        assert release.wait(PATIENCE_S)

    fuser = Fuser(1, fuse=fuse, unfuse=lambda _: None)
    fuser.note((0, 2), {})
    assert going.wait(PATIENCE_S)
    for _ in range(100):
        fuser.note((0, 3), {})
    release.set()
    assert fuser.wait(PATIENCE_S)


@pytest.fixture
def chain(branches: Network) -> Chain:
    return Chain(partition(branches, position_cuts(branches.graph)[1:5]))


def test_a_chain_goes_over_to_what_was_fused_and_answers_alike(chain: Chain) -> None:
    x = {"x": np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)}
    before = chain.run(x, 0, chain.last)
    chain.fuse_stable(2, gently=False)
    for _ in range(3):
        chain.run(x, 0, chain.last)
    assert chain.wait_fused(PATIENCE_S)
    for each in chain.partition.segments:  # the fused piece alone can answer now
        chain._links.pop((each.index, each.index + 1))
    after = chain.run(x, 0, chain.last)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5)


def test_a_twin_at_another_speed_fuses_for_itself(chain: Chain) -> None:
    chain.fuse_stable(2)
    twin = chain.at_speed(1.0)
    assert twin.fuses_after == 2
    assert twin._fuser is not chain._fuser
    chain.fuse_stable(0)
    assert chain.wait_fused(0.0)
    assert twin.fuses_after == 2
