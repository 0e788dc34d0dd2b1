"""What is too large for one message is told in a sentence, before protobuf fails over it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.partitioner.conftest import make_network

from midstream_lab.verification.verify import verify_cuts, verify_partition
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.onnx_tools import serializing
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.profiling.profiler import profile_layers
from midstream_wire.errors import ModelError


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network of two weights, each of which a message may hold, while both are too much."""
    weights = {name: np.ones((32, 32), np.float32) for name in ("w1", "w2")}
    network = make_network(
        "net (float[b, 32] x) => (float[b, 32] y) { a = MatMul(x, w1) y = MatMul(a, w2) }",
        weights,
    )
    monkeypatch.setattr(serializing, "MAX_MODEL_NBYTES", 5000)
    return network


def test_a_network_too_large_as_a_whole_is_cut_into_segments_that_are_not(
    halves: Network,
) -> None:
    part = partition(halves, position_cuts(halves.graph))
    assert all(len(segment.model) < 5000 for segment in part.segments)
    with pytest.raises(ModelError, match="a segment must be smaller than 2 GiB"):
        partition(halves, ())


def test_what_needs_the_whole_network_says_so(halves: Network) -> None:
    x = {"x": np.ones((1, 32), np.float32)}
    with pytest.raises(ModelError, match="layer by layer must be smaller than 2 GiB"):
        profile_layers(halves, x, this_device(), runs=3)
    with pytest.raises(ModelError, match="verified whole must be smaller than 2 GiB"):
        verify_cuts(halves, cuts=position_cuts(halves.graph), inputs=[x])
    part = partition(halves, position_cuts(halves.graph))
    with pytest.raises(ModelError, match="smaller than 2 GiB"):
        verify_partition(part, inputs=[x])
