"""Whatever a peer sends, it gets one clear sentence, and everybody else gets served."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.codecs.header import Header
from midstream_wire.frames import Code
from midstream_wire.limits import MIB
from midstream_wire.tensors import Array
from midstream_wire.v1 import midstream_pb2 as pb

if TYPE_CHECKING:
    from tests.cloud.conftest import Client, Talk


def _message(**fields: Any) -> pb.ClientMessage:
    return pb.ClientMessage(**fields)


def _payload(array: Array) -> bytes:
    return encode_bytes(codec("raw"), array)


def _opening(payload: bytes = b"", **fields: Any) -> pb.ClientMessage:
    """A request of segment 1, whose tensor a1 is float32 [1, 8, 16, 16]."""
    pieces = [pb.Piece(tensor=0, data=payload)] if payload else []
    request = {"id": 1, "first_segment": 1, "tensors": ["a1"], "pieces": pieces, **fields}
    return pb.ClientMessage(request=pb.Request(**request))


def _farewell(talk: Talk) -> tuple[int, str]:
    """The GoAway that must come now, and nothing after it."""
    message = talk.hear()
    assert message.WhichOneof("kind") == "go_away", message
    assert talk.ends()
    return message.go_away.reason.code, message.go_away.reason.message


_GOOD = np.ones((1, 8, 16, 16), np.float32)

_BIG = 1 << 15  # two of them make 32 GiB of a1

_BAD_REQUESTS = {
    "garbage": _opening(b"garbage that is no payload at all, but long enough for a header"),
    "zeros": _opening(bytes(100)),
    "wrong dtype": _opening(_payload(_GOOD.astype(np.float64))),
    "wrong shape": _opening(_payload(_GOOD[:, :4])),
    "more dimensions": _opening(_payload(_GOOD[None])),
    "more pixels": _opening(_payload(np.zeros((1, 8, 1 << 10, 1 << 10), np.float32))[:2000]),
    "a flipped bit": _opening(_payload(_GOOD)[:-9] + b"\x7f" + _payload(_GOOD)[-8:]),
    "trailing bytes": _opening(_payload(_GOOD) + b"more"),
    "segment 3 of 3": _opening(_payload(_GOOD), first_segment=3),
    "segment 2**32 - 1": _opening(_payload(_GOOD), first_segment=2**32 - 1),
    "another segment's tensor": _opening(_payload(_GOOD), first_segment=2),
    "no tensors": _opening(tensors=[]),
    "the same tensor twice": _opening(_payload(_GOOD), tensors=["a1", "a1"]),
    "a stranger's tensor": _opening(_payload(_GOOD), tensors=["../../etc/passwd"]),
    "a piece of no tensor": _opening(pieces=[pb.Piece(tensor=7, data=b"x")]),
}


@pytest.mark.parametrize("message", _BAD_REQUESTS.values(), ids=_BAD_REQUESTS.keys())
def test_a_bad_request_is_refused_in_band_and_the_session_goes_on(
    client: Client, message: pb.ClientMessage
) -> None:
    talk = client.talk()
    talk.send(message)
    id, code, reason = talk.refusal()
    assert (id, code) == (1, Code.INVALID_ARGUMENT)
    assert 20 < len(reason) < 400
    assert "\n" not in reason
    client.check(talk, id=2)
    client.check_server()


def test_pieces_that_follow_a_refused_request_are_passed_over(client: Client) -> None:
    talk = client.talk()
    talk.send(_opening(b"garbage that is no payload at all, but long enough for a header"))
    for _ in range(3):
        talk.send(_message(more=pb.More(id=1, pieces=[pb.Piece(tensor=0, data=b"more")])))
    assert talk.refusal()[0] == 1
    client.check(talk, id=2)


def test_pieces_of_a_request_that_nobody_opened_are_refused(client: Client) -> None:
    talk = client.talk()
    talk.send(_message(more=pb.More(id=77, pieces=[pb.Piece(tensor=0, data=b"x")])))
    assert talk.refusal()[:2] == (77, Code.INVALID_ARGUMENT)
    client.check(talk, id=78)


@pytest.mark.parametrize("id", [0, 4, 5])
def test_an_id_that_does_not_ascend_is_refused(client: Client, id: int) -> None:
    talk = client.talk()
    client.check(talk, id=5)
    talk.send(_opening(_payload(_GOOD), id=id))
    assert talk.refusal()[:2] == (id, Code.INVALID_ARGUMENT)
    client.check(talk, id=6)


def test_a_cancel_of_anything_is_taken(client: Client) -> None:
    talk = client.talk()
    for id in (0, 3, 2**64 - 1):
        talk.send(_message(cancel=pb.Cancel(id=id)))
    client.check(talk, id=1)


def test_a_request_cancelled_half_way_leaves_room_for_others(client: Client) -> None:
    talk = client.talk()
    for id in range(40):
        talk.send(_opening(_payload(_GOOD)[:500], id=id))
        talk.send(_message(cancel=pb.Cancel(id=id)))
    client.check(talk, id=40)


def test_too_many_requests_at_a_time_are_refused(client: Client) -> None:
    talk = client.talk()
    for id in range(9):  # none of them complete: all of them under way
        talk.send(_opening(id=id))
    id, code, reason = talk.refusal()
    assert (id, code) == (8, Code.RESOURCE_EXHAUSTED)
    assert "at most 8 requests" in reason
    rest = pb.More(id=3, pieces=[pb.Piece(tensor=0, data=_payload(client.crossing(1)["a1"]))])
    talk.send(_message(more=rest))
    assert np.array_equal(client.output(talk.reply()), client.whole)
    client.check(talk, id=9)


def test_a_declared_size_is_refused_before_anything_is_allocated(client: Client) -> None:
    header = Header(
        codec=_payload(_GOOD)[3],
        quality=0,
        fallback=False,
        dtype="float32",
        shape=(1, 8, _BIG, _BIG),
    )
    talk = client.talk()
    client.check(talk, id=0)
    tracemalloc.start()
    try:
        talk.send(_opening(header.pack()))
        assert talk.refusal()[1] == Code.INVALID_ARGUMENT
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    client.check(talk, id=2)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([_opening(_payload(_GOOD))], "must be a Hello"),
        ([_message(ping=pb.Ping(id=1))], "must be a Hello"),
        ([_message(cancel=pb.Cancel(id=1))], "must be a Hello"),
        ([pb.ClientMessage()], "of a kind that this side knows"),
    ],
    ids=["request", "ping", "cancel", "nothing"],
)
def test_a_session_that_does_not_begin_with_hello_is_closed(
    client: Client, messages: list[pb.ClientMessage], reason: str
) -> None:
    talk = client.silent()
    for message in messages:
        talk.send(message)
    code, said = _farewell(talk)
    assert code == Code.INVALID_ARGUMENT
    assert reason in said
    client.check_server()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_message(hello=pb.Hello(model="small")), "one Hello"),
        (pb.ClientMessage(), "of a kind that this side knows"),
        (_message(ping=pb.Ping(reply_nbytes=2**32 - 1)), "a ping may ask for at most"),
        (_opening(budget_s=-1.0), "budget_s"),
        (_opening(b"x" * (2 * MIB + 1)), "a piece may hold at most"),
        (_opening(tensors=["t"] * 1025), "at most 1024 tensors"),
    ],
    ids=[
        "a second hello",
        "nothing",
        "a huge ping",
        "a budget below 0",
        "a huge piece",
        "names",
    ],
)
def test_a_peer_that_breaks_the_protocol_is_told_and_closed(
    client: Client, message: pb.ClientMessage, reason: str
) -> None:
    talk = client.talk()
    talk.send(message)
    code, said = _farewell(talk)
    assert code == Code.INVALID_ARGUMENT
    assert reason in said
    client.check_server()


def test_an_unknown_model_is_named_beside_those_that_are_served(client: Client) -> None:
    talk = client.silent()
    talk.send(_message(hello=pb.Hello(model="resnet", partition_digest="0" * 64)))
    code, reason = _farewell(talk)
    assert code == Code.NOT_FOUND
    assert "(small)" in reason
    assert "'resnet'" in reason
    client.check_server()


def test_another_digest_is_refused_with_both(client: Client, small: Partition) -> None:
    talk = client.silent()
    talk.send(_message(hello=pb.Hello(model="small", partition_digest="f" * 5000)))
    code, reason = _farewell(talk)
    assert code == Code.FAILED_PRECONDITION
    assert small.digest[:12] in reason
    assert "ffffffffffff" in reason
    assert len(reason) < 400
    client.check_server()


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 50, b"\x12\xff\xff\xff\xff\x0f", b"\x0a\x03\x0a\x01\xff", b"\xff" * 100_000],
)
def test_bytes_that_are_no_protobuf_end_their_stream_alone(
    client: Client, data: bytes
) -> None:
    call = client.channel.stream_stream(
        "/midstream.v1.Midstream/Session",
        request_serializer=lambda raw: raw,
        response_deserializer=pb.ServerMessage.FromString,
    )(iter([data]), timeout=10)
    (going_away,) = call
    assert going_away.go_away.reason.code == Code.INVALID_ARGUMENT
    client.check_server()


def test_a_message_beyond_the_limit_ends_its_stream_alone(client: Client) -> None:
    talk = client.talk()
    talk.send(_opening(b"x" * (5 * MIB)))
    with pytest.raises(grpc.RpcError):
        talk.hear()
    assert talk.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    client.check_server()


def test_a_stream_that_breaks_off_leaves_nothing_behind(client: Client) -> None:
    for _ in range(20):
        talk = client.talk()
        talk.request(1, 0, client.crossing(0))
        talk.send(_opening(id=2))
        talk.call.cancel()
    client.check_server()


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda digest: pb.InferRequest(), grpc.StatusCode.NOT_FOUND),
        (
            lambda digest: pb.InferRequest(
                hello=pb.Hello(model="small", partition_digest="0" * 64)
            ),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        (
            lambda digest: pb.InferRequest(
                hello=pb.Hello(model="small", partition_digest=digest),
                first_segment=1,
                tensors=[pb.Tensor(name="a1", payload=_payload(_GOOD)[:-1])],
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            lambda digest: pb.InferRequest(
                hello=pb.Hello(model="small", partition_digest=digest),
                first_segment=1,
                tensors=[pb.Tensor(name="a1", payload=_payload(_GOOD[:, :1]))],
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
    ids=["no model", "another digest", "a truncated payload", "a wrong shape"],
)
def test_a_bad_unary_request_is_refused_with_a_status(
    client: Client,
    small: Partition,
    request_of: Callable[[str], pb.InferRequest],
    code: grpc.StatusCode,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.stub.Infer(request_of(small.digest), timeout=10)
    assert caught.value.code() == code
    assert 20 < len(caught.value.details()) < 400
    client.check_server()


def test_a_description_of_an_unknown_model_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.stub.Describe(pb.DescribeRequest(model="resnet"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "(small)" in caught.value.details()
