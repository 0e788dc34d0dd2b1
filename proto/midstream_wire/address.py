"""Addresses of servers: `host:port`, `[ipv6]:port` or `unix:path`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import final

from midstream_wire.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; `port` is None for a socket in the file system, `host` its path."""

    host: str
    port: int | None

    @property
    def target(self) -> str:
        """The address as gRPC wants it."""
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return True if what is said there cannot leave the machine."""
        if self.port is None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may resolve to anything
            return False

    def with_port(self, port: int) -> Address:
        """The same host at another port, for a server that was given port 0."""
        return self if self.port is None else Address(self.host, port)

    def __str__(self) -> str:
        return self.target


def parse_address(text: str) -> Address:
    """Read an address; `UsageError` when it is none."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(text.removeprefix("unix:"), None)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address without brackets: which colon is the port's?
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise UsageError(
            f"an address must be host:port, [ipv6]:port or unix:path (not {text[:100]!r}), "
            "for example localhost:50051"
        )
    return Address(host, int(port))
