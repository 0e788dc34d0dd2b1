"""Plain TCP handshakes that find out whether a server can be reached at all.

A fresh gRPC channel costs 5 to 10 ms of processor time and three threads, a handshake some
50 us. So while a link is down its server is tried at often, and a channel is opened once
that is answered. A SYN that is lost is not sent again for a second: hence new ones, beside
those that are on their way.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from midstream_wire.address import Address

#: Doors of one server: both families, and a second address of each.
MOST_DOORS = 4

#: From one look for the addresses to the next, while a name does not resolve.
SEEK_S = 0.5

#: A handshake that is not answered is forgotten; over a satellite it takes 0.6 s.
HANDSHAKE_LIFE_S = 1.5


@final
@dataclass(frozen=True, slots=True)
class PeerAddress:
    """The address of a TCP server: family, and address as sockets take it."""

    family: int
    address: Any


def find_doors(address: Address) -> tuple[PeerAddress, ...]:
    """The addresses of a TCP server, best first; none on a unix socket or for an unknown name.

    A name may keep this waiting for as long as the resolver does.
    """
    if address.port is None:
        return ()
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(PeerAddress(family, at) for family, _, _, _, at in found)[:MOST_DOORS]


def seek_addresses(address: Address, know: Callable[[tuple[PeerAddress, ...]], bool]) -> None:
    """Tell `know` of the server's addresses, on a thread of its own, until it returns True.

    A device that has just been switched on may not be able to resolve names yet.
    """

    def seek() -> None:
        while not know(find_doors(address)):
            time.sleep(SEEK_S)

    if address.port is not None:
        with suppress(RuntimeError, MemoryError):  # channels are tried without handshakes, too
            threading.Thread(target=seek, name="midstream-seek", daemon=True).start()


@final
class HandshakeProbes:
    """Handshakes on their way. Not for several threads at a time; never waits."""

    def __init__(self) -> None:
        self._ends: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, peer_address: PeerAddress, now_s: float) -> None:
        """Begin a handshake; what fails at once is forgotten."""
        try:
            end = socket.socket(peer_address.family, socket.SOCK_STREAM)
        except OSError:  # out of descriptors
            return
        end.setblocking(False)
        with suppress(OSError):  # gRPC's sockets speak IPv4 through IPv6
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if end.connect_ex(peer_address.address) in (0, errno.EINPROGRESS):
            self._ends[end] = now_s
        else:
            end.close()

    def are_answered(self, now_s: float) -> bool:
        """Return True if any handshake has come about; those that failed or are old are
        dropped.
        """
        answered = False
        for end in self._ready():
            answered = answered or end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            self._drop(end)
        for end in [
            end for end, since in self._ends.items() if now_s - since > HANDSHAKE_LIFE_S
        ]:
            self._drop(end)
        return answered

    def close(self) -> None:
        """Forget all."""
        for end in list(self._ends):
            self._drop(end)

    def _ready(self) -> list[socket.socket]:
        poll = select.poll()  # select(2) takes no descriptors above 1023
        ends = {end.fileno(): end for end in self._ends}
        for number in ends:
            poll.register(number, select.POLLOUT)
        return [ends[number] for number, _ in poll.poll(0)]

    def _drop(self, end: socket.socket) -> None:
        del self._ends[end]
        end.close()
