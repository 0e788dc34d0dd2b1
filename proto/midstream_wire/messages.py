"""A session's frames to protobuf and back.

Outside the gRPC shells of edge and cloud, only this module and `unary` touch generated code.
Reading checks the sizes that the peer chose and raises `ProtocolError`.

The protobuf runtime copies bytes into a message, out of it, and once more when it serializes
or parses, so a session's messages are bytes here: `fields` lays large payloads between what
the runtime has serialized, and finds them where they lie. A message that is given to another
one's constructor is copied with all it holds; the others are filled in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from midstream_wire.errors import ProtocolError
from midstream_wire.fields import Allowance, Bytes, fields_of, front_of, malformed
from midstream_wire.foreign_text import one_line
from midstream_wire.frames import (
    Cancel,
    ClientFrame,
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
from midstream_wire.limits import (
    KIB,
    MAX_CODEC_CHARS,
    MAX_CODEC_NAMES,
    MAX_PADDING_NBYTES,
    MAX_PIECE_NBYTES,
    MAX_PIECES,
    MAX_REASON_CHARS,
    MAX_TENSORS,
    MAX_TRANSFORM_CHARS,
)
from midstream_wire.v1 import midstream_pb2 as pb

_M = TypeVar("_M", bound=Message)

#: In smaller messages the runtime's copies cost less than looking at the fields one by one.
_LARGE_NBYTES = 64 * KIB

#: Field numbers of pieces, by that of the kind of message that has them.
_CLIENT_PIECES = {
    pb.ClientMessage.REQUEST_FIELD_NUMBER: pb.Request.PIECES_FIELD_NUMBER,
    pb.ClientMessage.MORE_FIELD_NUMBER: pb.More.PIECES_FIELD_NUMBER,
}
_SERVER_PIECES = {
    pb.ServerMessage.REPLY_FIELD_NUMBER: pb.Reply.PIECES_FIELD_NUMBER,
    pb.ServerMessage.MORE_FIELD_NUMBER: pb.More.PIECES_FIELD_NUMBER,
}


def read_client(data: bytes) -> ClientFrame:
    """The frame of a serialized ClientMessage; `ProtocolError` when it is none."""
    message, large = _open(pb.ClientMessage, data, _CLIENT_PIECES)
    match message.WhichOneof("kind"):
        case "hello":
            return read_hello(message.hello)
        case "request":
            return _read_request(message.request, large)
        case "more":
            return More(message.more.id, large or _read_pieces(message.more.pieces))
        case "cancel":
            return Cancel(message.cancel.id)
        case "ping":
            return _read_ping(message.ping)
        case _:
            raise ProtocolError(_UNKNOWN_KIND)


def read_server(data: bytes) -> ServerFrame:
    """The frame of a serialized ServerMessage; `ProtocolError` when it is none."""
    message, large = _open(pb.ServerMessage, data, _SERVER_PIECES)
    match message.WhichOneof("kind"):
        case "welcome":
            return _read_welcome(message.welcome)
        case "reply":
            return _read_reply(message.reply, large)
        case "more":
            return More(message.more.id, large or _read_pieces(message.more.pieces))
        case "pong":
            pong = message.pong
            return Pong(pong.id, pong.padding, pong.received_s, pong.sent_s)
        case "go_away":
            return GoAway(read_status(message.go_away.reason))
        case _:
            raise ProtocolError(_UNKNOWN_KIND)


def write_client(frame: ClientFrame) -> bytes:
    """The serialized ClientMessage that carries a client's frame."""
    kind = pb.ClientMessage
    match frame:
        case Hello():
            hello = pb.Hello()
            write_hello(frame, hello)
            return _join(kind.HELLO_FIELD_NUMBER, hello)
        case Request():
            request = pb.Request(
                id=frame.id,
                first_segment=frame.first_segment,
                budget_s=frame.budget_s,
                tensors=frame.tensors,
                transform=frame.transform,
            )
            pieces = _encode(frame.pieces, pb.Request.PIECES_FIELD_NUMBER)
            return _join(kind.REQUEST_FIELD_NUMBER, request, pieces)
        case More():
            return _join(kind.MORE_FIELD_NUMBER, pb.More(id=frame.id), _encode_more(frame))
        case Cancel():
            return _join(kind.CANCEL_FIELD_NUMBER, pb.Cancel(id=frame.id))
        case Ping():
            ping = pb.Ping(id=frame.id, padding=frame.padding, reply_nbytes=frame.reply_nbytes)
            return _join(kind.PING_FIELD_NUMBER, ping)


