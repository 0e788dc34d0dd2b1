"""Diagnosis of a server's address, by a connection of our own.

gRPC has one status, UNAVAILABLE, for a port that is closed, a name that does not resolve, TLS
that fails and a web server, and tells them apart only in the words of its messages, which
change from version to version. So where a channel does not come about, the steps of one are
taken here: TCP, TLS where the edge uses it, and the first frame of HTTP/2. Each fails with a
code of its own.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from midstream_edge.link.failures import UNDIAGNOSED, Finding, Kind, no_answer
from midstream_wire.address import Address
from midstream_wire.credentials import ChannelTls

#: How long each step may take: TCP and TLS over a satellite take 1.8 s.
STEP_S = 2.0

#: A client's preface (RFC 9113, section 3.4) with the empty SETTINGS that belong to it.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_NBYTES = 9
_SETTINGS = 4
_TLS_ALERT = 0x15
#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: the clock may be wrong.
_OUT_OF_TIME = (9, 10)
#: TLS 1.3 asks for a client's certificate after the client has finished, and gRPC's servers
#: answer none with silence; so does a load balancer that has no server behind it.
_HUNG_UP = Finding(
    Kind.PRESENT,
    "it hangs up after the TLS handshake, as servers do that want a client's certificate",
)
#: What sends gRPC another way than the one that is looked at here.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


def examine(address: Address, tls: ChannelTls | None) -> Finding:
    """Connect to `address` as a gRPC channel would; takes a few `STEP_S` at most."""
    if _is_proxied(address):
        return UNDIAGNOSED
    try:
        with _connected(address) as end:
            if tls is None:
                return _greeted(end) or _silent(address)
            return _secured(end, address, tls)
    except OSError as error:
        return _absent(error)


def require_reachable(address: Address, timeout_s: float) -> None:
    """Raise `CloudUnavailable` if a TCP handshake with `address` takes longer than that.

    Whatever else is wrong with it, a channel finds out as fast, and says more of it. A server
    behind a proxy counts as reachable.
    """
    if _is_proxied(address):
        return
    try:
        with _connected(address, timeout_s):
            pass
    except TimeoutError:
        raise no_answer(str(address), timeout_s) from None
    except OSError:
        pass


def _is_proxied(address: Address) -> bool:
    return not address.is_loopback and any(os.environ.get(name) for name in _PROXIES)


def _secured(end: socket.socket, address: Address, tls: ChannelTls) -> Finding:
    try:
        with tls.context().wrap_socket(end, server_hostname=address.host) as secured:
            if secured.selected_alpn_protocol() != "h2":
                return Finding(Kind.FOREIGN, "it speaks TLS and not HTTP/2 over it")
            return _greeted(secured) or _HUNG_UP
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OUT_OF_TIME:
            now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
            return Finding(
                Kind.ABSENT, f"its certificate is not valid now, at {now} UTC by this clock"
            )
        why = error.verify_message.rstrip(".")  # a sentence goes on behind it
        return Finding(Kind.MISTRUST, f"its certificate fails: {why}")
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return UNDIAGNOSED
    except ssl.SSLError as error:
        reason = (error.reason or "no reason given").lower().replace("_", " ")
        return Finding(Kind.MISTRUST, f"the handshake failed ({reason})")


def _greeted(end: socket.socket) -> Finding | None:
    """Say HTTP/2's preface; None where nothing comes back before the end."""
    end.sendall(_PREFACE)
    header = b""
    with suppress(ConnectionError):
        while len(header) < _FRAME_HEADER_NBYTES:
            part = end.recv(_FRAME_HEADER_NBYTES - len(header))
            if not part:
                break
            header += part
    if not header or header[0] == _TLS_ALERT:
        return None
    if len(header) == _FRAME_HEADER_NBYTES and header[3] == _SETTINGS and not any(header[5:]):
        return UNDIAGNOSED
    return Finding(Kind.FOREIGN, "what answers there does not speak HTTP/2")


def _silent(address: Address) -> Finding:
    """The server hung up on plaintext: perhaps it wants TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    spoken = Finding(Kind.MISTRUST, "the server speaks TLS, and this edge plaintext")
    try:
        with (
            _connected(address) as end,
            context.wrap_socket(end, server_hostname=address.host),
        ):
            return spoken
    except ssl.SSLError as error:
        return spoken if "ALERT" in (error.reason or "") else UNDIAGNOSED


@contextmanager
def _connected(address: Address, timeout_s: float = STEP_S) -> Iterator[socket.socket]:
    if address.port is None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(timeout_s)
        with end:
            end.connect(address.host)
            yield end
        return
    with socket.create_connection((address.host, address.port), timeout_s) as end:
        yield end


def _absent(error: OSError) -> Finding:
    what = error.strerror or type(error).__name__
    if isinstance(error, socket.gaierror):
        what = f"the name cannot be resolved ({what})"
    elif isinstance(error, ConnectionRefusedError):
        what = "the connection was refused"
    elif isinstance(error, TimeoutError):
        what = f"nothing came within {STEP_S:g} s"
    return Finding(Kind.ABSENT, what)
