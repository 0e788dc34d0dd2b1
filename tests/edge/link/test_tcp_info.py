"""The kernel's view of a stream's connection."""

from __future__ import annotations

import gc
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from midstream_edge.link.tcp_info import Tap, find_tap, parse_tcp_info

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it")
USER_TIMEOUT = 18
MARK_MS = 54_321


def packed(**fields: int) -> bytes:
    """A struct tcp_info of 232 bytes that holds `fields`, named as in the kernel."""
    places = {
        "rto": ("I", 8),
        "last_ack_recv": ("I", 56),
        "rtt": ("I", 68),
        "rttvar": ("I", 72),
        "bytes_acked": ("Q", 120),
        "bytes_received": ("Q", 128),
        "notsent_bytes": ("I", 144),
        "min_rtt": ("I", 148),
        "delivery_rate": ("Q", 160),
        "bytes_sent": ("Q", 200),
        "bytes_retrans": ("Q", 208),
    }
    data = bytearray(232)
    data[0] = fields.pop("state", 1)
    for name, value in fields.items():
        kind, offset = places[name]
        struct.pack_into(kind, data, offset, value)
    return bytes(data)


def test_the_fields_are_read_from_where_the_kernel_puts_them() -> None:
    info = parse_tcp_info(
        packed(
            rto=220_000,
            last_ack_recv=12,
            rtt=20_500,
            rttvar=3_000,
            bytes_acked=70_001,
            bytes_received=900,
            notsent_bytes=4_096,
            min_rtt=19_000,
            delivery_rate=125_000,
            bytes_sent=74_000,
            bytes_retrans=1_000,
        )
    )
    assert info is not None
    assert (info.acked_nbytes, info.in_flight_nbytes, info.unsent_nbytes) == (
        70_000,
        3_000,
        4_096,
    )
    assert (info.received_nbytes, info.retransmitted_nbytes) == (900, 1_000)
    assert (info.srtt_s, info.rttvar_s, info.min_rtt_s) == (0.0205, 0.003, 0.019)
    assert (info.rto_s, info.ack_age_s, info.delivery_bps) == (0.22, 0.012, 1e6)
    assert info.outstanding


def test_an_old_kernel_or_a_connection_that_is_gone_tells_nothing() -> None:
    assert parse_tcp_info(packed()[:200]) is None
    assert parse_tcp_info(packed(state=7)) is None
    assert parse_tcp_info(b"") is None


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        closing(socket.create_connection(listener.getsockname())) as near,
        closing(listener.accept()[0]) as far,
    ):
        near.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, MARK_MS)
        yield near, far


def fill(end: socket.socket) -> int:
    """Send to somebody who does not read until no more is taken; how much was."""
    end.setblocking(False)
    taken = 0
    with suppress(BlockingIOError):
        while True:
            taken += end.send(bytes(4096))
    return taken


def drain(end: socket.socket) -> int:
    """Read to the end, whatever kind of end it is; how much came."""
    came = 0
    end.settimeout(30)
    with suppress(ConnectionError):
        while data := end.recv(65536):
            came += len(data)
    return came


def count_descriptors(end: socket.socket) -> int:
    """Return how many descriptors of this process stand for the socket."""
    wanted, count = os.fstat(end.fileno()).st_ino, 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed since it was listed
            count += os.fstat(int(name)).st_ino == wanted
    return count


@linux
def test_a_marked_socket_is_found_and_counts_what_was_acknowledged(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ends
    tap = find_tap(MARK_MS)
    assert tap is not None
    with closing(tap):
        near.sendall(bytes(5000))
        assert far.recv(5000, socket.MSG_WAITALL)
        near.sendall(b"x")  # whose acknowledgement covers all before
        assert far.recv(1)
        info = tap.read()
        assert info is not None
        assert 5000 <= info.acked_nbytes + info.in_flight_nbytes <= 5001
        assert info.srtt_s > 0


@linux
def test_no_other_socket_is_taken_for_the_marked_one(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    # Counted by socket, not in all: threads of other tests open and close descriptors too.
    assert find_tap(MARK_MS + 1) is None
    gc.collect()
    assert [count_descriptors(end) for end in ends] == [1, 1]


@linux
def test_what_is_not_sent_is_bounded_once_asked_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    near, _ = ends
    tap = find_tap(MARK_MS)
    assert tap is not None
    with closing(tap):
        tap.limit_unsent(16 * 1024)
        fill(near)
        info = tap.read()
        assert info is not None
        assert 0 < info.unsent_nbytes <= 128 * 1024


@linux
def test_an_abort_drops_what_is_not_delivered_and_a_closed_tap_tells_nothing(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ends
    tap = find_tap(MARK_MS)
    assert tap is not None
    taken = fill(near)
    tap.abort()
    with pytest.raises(BrokenPipeError):
        near.send(b"x")
    near.close()
    assert drain(far) < taken
    assert tap.read() is None
    tap.abort()
    tap.close()


@linux
def test_reading_while_another_thread_closes_is_safe() -> None:
    for _ in range(50):
        end, other = socket.socketpair()
        tap = Tap(end)
        closer = threading.Thread(target=tap.close)
        closer.start()
        assert tap.read() is None  # no TCP, or closed
        closer.join()
        other.close()
