"""Calls of gRPC: the peer of one, its message, and its refusal."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from midstream_wire.errors import CloudRefused, ProtocolError
from midstream_wire.frames import Code, Status

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


def peer_of(context: Any) -> str:
    """Return who shares the workers as one: by certificate, by host, or by connection.

    Whoever has an IPv6 address has all 2^64 of its network, so that network counts as one
    host. All who come from this machine have one host, as behind a proxy: there every TCP
    connection counts by itself, and all of a Unix socket as one, since gRPC tells none apart;
    its sessions are told apart by `peer_of_session`.
    """
    names = (context.auth_context() or {}).get("x509_common_name")
    if names:
        return f"certificate:{names[0].decode('utf-8', 'replace')}"
    peer = str(context.peer())
    host = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return peer
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def peer_of_session(context: Any, serial: int) -> str:
    """Return the peer of the `serial`-th session: on a Unix socket it counts by itself.

    There one bad client would else hold up all others, and it gains no more by many sessions
    than by many TCP connections from this machine.
    """
    peer = peer_of(context)
    return f"{peer}#{serial}" if peer.startswith("unix:") else peer


async def read_message(context: Any, within_s: float) -> bytes:
    """Wait for the one message of a unary call, for at most `within_s`.

    Raises `CloudRefused` when that time is over, `ProtocolError` when the call ends without.
    """
    try:
        message = await asyncio.wait_for(context.read(), within_s)
    except TimeoutError:
        raise CloudRefused(
            Code.DEADLINE_EXCEEDED,
            f"a call must bring its message within {within_s:g} s: call again",
            kind="stalled",
        ) from None
    if message is grpc.aio.EOF:
        raise ProtocolError("a call must bring a message (none came): send one")
    assert isinstance(message, bytes)
    return message


async def abort(context: Any, status: Status) -> None:
    """End a call with `status`; raises what grpc.aio ends its handler with."""
    await context.abort(_STATUS_CODES[status.code], status.message)