def write_server(frame: ServerFrame) -> bytes:
    """The serialized ServerMessage that carries a server's frame."""
    kind = pb.ServerMessage
    match frame:
        case Welcome():
            welcome = pb.Welcome(
                server=frame.server,
                max_request_nbytes=frame.max_request_nbytes,
                max_in_flight=frame.max_in_flight,
                keepalive_s=frame.keepalive_s,
                codecs=[
                    pb.CodecAnswer(name=each.name, refusal=each.refusal)
                    for each in frame.codecs
                ],
            )
            return _join(kind.WELCOME_FIELD_NUMBER, welcome)
        case Reply():
            reply = pb.Reply(id=frame.id, tensors=frame.tensors)
            write_status(frame.status, reply.status)
            write_timings(frame.timings, reply.timings)
            pieces = _encode(frame.pieces, pb.Reply.PIECES_FIELD_NUMBER)
            return _join(kind.REPLY_FIELD_NUMBER, reply, pieces)
        case More():
            return _join(kind.MORE_FIELD_NUMBER, pb.More(id=frame.id), _encode_more(frame))
        case Pong():
            pong = pb.Pong(
                id=frame.id,
                padding=frame.padding,
                received_s=frame.received_s,
                sent_s=frame.sent_s,
            )
            return _join(kind.PONG_FIELD_NUMBER, pong)
        case GoAway():
            away = pb.GoAway()
            write_status(frame.reason, away.reason)
            return _join(kind.GO_AWAY_FIELD_NUMBER, away)


def _read_welcome(message: pb.Welcome) -> Welcome:
    keepalive_s = message.keepalive_s
    if not (math.isfinite(keepalive_s) and keepalive_s >= 0):
        raise ProtocolError(
            f"a Welcome's keepalive_s must be finite and >= 0 (not {keepalive_s})"
        )
    return Welcome(
        message.server,
        message.max_request_nbytes,
        message.max_in_flight,
        keepalive_s,
        _read_codec_answers(message.codecs),
    )


def read_hello(message: pb.Hello) -> Hello:
    return Hello(
        message.model,
        message.partition_digest,
        message.client,
        read_codec_names(message.codecs),
    )


def write_hello(hello: Hello, into: pb.Hello) -> None:
    into.model, into.partition_digest = hello.model, hello.partition_digest
    into.client = hello.client
    into.codecs.extend(map(write_codec_name, hello.codecs))
    into.SetInParent()


def read_codec_names(messages: Sequence[pb.CodecName]) -> tuple[CodecName, ...]:
    """Codecs of users' own, each once; `ProtocolError` for too many, and for names of more
    than a word.
    """
    if len(messages) > MAX_CODEC_NAMES:
        raise ProtocolError(
            f"at most {MAX_CODEC_NAMES} codecs of one's own may be named (not "
            f"{len(messages)}): name those that are used"
        )
    names = tuple(
        CodecName(_codec_word(each.name), _codec_word(each.version)) for each in messages
    )
    if len({each.name for each in names}) < len(names):
        raise ProtocolError("a codec must be named once (not twice): leave one out")
    return names


def write_codec_name(name: CodecName) -> pb.CodecName:
    return pb.CodecName(name=name.name, version=name.version)


def _codec_word(text: str) -> str:
    if not (0 < len(text) <= MAX_CODEC_CHARS and text.isascii() and text.isprintable()):
        raise ProtocolError(
            f"the name and the version of a codec must be 1 to {MAX_CODEC_CHARS} printable "
            f"characters of ASCII (not {text[:64]!a}): rename it"
        )
    return text


def _read_codec_answers(messages: Sequence[pb.CodecAnswer]) -> tuple[CodecAnswer, ...]:
    if len(messages) > MAX_CODEC_NAMES:
        raise ProtocolError(
            f"a Welcome may answer at most {MAX_CODEC_NAMES} codecs (not {len(messages)}): "
            "use the same version of midstream on both sides"
        )
    return tuple(
        CodecAnswer(_codec_word(each.name), one_line(each.refusal, chars=MAX_REASON_CHARS))
        for each in messages
    )


def read_status(message: status_pb2.Status) -> Status:
    return Status(message.code, message.message)


def write_status(status: Status, into: status_pb2.Status) -> None:
    into.code, into.message = int(status.code), status.message
    into.SetInParent()


def read_timings(message: pb.ServerTimings) -> ServerTimings:
    return ServerTimings(
        received_s=message.received_s,
        finished_s=message.finished_s,
        queue_s=message.queue_s,
        decode_s=message.decode_s,
        tail_s=message.tail_s,
    )


def write_timings(timings: ServerTimings, into: pb.ServerTimings) -> None:
    into.received_s, into.finished_s = timings.received_s, timings.finished_s
    into.queue_s, into.decode_s = timings.queue_s, timings.decode_s
    into.tail_s = timings.tail_s


_UNKNOWN_KIND = (
    "a message of midstream.v1 must be of a kind that this side knows (not empty or newer): "
    "use the same version of midstream on both sides"
)


