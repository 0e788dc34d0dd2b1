"""How much a message may hold is counted before anything is made of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from midstream_wire.errors import ProtocolError
from midstream_wire.fields import front_of
from midstream_wire.frames import More, Piece
from midstream_wire.limits import (
    KIB,
    MAX_DESCRIBE_NBYTES,
    MAX_FIELDS,
    MAX_MESSAGE_NBYTES,
    MAX_PREPARE_NBYTES,
    MAX_TENSORS,
    MIB,
)
from midstream_wire.messages import read_client, read_server, write_client
from midstream_wire.unary import read_describe, read_infer, read_preparation
from midstream_wire.v1 import midstream_pb2 as pb


def _refusal(read: Callable[[bytes], Any], data: bytes) -> str:
    """Why `data` is refused, for which Python must take no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize(
    ("read", "number"),
    [(read_infer, 3), (read_preparation, 4), (read_describe, 1)],
    ids=["Infer", "Prepare", "Describe"],
)
def test_two_million_empty_fields_of_a_unary_call_are_refused_unread(
    read: Callable[[bytes], Any], number: int
) -> None:
    data = front_of(number, 0) * 2_000_000
    assert len(data) < MAX_MESSAGE_NBYTES
    assert "at most" in _refusal(read, data)


@pytest.mark.parametrize("count", [32_700, 1_000_000])
@pytest.mark.parametrize("read", [read_client, read_server])
def test_empty_pieces_are_refused_in_messages_of_any_size(
    read: Callable[[bytes], Any], count: int
) -> None:
    kind = pb.ClientMessage if read is read_client else pb.ServerMessage
    body = front_of(pb.More.PIECES_FIELD_NUMBER, 0) * count
    message = front_of(kind.MORE_FIELD_NUMBER, len(body)) + body
    reason = "at most" if count < 100_000 else "a byte or more"  # the first one looked at
    assert reason in _refusal(read, message)


def test_fields_are_counted_over_all_levels_together() -> None:
    request = pb.Request(id=1, tensors=["t"] * 100)
    some = pb.ClientMessage(request=request).SerializeToString()  # none of them has many
    unknown = front_of(1000, 64 * KIB) + bytes(64 * KIB)  # to make it large
    with pytest.raises(ProtocolError, match=f"at most {MAX_FIELDS} fields"):
        read_client(some * (MAX_FIELDS // 100) + unknown)


@pytest.mark.parametrize("nbytes", [10, 100 * KIB])
def test_a_piece_without_bytes_is_refused(nbytes: int) -> None:
    pieces = [pb.Piece(tensor=0, data=bytes(nbytes)), pb.Piece(tensor=1)]
    message = pb.ClientMessage(more=pb.More(id=1, pieces=pieces))
    with pytest.raises(ProtocolError, match="must hold a byte or more"):
        read_client(message.SerializeToString())


@pytest.mark.parametrize("nbytes", [1, 100])
def test_a_piece_of_each_of_the_most_tensors_is_taken(nbytes: int) -> None:
    more = More(1, tuple(Piece(at, bytes(nbytes)) for at in range(MAX_TENSORS)))
    assert read_client(write_client(more)) == more


def test_requests_that_only_name_something_are_small() -> None:
    assert read_describe(pb.DescribeRequest(model="m").SerializeToString()) == "m"
    long = pb.DescribeRequest(model="m" * MAX_DESCRIBE_NBYTES).SerializeToString()
    with pytest.raises(ProtocolError, match=f"at most {MAX_DESCRIBE_NBYTES} bytes"):
        read_describe(long)
    asked = pb.PrepareRequest(model="m" * MAX_PREPARE_NBYTES).SerializeToString()
    with pytest.raises(ProtocolError, match=f"at most {MAX_PREPARE_NBYTES} bytes"):
        read_preparation(asked)


@pytest.mark.parametrize("read", [read_describe, read_infer, read_preparation])
def test_a_unary_call_that_is_no_protobuf_is_refused(read: Callable[[bytes], Any]) -> None:
    with pytest.raises(ProtocolError, match="must be protobuf"):
        read(b"\x0a\xff")
