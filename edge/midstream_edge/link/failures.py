"""Meanings of failed connections and calls, one sentence each.

Judged by codes alone: gRPC's status, and what `diagnosis` found where that says too little.
Words of messages are passed on, and decide nothing. Pure: values in, errors out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import final

from midstream_wire.errors import CloudRefused, CloudUnavailable, PeerError, ProtocolError
from midstream_wire.foreign_text import one_line
from midstream_wire.frames import Code

#: Refusals that come from how the two sides are set up: trying again cannot help.
SETTLED = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.UNAUTHENTICATED,
    }
)

#: Statuses that gRPC makes up itself when there is no connection, or something else answers.
UNCLEAR = frozenset({Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE})


@final
class Kind(Enum):
    """The state of a server that gRPC could not reach."""

    ABSENT = auto()  # nothing there, or nothing that answers: it may come
    MISTRUST = auto()  # the two sides do not agree on TLS: somebody must change a setting
    FOREIGN = auto()  # something else answers there
    PRESENT = auto()  # HTTP/2 stands, or nobody can know


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnosis, and the end of a sentence about it: "... but `what`"."""

    kind: Kind
    what: str


UNDIAGNOSED = Finding(Kind.PRESENT, "the connection broke or never stood")


def classify_status(
    server: str, code: int, details: str, finding: Finding = UNDIAGNOSED
) -> PeerError:
    """The error that a gRPC status stands for; `code` is a number of google.rpc.Code."""
    if code == Code.UNIMPLEMENTED or (code in UNCLEAR and finding.kind is Kind.FOREIGN):
        why = one_line(details) if code == Code.UNIMPLEMENTED else finding.what
        return ProtocolError(
            f"the server at {server} must speak midstream.v1, but it does not know it "
            f"({why}): check the address and port"
        )
    if code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
        return CloudRefused(
            code,
            f"the server at {server} must be given credentials that it accepts "
            f"({one_line(details)}): check the token and the certificates",
        )
    if code in UNCLEAR and finding.kind is Kind.MISTRUST:
        return ProtocolError(
            f"both sides must agree on TLS, but with {server} {finding.what}: check the "
            "certificates, the name in the address, and whether the server uses TLS"
        )
    if code in UNCLEAR or code in (Code.CANCELLED, Code.DEADLINE_EXCEEDED):
        said = f" ({one_line(details)})" if finding.kind is Kind.PRESENT else ""
        return CloudUnavailable(
            f"a server must answer at {server}, but {finding.what}{said}: check that it "
            "runs and can be reached, and this device's network and clock"
        )
    return CloudRefused(code, f"the server at {server} refused: {one_line(details)}")


def no_answer(server: str, timeout_s: float) -> CloudUnavailable:
    """The error for a server that says nothing at all."""
    return CloudUnavailable(
        f"a server must answer at {server}, but nothing came within {timeout_s:.3g} s: "
        "check the address, the port, and firewalls in between"
    )


def not_opened(server: str, error: Exception) -> CloudUnavailable:
    """The error for a connection that this side had no thread or memory for."""
    reason = str(error) or type(error).__name__
    return CloudUnavailable(
        f"a connection to {server} must be opened, but that failed here ({reason}): it is "
        "tried again"
    )


def going_away(server: str, code: int, message: str) -> PeerError:
    """The error for a GoAway: the server's own sentence, and whose it is."""
    if code in (Code.OK, Code.UNAVAILABLE):
        return CloudUnavailable(f"the server at {server} is leaving: {one_line(message)}")
    return CloudRefused(
        code, f"the server at {server} refused the session: {one_line(message)}"
    )


def is_settled(error: Exception) -> bool:
    """Return True if `error` comes from the configuration of the two sides, not from the
    weather.
    """
    if isinstance(error, CloudRefused):
        return error.code in SETTLED
    return isinstance(error, ProtocolError)
