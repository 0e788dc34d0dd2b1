"""The one AV1 frame of an AVIF, without the file around it.

A file's boxes say in 277 bytes what the payload's header says already, so they do not travel:
the reader writes its own around the frame. It takes a sequence header of a still picture of 8
bits and 4:2:0, and one frame, whose size then is the header's (AV1, 5.5.1 and 5.9.5). So one
picture is decoded, of a size that is known before.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from midstream_wire.errors import CodecError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# In OBU headers: the type, and that a size follows (AV1, 5.3.2).
_SEQUENCE, _FRAME = 0x0A, 0x32

#: libaom's: 8 takes four times as long and saves a twentieth of the bytes, which no link above
#: 0.3 Mbit/s gives back (docs/results/codecs.md).
_SPEED = 9


def available() -> bool:
    """Return True if Pillow reads and writes AVIF here."""
    from PIL import features

    return bool(features.check("avif"))


def encode(image: Image, quality: int) -> bytes:
    """Return `image` (RGB) as a sequence header and a frame."""
    file = io.BytesIO()
    image.save(file, "AVIF", quality=quality, speed=_SPEED, max_threads=1, autotiling=False)
    data = _box_called(b"mdat", file.getvalue())
    stream = b"".join(obu for kind, obu in _obus(data) if kind in (_SEQUENCE, _FRAME))
    if size_of(stream) != image.size:
        raise CodecError(
            "Pillow must write an AVIF as one plain frame, and does not here: install it from "
            "PyPI, or send another codec"
        )
    return stream


def open_frame(stream: bytes) -> ImageFile:
    """Return what `stream` holds, of which `size_of` told the size, as Pillow reads it."""
    from PIL import AvifImagePlugin, Image

    # Pillow has no other way to say it, and takes a thread for each processor.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return Image.open(io.BytesIO(_file_around(stream)), formats=["AVIF"])


def size_of(stream: bytes) -> tuple[int, int] | None:
    """(width, height) of a still 8-bit 4:2:0 sequence header and one frame, or None."""
    obus = list(_obus(stream))
    if [kind for kind, _ in obus] != [_SEQUENCE, _FRAME]:
        return None
    if sum(len(obu) for _, obu in obus) != len(stream):
        return None
    bits = _Bits(_content(obus[0][1]))
    profile, still, reduced, _level = (bits.read(count) for count in (3, 1, 1, 5))
    widths = [bits.read(4) + 1, bits.read(4) + 1]
    width, height = (bits.read(count) + 1 for count in widths)
    bits.read(6)  # superblocks, filters, superres, cdef, restoration
    deep, gray = bits.read(1), bits.read(1)
    plain = (profile, still, reduced, deep, gray) == (0, 1, 1, 0, 0)
    return (width, height) if plain else None


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The units of `data` with their first bytes, up to one that is cut off or has no size."""
    position = 0
    while position < len(data) and data[position] & 0x02:
        length = shift = 0
        end = position + 1
        while end < len(data) and shift < 28:
            length |= (data[end] & 0x7F) << shift
            shift += 7
            end += 1
            if not data[end - 1] & 0x80:
                break
        end += length
        if end > len(data):
            return
        yield data[position], data[position:end]
        position = end


def _content(obu: bytes) -> bytes:
    """Return the bytes behind the header of a unit and its size."""
    start = 1
    while start < len(obu) and obu[start] & 0x80:
        start += 1
    return obu[start + 1 :]


class _Bits:
    """A reader of bits, the highest first; zeros follow the last byte."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data[:16].ljust(16, b"\0"), "big")
        self._left = 128

    def read(self, count: int) -> int:
        self._left -= count
        return self._number >> self._left & (1 << count) - 1


def _box_called(kind: bytes, file: bytes) -> bytes:
    """The content of the first box of this kind in a file that Pillow wrote; b"" without."""
    position = 0
    while position + 8 <= len(file):
        nbytes = int.from_bytes(file[position : position + 4], "big")
        if file[position + 4 : position + 8] == kind:
            return file[position + 8 : position + nbytes]
        position += max(nbytes, 8)
    return b""


def _file_around(stream: bytes) -> bytes:
    """An AVIF of one item (ISO/IEC 23008-12, AV1-ISOBMFF), with `stream` as its data."""
    size = size_of(stream)
    if size is None:
        raise CodecError("an AVIF frame must have a sequence header of a still picture")
    level = _content(stream)[0:2]
    fields = (0x81, int.from_bytes(level, "big") >> 6 & 0x1F, 0x0C, 0)
    front = _box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    properties = _box(
        b"ipco",
        _box(b"ispe", bytes(4), struct.pack(">II", *size)),
        _box(b"pixi", bytes(4), b"\x03\x08\x08\x08"),
        _box(b"av1C", bytes(fields)),
    )
    owners = _box(b"ipma", bytes(4), struct.pack(">IHB", 1, 1, 3), b"\x01\x02\x83")

    def meta(offset: int) -> bytes:
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", bytes(4), b"\x00\x01"),
            _box(
                b"iloc",
                bytes(4),
                struct.pack(">HHHHHII", 0x4400, 1, 1, 0, 1, offset, len(stream)),
            ),
            _box(
                b"iinf",
                bytes(4),
                b"\x00\x01",
                _box(b"infe", b"\x02\x00\x00\x00", b"\x00\x01\x00\x00av01\x00"),
            ),
            _box(b"iprp", properties, owners),
        )

    offset = len(front) + len(meta(0)) + 8
    return front + meta(offset) + _box(b"mdat", stream)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body
