"""TLS from certificate files, bearer tokens, and when plaintext is allowed.

Files are PEM. Plaintext is for loopback alone unless the caller says `insecure`, since tensors
of a person's camera are no less private than the picture; a token over plaintext would be
anyone's.
"""

from __future__ import annotations

import hmac
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import grpc

from midstream_wire.address import Address
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

_LOG = logging.getLogger(__name__)

#: The metadata key of the token (RFC 6750, section 2.1).
AUTHORIZATION = "authorization"

_SCHEME = "Bearer "


@final
@dataclass(frozen=True, slots=True)
class ChannelTls:
    """TLS for an edge: as gRPC takes it, and what it is made of."""

    credentials: grpc.ChannelCredentials = field(repr=False, compare=False)
    authority: bytes | None = field(repr=False)
    pair: tuple[Path, Path] | None  # certificate and key

    def context(self) -> ssl.SSLContext:
        """The same for a connection of our own."""
        context = ssl.create_default_context()
        if self.authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=self.authority.decode("ascii", "replace"))
        if self.pair is not None:
            context.load_cert_chain(*self.pair)
        context.set_alpn_protocols(["h2"])
        return context


def channel_tls(
    *,
    authority: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> ChannelTls:
    """TLS for an edge.

    `authority` holds the certificates that may sign the server's (None: those of the system).
    `certificate` and `key`, given together, show the server who the edge is (mutual TLS).
    """
    if (certificate is None) != (key is None):
        raise UsageError("a client certificate must come with its key: give both or neither")
    pair = None
    if certificate is not None and key is not None:
        _check_pair(certificate, key)
        pair = certificate, key
    signers = _read(authority, "certificate authority")
    credentials = grpc.ssl_channel_credentials(
        signers, _read(key, "client key"), _read(certificate, "client certificate")
    )
    return ChannelTls(credentials, signers, pair)


def trust(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> ChannelTls | None:
    """TLS if any file of it is given, None for plaintext."""
    if authority is certificate is key is None:
        return None
    return channel_tls(authority=authority, certificate=certificate, key=key)


def server_tls(
    *, certificate: Path, key: Path, client_authority: Path | None = None
) -> grpc.ServerCredentials:
    """TLS for a server; with `client_authority`, edges must show a certificate it signed.

    Files that have changed are read again when the next edge connects; where they cannot be
    used, the certificate before stays, and the log says why.
    """
    files = _CertificateFiles(certificate, key, client_authority)
    return grpc.dynamic_ssl_server_credentials(
        files.read(), files.renewed, require_client_authentication=client_authority is not None
    )


@final
class _CertificateFiles:
    """A server's certificate, its key, and who signs those of clients."""

    def __init__(self, certificate: Path, key: Path, client_authority: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_authority = client_authority
        self._seen = self._look()

    def read(self) -> Any:
        """Return what the files hold; `UsageError` where that is of no use."""
        pair = _read(self._key, "server key"), _read(self._certificate, "server certificate")
        _check_pair(self._certificate, self._key)
        signers = _read(self._client_authority, "client certificate authority")
        return grpc.ssl_server_certificate_configuration([pair], signers)

    def renewed(self) -> Any:
        """Return what the files hold if they have changed; None keeps what there was."""
        seen = self._look()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            made = self.read()
        except UsageError as error:
            _LOG.warning("the server's certificate stays the one before: %s", error)
            return None
        _LOG.warning("the server's certificate was read again: %s", self._certificate)
        return made

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [
            _state_of(path) for path in (self._certificate, self._key, self._client_authority)
        ]


def _state_of(path: Path | None) -> tuple[int, int, int] | None:
    """Return what changes when a file does; None where there is none."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def load_token(path: Path) -> str:
    """The bearer token in a file, without the white space around it."""
    token = read_text(path, "the token").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token file {path} must hold one word of ASCII letters, digits and signs: "
            "for example the output of 'openssl rand -hex 32'"
        )
    return token


def require_safe(address: Address, *, tls: bool, token: bool, insecure: bool) -> None:
    """`UsageError` when plaintext would leave the machine and nobody said that it may."""
    if tls or insecure or address.is_loopback:
        return
    what = "a token needs TLS" if token else "plaintext is allowed on loopback only"
    raise UsageError(
        f"{what} (not {address}): give certificate files, use 127.0.0.1, or say --insecure"
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The call metadata that carries `token`."""
    return ((AUTHORIZATION, _SCHEME + token),)


def is_bearer(metadata: Iterable[tuple[str, str | bytes]], token: str) -> bool:
    """Return True if `metadata` carries `token`, compared in constant time."""
    wanted = (_SCHEME + token).encode()
    shown = [value for key, value in metadata if key == AUTHORIZATION]
    if len(shown) != 1:
        return False
    value = shown[0]
    return hmac.compare_digest(value.encode() if isinstance(value, str) else value, wanted)


def _read(path: Path | None, what: str) -> bytes | None:
    """Content of a PEM file. Anything else would fail much later, without a reason."""
    if path is None:
        return None
    content = read_text(path, f"the {what}")
    if "-----BEGIN " not in content:
        raise UsageError(
            f"the {what} {path} must be a PEM file (lines '-----BEGIN ...-----'): convert "
            "it with openssl"
        )
    return content.encode()


def _check_pair(certificate: Path, key: Path) -> None:
    """Check that both fit together. gRPC would fail when it listens, without a reason."""
    try:
        # An empty password: OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"{certificate} must be a certificate and {key} its key, without a password "
            f"({getattr(error, 'reason', None) or error}): give the two that belong together"
        ) from None
