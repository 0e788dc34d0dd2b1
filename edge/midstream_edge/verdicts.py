"""What a failed connection or call means, in one sentence each.

gRPC tells most failures apart only in the text of the status, so the text is read here, in one
place, as far as it decides what a person has to do. Pure: codes and texts in, errors out.
"""

from __future__ import annotations

from midstream_wire.errors import CloudRefused, CloudUnavailable, PeerError, ProtocolError

# Numbers of google.rpc.Code.
OK = 0
CANCELLED = 1
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

#: Refusals that come from how the two sides are set up: trying again cannot help.
SETTLED = frozenset({3, NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, UNAUTHENTICATED})

_FOREIGN = (
    "received http2 header with status",
    "trying to connect an http1",
    "http/1",
    "failed parsing http/2",
    "expected settings frame",
    "invalid content-type",
    "remote does not speak",
    "first received frame",
)
_TLS = ("ssl", "tls", "handshake", "certificate")


def verdict(server: str, code: int, details: str) -> PeerError:
    """The error that a gRPC status stands for; `code` is a number of google.rpc.Code."""
    text = details.lower()
    if code == UNIMPLEMENTED or any(sign in text for sign in _FOREIGN):
        return ProtocolError(
            f"the server at {server} must speak midstream.v1, but it does not know it "
            f"({_short(details)}): check the address and port"
        )
    if code in (UNAUTHENTICATED, PERMISSION_DENIED):
        return CloudRefused(
            code,
            f"the server at {server} must be given credentials that it accepts "
            f"({_short(details)}): check the token and the certificates",
        )
    if code == UNAVAILABLE and any(sign in text for sign in _TLS):
        return ProtocolError(
            f"both sides must agree on TLS, but the handshake with {server} failed "
            f"({_short(details)}): check the certificates and whether the server uses TLS"
        )
    if code in (UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN):
        return CloudUnavailable(
            f"a server must answer at {server}, but {_absence(text)}"
            f" ({_short(details)}): check that it runs, can be reached, and "
            "whether it uses TLS"
        )
    return CloudRefused(code, f"the server at {server} refused: {_short(details)}")


def silence(server: str, timeout_s: float) -> CloudUnavailable:
    """The error for a server that says nothing at all."""
    return CloudUnavailable(
        f"a server must answer at {server}, but nothing came within {timeout_s:g} s: "
        "check the address, the port, and firewalls in between"
    )


def farewell(server: str, code: int, message: str) -> PeerError:
    """The error for a GoAway: the server's own sentence, and whose it is."""
    if code in (OK, UNAVAILABLE):
        return CloudUnavailable(f"the server at {server} is leaving: {_short(message)}")
    return CloudRefused(code, f"the server at {server} refused the session: {_short(message)}")


def is_settled(error: Exception) -> bool:
    """Whether `error` comes from the configuration of the two sides, not from the weather."""
    if isinstance(error, CloudRefused):
        return error.code in SETTLED
    return isinstance(error, ProtocolError)


def _absence(text: str) -> str:
    if "refused" in text:
        return "the connection was refused"
    if "dns" in text or "name resolution" in text:
        return "the name cannot be resolved"
    if "unreachable" in text:
        return "the network is unreachable"
    return "the connection broke or never stood"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
