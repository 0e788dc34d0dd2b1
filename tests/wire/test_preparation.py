"""Asking for a partition survives protobuf, and asking for too much is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.descriptions import Preparation, Readiness
from midstream_wire.errors import ProtocolError
from midstream_wire.limits import MAX_BOUNDS, MAX_HEADS
from midstream_wire.unary import (
    read_preparation,
    read_readiness,
    write_preparation,
    write_readiness,
)
from midstream_wire.v1 import midstream_pb2 as pb

_NAMES = st.text(max_size=20)
_RUNS = st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple)


@given(st.builds(Preparation, _NAMES, _NAMES, _NAMES, st.lists(_RUNS, max_size=3).map(tuple)))
def test_what_is_asked_for_survives_the_wire(asked: Preparation) -> None:
    encoded = write_preparation(asked).SerializeToString()
    assert read_preparation(encoded) == asked


@given(st.builds(Readiness, st.booleans(), _NAMES))
def test_how_far_it_is_survives_the_wire(readiness: Readiness) -> None:
    encoded = write_readiness(readiness).SerializeToString()
    assert read_readiness(pb.PrepareReply.FromString(encoded)) == readiness


def test_more_heads_or_longer_ones_than_any_network_needs_are_refused() -> None:
    many = pb.PrepareRequest(heads=[pb.Head()] * (MAX_HEADS + 1))
    with pytest.raises(ProtocolError, match=f"at most {MAX_HEADS} heads"):
        read_preparation(many.SerializeToString())
    long = pb.PrepareRequest(heads=[pb.Head(runs=range(MAX_BOUNDS + 1))])
    with pytest.raises(ProtocolError, match=f"at most {MAX_BOUNDS} bounds"):
        read_preparation(long.SerializeToString())
