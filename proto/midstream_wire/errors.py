"""Everything that midstream raises on purpose, divided by what a caller can do about it.

    MidstreamError
    ├── UsageError            what was asked cannot be taken: ask differently     (exit code 2)
    ├── ModelError            the network cannot be read, cut or run: mend the network
    ├── TensorError           a tensor does not fit what the network declares: mend the input
    ├── CodecError            a payload is malformed, corrupt or too large: drop it
    ├── PlanError             no candidate satisfies the constraints: loosen one
    ├── ResourceError         this machine lacks disk, memory, threads or processes: free some
    ├── EdgeFailed            the edge itself broke down over a request: see the cause
    ├── DeadlineExceeded      no answer in the time allowed: allow more, or let the edge finish
    └── PeerError             the other side: retry, fall back, or look at the peer
        ├── CloudUnavailable  nothing answers, or the connection broke
        ├── CloudRefused      the server answered with an error status
        └── ProtocolError     the peer does not speak midstream, or breaks its rules

Messages are one sentence each: what must hold, what came, what to do.
"""

from __future__ import annotations

from midstream_wire.foreign_text import one_line

#: The longest message: it may list names, and names come from peers and files.
MAX_MESSAGE_CHARS = 2_000


class MidstreamError(Exception):
    """Base of all errors that midstream raises on purpose.

    Whatever a message quotes, it is one line of at most `MAX_MESSAGE_CHARS` without control
    characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, chars=MAX_MESSAGE_CHARS))


class UsageError(MidstreamError):
    """Invalid usage: a missing file, a malformed value, a bad flag."""


class ModelError(MidstreamError):
    """A network cannot be read, cut or run."""


class TensorError(MidstreamError):
    """A tensor's dtype or shape does not fit what the network declares."""


class CodecError(MidstreamError):
    """A payload is malformed, corrupt, or larger than it may be."""


class PlanError(MidstreamError):
    """No candidate satisfies the constraints."""


class ResourceError(MidstreamError):
    """This machine lacks what the work takes: disk, memory, threads or processes."""


class EdgeFailed(MidstreamError):
    """The edge itself broke down over a request (no memory, a fault in what a user plugged
    in); `__cause__` is what was raised."""


class DeadlineExceeded(MidstreamError):
    """No answer came within the time allowed."""


class PeerError(MidstreamError):
    """The other side is absent, refuses, or misbehaves."""


class CloudUnavailable(PeerError):
    """Nothing answers at the server's address, or the connection broke."""


class CloudRefused(PeerError):
    """The server answered a request with an error status.

    `code` is the number of a google.rpc.Code (5 NOT_FOUND, 8 RESOURCE_EXHAUSTED, ...). `kind`
    says in a word or two what was refused, for a server's own counts.
    """

    def __init__(self, code: int, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class ProtocolError(PeerError):
    """The peer does not speak midstream.v1, or breaks its rules."""
