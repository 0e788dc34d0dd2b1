"""The kernel's view of a gRPC channel's socket, and the options set on it (Linux).

gRPC for Python hands its socket to nobody. It is found among the process's own descriptors by
a mark: a TCP_USER_TIMEOUT that no other socket has, which gRPC sets when a channel's keepalive
has that timeout. Elsewhere than on Linux, and on unix sockets, there is nothing to find, and
whoever asks must do without.

struct tcp_info is of the kernel's uapi (include/uapi/linux/tcp.h); its fields never move, new
ones are added at the end. `bytes_retrans`, the last one read here, came with Linux 4.19.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import final

from midstream_edge.link.tcp_handshakes import PeerAddress

#: What is handed to the kernel but not sent yet stays below this: it could not be taken back,
#: and without a limit it grew to 4 MB. At 1 Mbit/s this much takes a quarter of a second; at
#: 100 Mbit/s it leaves 1.3 ms to bring more. Exchanges of 1 KB to 3 MB on loopback took as
#: long with it as without.
UNSENT_NBYTES = 32 * 1024

# Constants of <linux/tcp.h>, which Python names on Linux only, or not at all.
_TCP_INFO = 11
_TCP_USER_TIMEOUT = 18
_TCP_NOTSENT_LOWAT = 25
_ESTABLISHED = 1
_INFO_NBYTES = 216

_DESCRIPTORS = "/proc/self/fd"


@final
@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One reading of TCP_INFO. Counts are of the connection's whole life, in bytes of TCP
    payload; `acked_nbytes` is what the other end's kernel has acknowledged.

    `unsent_nbytes` wait in the kernel, `in_flight_nbytes` were sent and are not acknowledged.
    `ack_age_s` is the time since the last acknowledgement of any kind, in milliseconds' steps.
    """

    acked_nbytes: int
    unsent_nbytes: int
    in_flight_nbytes: int
    received_nbytes: int
    retransmitted_nbytes: int
    ack_age_s: float
    srtt_s: float
    rttvar_s: float
    min_rtt_s: float
    rto_s: float
    delivery_bps: float

    @property
    def outstanding(self) -> bool:
        """Return True if the other end has yet to acknowledge something."""
        return self.unsent_nbytes > 0 or self.in_flight_nbytes > 0


def parse_tcp_info(data: bytes) -> TcpInfo | None:
    """Read a struct tcp_info in native byte order; None if the kernel is too old for it, or
    the connection does not stand."""
    if len(data) < _INFO_NBYTES or data[0] != _ESTABLISHED:
        return None
    (rto_us,) = struct.unpack_from("I", data, 8)
    (ack_age_ms,) = struct.unpack_from("I", data, 56)
    srtt_us, rttvar_us = struct.unpack_from("II", data, 68)
    acked, received = struct.unpack_from("QQ", data, 120)
    unsent, min_rtt_us = struct.unpack_from("II", data, 144)
    (delivery_bytes_per_s,) = struct.unpack_from("Q", data, 160)
    sent, retransmitted = struct.unpack_from("QQ", data, 200)
    acked = max(0, acked - 1)  # the SYN counts as one
    return TcpInfo(
        acked_nbytes=acked,
        unsent_nbytes=unsent,
        in_flight_nbytes=max(0, sent - retransmitted - acked),
        received_nbytes=received,
        retransmitted_nbytes=retransmitted,
        ack_age_s=ack_age_ms / 1e3,
        srtt_s=srtt_us / 1e6,
        rttvar_s=rttvar_us / 1e6,
        min_rtt_s=min_rtt_us / 1e6,
        rto_s=rto_us / 1e6,
        delivery_bps=8.0 * delivery_bytes_per_s,
    )


@final
class Tap:
    """A second handle on a channel's socket. Safe to use from any thread, also once closed."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        #: The other end, as this socket names it; None if it is gone.
        self.peer_address: PeerAddress | None = None
        with suppress(OSError):
            self.peer_address = PeerAddress(end.family, end.getpeername())
        self._lock = threading.Lock()  # a closed descriptor's number may be another's already
        self._closed = False

    def read(self) -> TcpInfo | None:
        """Return how the connection stands (1-2 us); None once it does not stand any more."""
        with self._lock:
            if self._closed:
                return None
            try:
                data = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_NBYTES)
            except OSError:
                return None
        return parse_tcp_info(data)

    def limit_unsent(self, nbytes: int) -> None:
        """Let no more than about `nbytes` wait in the kernel to be sent."""
        with self._lock, suppress(OSError):
            if not self._closed:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, nbytes)

    def abort(self) -> None:
        """End the connection and drop what is not acknowledged.

        Closing alone would leave the kernel trying to deliver it, for seconds after the link
        is back, ahead of what a fresh connection sends; and gRPC, waiting to write, would not
        close before TCP gives up.
        """
        with self._lock, suppress(OSError):
            if not self._closed:
                linger = struct.pack("ii", 1, 0)  # closing resets instead of delivering
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Give the handle back; the connection is gRPC's again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._socket.close()


def find_tap(mark_ms: int) -> Tap | None:
    """The standing TCP connection of this process whose user timeout is `mark_ms`.

    Takes some 10 us for each descriptor that is open.
    """
    if not sys.platform.startswith("linux"):
        return None
    for end in _sockets():
        if _is_marked(end, mark_ms):
            return Tap(end)
        end.close()
    return None


def _sockets() -> Iterator[socket.socket]:
    """A handle of its own on each socket among the descriptors; the caller closes it."""
    try:
        descriptors = os.listdir(_DESCRIPTORS)
    except OSError:  # no /proc
        return
    for name in descriptors:
        try:
            if not os.readlink(f"{_DESCRIPTORS}/{name}").startswith("socket:"):
                continue
            descriptor = os.dup(int(name))
        except OSError:
            continue  # closed in the meantime
        try:
            yield socket.socket(fileno=descriptor)
        except OSError:  # no socket: the number has changed hands
            os.close(descriptor)


def _is_marked(end: socket.socket, mark_ms: int) -> bool:
    try:
        if end.getsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT) != mark_ms:
            return False
        return end.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _ESTABLISHED
    except OSError:  # not TCP
        return False