def _open(
    kind: type[_M], data: bytes, fields: Mapping[int, int]
) -> tuple[_M, tuple[Piece, ...]]:
    """A message, and the pieces of a large one, which are left where they lie."""
    pieces: tuple[Piece, ...] = ()
    if len(data) >= _LARGE_NBYTES:
        data, pieces = _detach(data, fields)
    try:
        return kind.FromString(data), pieces
    except DecodeError:
        raise malformed() from None


def _detach(data: bytes, fields: Mapping[int, int]) -> tuple[bytes, tuple[Piece, ...]]:
    """A message without its pieces, and these. `fields`: where the kinds that have any do."""
    rest: list[Bytes] = []
    pieces: list[Piece] = []
    allowance = Allowance()
    for number, value, whole in fields_of(data, allowance):
        if number not in fields or isinstance(value, int):
            rest.append(whole)
            continue
        inner: list[Bytes] = []
        for at, part, field in fields_of(value, allowance):
            if at == fields[number] and not isinstance(part, int):
                pieces.append(_read_piece(part, allowance))
            else:
                inner.append(field)
        rest += (front_of(number, sum(map(len, inner))), *inner)
    return b"".join(rest), tuple(pieces)


def _read_piece(message: memoryview, allowance: Allowance) -> Piece:
    tensor, data = 0, memoryview(b"")
    for number, value, _ in fields_of(message, allowance):
        if number == pb.Piece.TENSOR_FIELD_NUMBER and isinstance(value, int):
            tensor = value
        elif number == pb.Piece.DATA_FIELD_NUMBER and not isinstance(value, int):
            data = value
    return Piece(tensor, _within(data))


def _read_pieces(pieces: Sequence[pb.Piece]) -> tuple[Piece, ...]:
    if len(pieces) > MAX_PIECES:
        raise ProtocolError(
            f"a message may hold at most {MAX_PIECES} pieces (not {len(pieces)}): send larger "
            "ones"
        )
    return tuple(Piece(piece.tensor, _within(piece.data)) for piece in pieces)


def _within(data: Bytes) -> Bytes:
    if len(data) > MAX_PIECE_NBYTES:
        raise ProtocolError(
            f"a piece may hold at most {MAX_PIECE_NBYTES} bytes (not {len(data)}): split it"
        )
    if not data:
        raise ProtocolError("a piece must hold a byte or more (not none): leave it out")
    return data


def _read_request(message: pb.Request, large: tuple[Piece, ...]) -> Request:
    budget_s = message.budget_s
    if not (math.isfinite(budget_s) and budget_s >= 0):
        raise ProtocolError(f"a request's budget_s must be finite and >= 0 (not {budget_s})")
    return Request(
        message.id,
        message.first_segment,
        read_names(message.tensors),
        large or _read_pieces(message.pieces),
        budget_s,
        read_transform(message.transform),
    )


def _read_reply(message: pb.Reply, large: tuple[Piece, ...]) -> Reply:
    return Reply(
        message.id,
        read_status(message.status),
        read_names(message.tensors),
        large or _read_pieces(message.pieces),
        read_timings(message.timings),
    )


def _read_ping(message: pb.Ping) -> Ping:
    if message.reply_nbytes > MAX_PADDING_NBYTES:
        raise ProtocolError(
            f"a ping may ask for at most {MAX_PADDING_NBYTES} bytes "
            f"(not {message.reply_nbytes}): measure with several"
        )
    return Ping(message.id, message.padding, message.reply_nbytes)


def read_names(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > MAX_TENSORS:
        raise ProtocolError(
            f"a request or reply may carry at most {MAX_TENSORS} tensors (not {len(names)})"
        )
    return tuple(names)


def read_transform(name: str) -> str:
    if len(name) > MAX_TRANSFORM_CHARS:
        raise ProtocolError(
            f"a transform's name may have at most {MAX_TRANSFORM_CHARS} characters "
            f"(not {len(name)})"
        )
    return name


def _encode(pieces: Iterable[Piece], number: int) -> list[Bytes]:
    """`pieces` as a message's field `number`; their data are not copied."""
    parts: list[Bytes] = []
    for piece in pieces:
        nbytes = len(piece.data)
        inner = pb.Piece(tensor=piece.tensor).SerializeToString()
        inner += front_of(pb.Piece.DATA_FIELD_NUMBER, nbytes)
        parts += (front_of(number, len(inner) + nbytes) + inner, piece.data)
    return parts


def _encode_more(frame: More) -> list[Bytes]:
    return _encode(frame.pieces, pb.More.PIECES_FIELD_NUMBER)


def _join(number: int, message: Message, pieces: Sequence[Bytes] = ()) -> bytes:
    """`message` and its pieces as field `number` of a message that has no other."""
    body = (message.SerializeToString(), *pieces)
    return b"".join((front_of(number, sum(map(len, body))), *body))
