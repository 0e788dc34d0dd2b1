"""Frames of a session, as values.

A frame is one message of the Session stream. `messages` turns frames into protobuf and back,
`transfers` splits tensors into frames and puts them together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import final


class Code(IntEnum):
    """The codes of google.rpc.Status that midstream uses, under their gRPC names."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@final
@dataclass(frozen=True, slots=True)
class Status:
    """The end of a request. `code` is a `Code`, or a number that a newer peer knows."""

    code: int = Code.OK
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.code == Code.OK


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of one tensor's payload; `tensor` indexes the names of its request."""

    tensor: int
    data: bytes | memoryview


@final
@dataclass(frozen=True, slots=True)
class CodecName:
    """A codec of a user's own, by what both sides must agree on."""

    name: str
    version: str


@final
@dataclass(frozen=True, slots=True)
class CodecAnswer:
    """A server's word on a codec that a Hello has named; `refusal` "" = it takes it."""

    name: str
    refusal: str = ""


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a session: every request of it refers to this partition of this model.

    The first of `codecs` has the first private code of the session, and so on.
    """

    model: str
    partition_digest: str
    client: str = ""
    codecs: tuple[CodecName, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Welcome:
    """Accepts a session and says what it may ask for.

    `keepalive_s` is the silence after which an idle session may ping; 0 = never. `codecs`
    answers those of the Hello; a server that knows of none says nothing.
    """

    server: str
    max_request_nbytes: int
    max_in_flight: int
    keepalive_s: float = 0.0
    codecs: tuple[CodecAnswer, ...] = ()

    def refusal_of(self, family: str) -> str:
        """Return why the Hello's codec `family` may not be used; "" if it may."""
        for answer in self.codecs:
            if answer.name == family:
                return answer.refusal
        return (
            f"the server must know the codec {family}, and says nothing of it: load it before "
            "the session begins, and use the same version of midstream on both sides"
        )


@final
@dataclass(frozen=True, slots=True)
class Request:
    """Asks the cloud to run the segments from `first_segment` on.

    `budget_s` is the time the edge will still wait; 0 = no limit. `transform` names what the
    tensors went through before they were encoded; "" = nothing.
    """

    id: int
    first_segment: int
    tensors: tuple[str, ...]
    pieces: tuple[Piece, ...] = ()
    budget_s: float = 0.0
    transform: str = ""


@final
@dataclass(frozen=True, slots=True)
class More:
    """Further pieces of a request or a reply."""

    id: int
    pieces: tuple[Piece, ...]


@final
@dataclass(frozen=True, slots=True)
class Cancel:
    """The edge no longer wants the answer."""

    id: int


@final
@dataclass(frozen=True, slots=True)
class Ping:
    """Measures the link: asks for a `Pong` at once, with so much padding."""

    id: int
    padding: bytes = b""
    reply_nbytes: int = 0


@final
@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `Ping`; both times are of the server's monotonic clock."""

    id: int
    padding: bytes
    received_s: float
    sent_s: float


@final
@dataclass(frozen=True, slots=True)
class ServerTimings:
    """A request's times in the cloud; seconds, as midstream.proto explains them."""

    received_s: float = 0.0
    finished_s: float = 0.0
    queue_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """Answers a request: a status that is not OK, or outputs."""

    id: int
    status: Status = Status()
    tensors: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    timings: ServerTimings = ServerTimings()


@final
@dataclass(frozen=True, slots=True)
class GoAway:
    """The server takes no new requests on this stream; what is under way is finished."""

    reason: Status


ClientFrame = Hello | Request | More | Cancel | Ping
ServerFrame = Welcome | Reply | More | Pong | GoAway
