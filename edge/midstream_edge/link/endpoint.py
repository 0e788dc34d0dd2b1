"""Endpoints: a server's address and credentials, and gRPC channels to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import grpc

from midstream_wire.address import Address, parse_address
from midstream_wire.credentials import ChannelTls, bearer, require_safe
from midstream_wire.limits import MAX_MESSAGE_NBYTES

#: How long one attempt to connect may take. gRPC names the option after its other use.
CONNECT_S = 3.0

#: gRPC's own keepalive, an HTTP/2 ping. Servers and proxies with gRPC's defaults close a
#: connection on which these come more often than every five minutes without data, and only
#: while a call is open. Frames are data to them, so a dead link is found by the pings of
#: `streams`, in seconds, however many proxies there are; this one is for what nobody looks at.
KEEPALIVE_MS = 330_000

#: How long a keepalive may go unanswered. It is also the longest pause of TCP's
#: acknowledgements (TCP_USER_TIMEOUT): with 1 s, a link of 0.5 Mbit/s behind 64 KiB of buffer
#: broke in the middle of every larger request. Nothing waits for it: requests have deadlines
#: of their own, and `failure_detector` finds a dead link sooner.
KEEPALIVE_TIMEOUT_MS = 10_000

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # The first attempt must be given time for TCP and TLS over a satellite; later ones are
    # made on fresh channels, with our own pauses in between.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),
    # Channels of equal options share connections and their backoff: a fresh one would not be.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries keep copies of what was sent; requests are finished on the edge instead.
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
)


@final
@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address and credentials: all that opening a channel takes."""

    address: Address
    tls: ChannelTls | None = None
    token: str | None = None

    @classmethod
    def of(
        cls,
        server: str,
        *,
        tls: ChannelTls | None = None,
        token: str | None = None,
        insecure: bool = False,
    ) -> Endpoint:
        """Read `server` (`host:port`, `unix:path`).

        Raises `UsageError` if it is no address, or if plaintext would leave the machine
        without `insecure`.
        """
        address = parse_address(server)
        require_safe(address, tls=tls is not None, token=token is not None, insecure=insecure)
        return cls(address, tls, token)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with every call."""
        return () if self.token is None else bearer(self.token)

    def open(self, *, mark_ms: int = KEEPALIVE_TIMEOUT_MS) -> grpc.Channel:
        """A fresh channel; it connects when first used. `mark_ms`: see `tcpinfo.find_tap`."""
        options: list[tuple[str, int]] = [*_OPTIONS, ("grpc.keepalive_timeout_ms", mark_ms)]
        if self.address.is_loopback:
            # A proxy named in the environment cannot know what is on this machine.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is None:
            return grpc.insecure_channel(self.address.target, options)
        return grpc.secure_channel(self.address.target, self.tls.credentials, options)
