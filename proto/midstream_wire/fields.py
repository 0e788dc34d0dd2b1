"""Protobuf's encoding, as far as large payloads need it: fields laid in a row and found again.

The protobuf runtime copies bytes into a message, out of it, and once more when it serializes
or parses. Laying payloads between what the runtime has serialized, and finding them where they
lie, takes one copy and none: 0.1-0.6 ms less for 800 KB over loopback, of 2.7-3.4 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from midstream_wire.errors import ProtocolError
from midstream_wire.limits import MAX_FIELDS

Bytes = bytes | memoryview

#: How the value of a field is encoded: the low three bits of its key.
_VARINT, _BYTES = 0, 2
_FIXED_NBYTES = {1: 8, 5: 4}
_SHORT = [bytes((value,)) for value in range(0x80)]


def malformed() -> ProtocolError:
    """Return what to raise about bytes that are no message."""
    return ProtocolError(
        "a message must be protobuf of midstream.v1 (this one is not): use the same version "
        "of midstream on both sides"
    )


def varint(value: int) -> bytes:
    """`value` >= 0 in groups of seven bits, the lowest first."""
    if value < 0x80:
        return _SHORT[value]
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def front_of(number: int, nbytes: int) -> bytes:
    """Return what stands in front of a field of `nbytes` bytes: a string, bytes or a
    message.
    """
    return varint(number << 3 | _BYTES) + varint(nbytes)


@final
class Allowance:
    """The number of fields that a message may still have, whatever their level."""

    __slots__ = ("left", "most")

    def __init__(self, most: int = MAX_FIELDS) -> None:
        self.most = self.left = most


def fields_of(
    message: Bytes, allowance: Allowance
) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, value and whole encoding of each field of a serialized message, in place.

    The value is a number, or a view of bytes that are not interpreted. Raises `ProtocolError`
    for what is no message, and for more fields than are allowed.
    """
    view, end = memoryview(message), 0
    while (start := end) < len(view):
        allowance.left -= 1
        if allowance.left < 0:
            raise ProtocolError(
                f"a message of its kind may hold at most {allowance.most} fields: send fewer, "
                "larger pieces"
            )
        key, at = _read_varint(view, start)
        kind = key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, end = _read_varint(view, at)
        else:
            if kind == _BYTES:
                nbytes, at = _read_varint(view, at)
            elif kind in _FIXED_NBYTES:
                nbytes = _FIXED_NBYTES[kind]
            else:
                raise malformed()
            end = at + nbytes
            if end > len(view):
                raise malformed()
            value = view[at:end]
        yield key >> 3, value, view[start:end]


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte stands."""
    if at < len(view) and view[at] < 0x80:
        return view[at], at + 1
    value = 0
    for shift, group in enumerate(view[at : at + 10]):
        value |= (group & 0x7F) << 7 * shift
        if group < 0x80:
            return value, at + shift + 1
    raise malformed()
