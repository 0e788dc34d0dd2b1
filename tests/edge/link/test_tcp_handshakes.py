"""Plain handshakes with addresses that are open, shut, and behind a black hole."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack, closing

from midstream_edge.link.tcp_handshakes import HANDSHAKE_LIFE_S, HandshakeProbes, PeerAddress

PATIENCE_S = 30.0


def address_of(listener: socket.socket) -> PeerAddress:
    return PeerAddress(listener.family, listener.getsockname())


def answered(handshakes: HandshakeProbes) -> bool:
    """Whether a handshake is answered before all have failed."""
    now_s, end_s = time.monotonic(), time.monotonic() + PATIENCE_S
    while handshakes and time.monotonic() < end_s:
        if handshakes.are_answered(now_s):
            return True
        select.select([], [], [], 0.005)
    return False


def test_an_open_door_answers_and_a_shut_one_does_not() -> None:
    with closing(HandshakeProbes()) as handshakes:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            peer_address = address_of(listener)
            handshakes.begin(peer_address, time.monotonic())
            assert answered(handshakes)
        handshakes.begin(peer_address, time.monotonic())
        assert not answered(handshakes)
        assert len(handshakes) == 0


def test_ipv4_is_reached_through_an_address_of_ipv6_as_grpc_names_it() -> None:
    with (
        closing(HandshakeProbes()) as handshakes,
        closing(socket.create_server(("127.0.0.1", 0))) as to,
    ):
        port = to.getsockname()[1]
        handshakes.begin(PeerAddress(socket.AF_INET6, ("::ffff:127.0.0.1", port, 0, 0)), 0.0)
        assert answered(handshakes)


def test_a_handshake_that_is_lost_waits_beside_later_ones_and_is_forgotten() -> None:
    """A listener whose queue is full drops every further SYN, as a black hole does."""
    with ExitStack() as stack:
        handshakes = stack.enter_context(closing(HandshakeProbes()))
        listener = stack.enter_context(closing(socket.socket()))
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            end = stack.enter_context(closing(socket.socket()))
            end.setblocking(False)
            end.connect_ex(listener.getsockname())
        for moment_s in (0.0, 0.1, 0.2):
            handshakes.begin(address_of(listener), moment_s)
        assert not handshakes.are_answered(0.2)
        assert len(handshakes) == 3
        assert not handshakes.are_answered(0.1 + HANDSHAKE_LIFE_S + 0.01)
        assert len(handshakes) == 1


def test_an_address_that_cannot_be_tried_is_no_answer() -> None:
    with closing(HandshakeProbes()) as handshakes:
        handshakes.begin(PeerAddress(socket.AF_INET, ("255.255.255.255", 1)), 0.0)
        assert not answered(handshakes)
