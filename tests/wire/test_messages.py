"""Frames survive protobuf, and what a peer must not send is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire import limits
from midstream_wire.descriptions import (
    CutDescription,
    Description,
    ModelDescription,
    TransformDescription,
)
from midstream_wire.errors import ProtocolError
from midstream_wire.frames import (
    Cancel,
    ClientFrame,
    Code,
    CodecAnswer,
    CodecName,
    GoAway,
    Hello,
    More,
    Piece,
    Ping,
    Pong,
    Reply,
    Request,
    ServerFrame,
    ServerTimings,
    Status,
    Welcome,
)
from midstream_wire.messages import read_client, read_server, write_client, write_server
from midstream_wire.tensors import DTYPES, TensorSpec
from midstream_wire.unary import read_description, read_infer, write_description
from midstream_wire.v1 import midstream_pb2 as pb

_IDS = st.integers(0, 2**64 - 1)
_SMALL = st.integers(0, 2**32 - 1)
_NAMES = st.text(max_size=20)
_SECONDS = st.floats(0, 1e9)
_PIECE = st.builds(Piece, _SMALL, st.binary(min_size=1, max_size=40))
_PIECES = st.lists(_PIECE, max_size=3).map(tuple)
_TENSORS = st.lists(_NAMES, max_size=3).map(tuple)
_STATUSES = st.builds(Status, st.integers(0, 16), _NAMES)
_TIMINGS = st.builds(ServerTimings, *[_SECONDS] * 5)
_WORDS = st.text("abcdef-01.", min_size=1, max_size=limits.MAX_CODEC_CHARS)
_CODECS = st.lists(
    st.builds(CodecName, _WORDS, _WORDS), max_size=3, unique_by=lambda each: each.name
).map(tuple)
_ANSWERS = st.lists(
    st.builds(CodecAnswer, _WORDS, st.sampled_from(["", "the codec must be loaded"])),
    max_size=3,
).map(tuple)

_CLIENT: st.SearchStrategy[ClientFrame] = st.one_of(
    st.builds(Hello, _NAMES, _NAMES, _NAMES, _CODECS),
    st.builds(Request, _IDS, _SMALL, _TENSORS, _PIECES, _SECONDS, _NAMES),
    st.builds(More, _IDS, _PIECES),
    st.builds(Cancel, _IDS),
    st.builds(Ping, _IDS, st.binary(max_size=40), st.integers(0, limits.MAX_PADDING_NBYTES)),
)
_SERVER: st.SearchStrategy[ServerFrame] = st.one_of(
    st.builds(Welcome, _NAMES, _IDS, _SMALL, _SECONDS, _ANSWERS),
    st.builds(Reply, _IDS, _STATUSES, _TENSORS, _PIECES, _TIMINGS),
    st.builds(More, _IDS, _PIECES),
    st.builds(Pong, _IDS, st.binary(max_size=40), _SECONDS, _SECONDS),
    st.builds(GoAway, _STATUSES),
)
_SPECS = st.builds(
    TensorSpec,
    _NAMES,
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 2**40) | st.sampled_from(["batch", "n"]), max_size=4).map(tuple),
)

_MIB = (Piece(0, b"x" * 100_000), Piece(1, b"y" * limits.MIB))
_LARGE = write_client(More(7, _MIB))


def _hello(codecs: list[tuple[str, str]]) -> pb.ClientMessage:
    named = [pb.CodecName(name=name, version=version) for name, version in codecs]
    return pb.ClientMessage(hello=pb.Hello(codecs=named))


@given(_CLIENT)
def test_a_client_frame_survives_the_wire(frame: ClientFrame) -> None:
    encoded = write_client(frame)
    assert read_client(encoded) == frame
    # What any other client would send for it is understood as well.
    assert read_client(pb.ClientMessage.FromString(encoded).SerializeToString()) == frame


@given(_SERVER)
def test_a_server_frame_survives_the_wire(frame: ServerFrame) -> None:
    encoded = write_server(frame)
    assert read_server(encoded) == frame
    assert read_server(pb.ServerMessage.FromString(encoded).SerializeToString()) == frame


@pytest.mark.parametrize(
    ("frame", "encoded"),
    [
        (Hello("net", "ab", "me"), "0a0d 0a036e6574 12026162 1a026d65"),
        (
            Hello("net", "ab", "", (CodecName("bfp", "1"), CodecName("x", "2.0"))),
            "0a1d 0a036e6574 12026162 2208 0a03626670 120131 2208 0a0178 1203322e30",
        ),
        (Request(7, 2, ("t",), (Piece(0, b"xy"),)), "120d 0807 1002 220174 2a04 12027879"),
        (Request(7, 2, (), transform="klt:4"), "120b 0807 1002 32056b6c743a34"),
        (More(7, (Piece(1, b"z"),)), "1a09 0807 1205 0801 12017a"),
        (Cancel(7), "2202 0807"),
        (Ping(1, b"p", 300), "2a08 0801 120170 18ac02"),
    ],
)
def test_the_bytes_on_the_wire_are_these(frame: ClientFrame, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert write_client(frame) == data
    assert read_client(data) == frame


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.ClientMessage(), "of a kind that this side knows"),
        (pb.ClientMessage(request=pb.Request(budget_s=-1)), "budget_s"),
        (pb.ClientMessage(request=pb.Request(budget_s=math.nan)), "budget_s"),
        (pb.ClientMessage(request=pb.Request(tensors=["t"] * 1025)), "at most 1024 tensors"),
        (pb.ClientMessage(request=pb.Request(transform="k" * 65)), "at most 64 characters"),
        (pb.ClientMessage(ping=pb.Ping(reply_nbytes=2**32 - 1)), "at most 4128768 bytes"),
        (_hello(17 * [("bfp", "1")]), r"at most 16 codecs .*not 17"),
        (_hello([("bfp", "1"), ("bfp", "2")]), "must be named once"),
        (_hello([("b" * 33, "1")]), "1 to 32 printable characters"),
        (_hello([("bfp", "")]), "1 to 32 printable characters"),
        (_hello([("bfp", "\x1b[2J")]), "1 to 32 printable characters"),
        (_hello([("\u0441", "1")]), "1 to 32 printable characters"),
        (
            pb.ClientMessage(more=pb.More(pieces=[pb.Piece(data=bytes(2 * 2**20 + 1))])),
            "at most 2097152 bytes",
        ),
    ],
)
def test_what_a_client_must_not_send_is_refused(
    message: pb.ClientMessage, reason: str
) -> None:
    with pytest.raises(ProtocolError, match=reason):
        read_client(message.SerializeToString())


@pytest.mark.parametrize("frame", [Request(7, 2, ("t", "u"), _MIB), More(7, _MIB)])
def test_large_pieces_stay_where_they_lie(frame: Request | More) -> None:
    encoded = write_client(frame)
    read = read_client(encoded)
    assert read == frame
    assert isinstance(read, Request | More)
    assert all(isinstance(p.data, memoryview) and p.data.obj is encoded for p in read.pieces)


@pytest.mark.parametrize(
    "damaged",
    [
        _LARGE[:-1],  # cut off
        _LARGE + b"\x0b",  # a group, which protobuf has given up
        _LARGE + b"\xff" * 11,  # a number without an end
        _LARGE + b"\x12\x04\x2a\x7f",  # a piece longer than the request around it
        _LARGE + b"\x09\x00",  # half a number of eight bytes
    ],
)
def test_a_large_message_that_is_damaged_is_refused(damaged: bytes) -> None:
    with pytest.raises(ProtocolError, match="protobuf"):
        read_client(damaged)


def test_a_large_message_of_nothing_but_crumbs_is_refused_at_once() -> None:
    crumbs = pb.ClientMessage(more=pb.More(pieces=[pb.Piece(data=b"x")] * 100_000))
    with pytest.raises(ProtocolError, match=f"at most {limits.MAX_FIELDS} fields"):
        read_client(crumbs.SerializeToString())


def test_an_older_server_answers_no_codec_and_takes_none() -> None:
    welcome = read_server(bytes.fromhex("0a07 0a0173 1001 1801"))  # as before there were any
    assert welcome == Welcome("s", 1, 1)
    assert isinstance(welcome, Welcome)
    assert "says nothing of it" in welcome.refusal_of("bfp")


def test_what_a_server_says_of_a_codec_is_one_line_of_bounded_length() -> None:
    loud = pb.Welcome(codecs=[pb.CodecAnswer(name="bfp", refusal="\x1b[2J\n" + "no " * 999)])
    welcome = read_server(pb.ServerMessage(welcome=loud).SerializeToString())
    assert isinstance(welcome, Welcome)
    told = welcome.refusal_of("bfp")
    assert len(told) <= limits.MAX_REASON_CHARS
    assert told.isprintable()
    many = pb.Welcome(codecs=[pb.CodecAnswer(name="bfp")] * 17)
    with pytest.raises(ProtocolError, match="at most 16 codecs"):
        read_server(pb.ServerMessage(welcome=many).SerializeToString())


@pytest.mark.parametrize("keepalive_s", [-1.0, math.inf, math.nan])
def test_a_welcome_that_says_no_time_is_refused(keepalive_s: float) -> None:
    with pytest.raises(ProtocolError, match="keepalive_s"):
        read_server(write_server(Welcome("s", 1, 1, keepalive_s)))


def test_a_kind_of_message_from_the_future_is_refused() -> None:
    future = bytes.fromhex("7a00")  # field 15, which nobody has defined
    with pytest.raises(ProtocolError, match="same version"):
        read_client(future)
    with pytest.raises(ProtocolError, match="same version"):
        read_server(future)


@given(st.lists(_SPECS, max_size=3).map(tuple), st.lists(_SMALL, max_size=4).map(tuple))
def test_a_description_survives_the_wire(
    specs: tuple[TensorSpec, ...], runs: tuple[int, ...]
) -> None:
    transforms = (TransformDescription("klt:4", specs), TransformDescription("klt:8", ()))
    cuts = (CutDescription("c", runs, specs, transforms), CutDescription("d", (), ()))
    model = ModelDescription("m", "g", "p", cuts, ("raw",), "{}", (("kind", '"array"'),))
    model = replace(model, own_codecs=(CodecName("bfp", "1"),))
    description = Description("server", (model, model))
    encoded = write_description(description).SerializeToString()
    assert read_description(pb.DescribeReply.FromString(encoded)) == description


def test_the_unary_form_names_its_transform_too() -> None:
    message = pb.InferRequest(first_segment=2, transform="klt:4")
    assert read_infer(message.SerializeToString())[1] == Request(0, 2, (), transform="klt:4")
    message.transform = "k" * 65
    with pytest.raises(ProtocolError, match="at most 64 characters"):
        read_infer(message.SerializeToString())


def test_a_model_with_an_unknown_dtype_is_named_and_the_others_are_read() -> None:
    message = write_description(Description("s", (ModelDescription("m", "g", "p", (), ()),)))
    newer = message.models.add(name="newer")
    newer.cuts.add().tensors.add().dtype = "string"
    found = read_description(message)
    assert [each.name for each in found.models] == ["m"]
    ((name, why),) = found.unreadable
    assert name == "newer"
    assert "dtype must be one of" in why


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("kind", "x" * 129, 1),
        ("n" * 129, "1", 1),
        ("kind", "\x1b[2J", 1),
        ("kind", "\u0441", 1),
        ("kind", "1", 33),
    ],
)
def test_a_feed_that_is_long_or_no_plain_text_is_refused(
    name: str, value: str, count: int
) -> None:
    message = pb.DescribeReply()
    model = message.models.add()
    for _ in range(count):
        model.feed.add(name=name, value=value)
    found = read_description(message)
    assert found.models == ()
    assert "a feed m" in found.unreadable[0][1]


def test_an_empty_status_means_ok() -> None:
    assert Status().ok
    assert not Status(Code.INTERNAL).ok
