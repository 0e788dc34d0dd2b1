"""IPv4 and TCP headers: as much as it takes to answer a segment with a reset (RFC 9293).

A host believes a reset only if its sequence number is exactly what it expects next (RFC 5961,
section 3.2), which it tells in every acknowledgement that it sends.
"""

from __future__ import annotations

import struct
from typing import Final

_IP: Final = struct.Struct("!BBHHHBBHII")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_FLAGS: Final = 33  # where TCP's flags stand, without IP options
_HEADERS: Final = 40
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
_TCP_PROTOCOL: Final = 6
_MODULUS: Final = 1 << 32


def is_tcp(packet: bytes) -> bool:
    """An unfragmented IPv4 packet with a TCP header, without IP options (which Linux never
    sends)."""
    return (
        len(packet) >= _HEADERS
        and packet[0] == 0x45
        and packet[9] == _TCP_PROTOCOL
        and int.from_bytes(packet[6:8]) & 0x3FFF == 0
    )


def flow(packet: bytes) -> bytes:
    """Addresses and ports, from source to destination: 12 bytes."""
    return packet[12:24]


def reverse(key: bytes) -> bytes:
    """The same flow, seen from the other end."""
    return key[4:8] + key[0:4] + key[10:12] + key[8:10]


def flags(packet: bytes) -> int:
    return packet[_FLAGS]


def payload_nbytes(packet: bytes) -> int:
    return len(packet) - 20 - (packet[32] >> 4) * 4


def next_sequence(packet: bytes) -> int:
    """Return what its receiver expects next, once it has this segment."""
    sequence = int.from_bytes(packet[24:28])
    extra = bool(flags(packet) & SYN) + bool(flags(packet) & FIN)
    return (sequence + payload_nbytes(packet) + extra) % _MODULUS


def expected(packet: bytes) -> int | None:
    """Return what its sender expects next: its acknowledgement, if it has one."""
    if not flags(packet) & ACK:
        return None
    return int.from_bytes(packet[28:32])


def refusal(packet: bytes) -> bytes | None:
    """The reset that the sender of this segment believes: as if nobody listened.

    None for a reset, which is never answered.
    """
    if flags(packet) & RST:
        return None
    back = reverse(flow(packet))
    known = expected(packet)
    if known is not None:
        return reset(back, known)
    return reset(back, 0, acknowledged=next_sequence(packet))


def reset(key: bytes, sequence: int, *, acknowledged: int | None = None) -> bytes:
    """A reset from one end of `flow` to the other."""
    source, destination = struct.unpack_from("!II", key)
    source_port, destination_port = struct.unpack_from("!HH", key, 8)
    bits = RST if acknowledged is None else RST | ACK
    tcp = [source_port, destination_port, sequence, acknowledged or 0, 5 << 4, bits, 0, 0, 0]
    pseudo = struct.pack("!IIHH", source, destination, _TCP_PROTOCOL, _TCP.size)
    tcp[7] = checksum(pseudo + _TCP.pack(*tcp))
    ip = [0x45, 0, _HEADERS, 0, 0x4000, 64, _TCP_PROTOCOL, 0, source, destination]
    ip[7] = checksum(_IP.pack(*ip))
    return _IP.pack(*ip) + _TCP.pack(*tcp)


def completed(packet: bytes) -> bytes:
    """The segment with its checksum, which kernels leave to devices that offer it."""
    header = bytearray(packet)
    header[36:38] = b"\0\0"
    pseudo = packet[12:20] + struct.pack("!HH", _TCP_PROTOCOL, len(packet) - 20)
    header[36:38] = checksum(pseudo + bytes(header[20:])).to_bytes(2)
    return bytes(header)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
