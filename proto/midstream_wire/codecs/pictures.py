"""png, jpeg:Q, webp:Q and avif:Q, for uint8 pictures [1, H, W, 3] or [H, W, 3], channels RGB.

A picture goes in strips of whole rows, each a file of its own (of avif, the frame in it), of
at most BLOCK_NBYTES when decoded: so they decode while the next ones arrive, in bounded
memory. Strips are multiples of 16 rows, the height of JPEG's largest coding unit.

What arrives is not handed to the picture library as it comes. Its size must be the strip's,
and its structure one that this module writes: no progressive or repeated scans, no text,
profile or metadata chunks, no animation. What is left decodes in time and memory that the size
of the strip bounds.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from midstream_wire.codecs import avif
from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding
from midstream_wire.codecs.exact import refuse_params
from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: 192 MiB of pixels: more than any camera that feeds a network takes.
MAX_PIXELS = 1 << 26

_MAX_SIDE = 16383  # WebP's limit, the narrowest of all (JPEG: 65535)
_JPEG_UNIT = 16


@final
@dataclass(frozen=True, slots=True)
class Picture(Codec):
    """A picture format. png is exact; jpeg, webp and avif promise no error bound."""

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        if dtype != "uint8" or len(shape) not in (3, 4) or shape[-1] != 3:
            return False
        if len(shape) == 4 and shape[0] != 1:
            return False
        height, width = shape[-3:-1]
        return height >= 1 and 1 <= width <= _MAX_SIDE and height * width <= MAX_PIXELS

    def error_bound(self, array: Array) -> float | None:
        exact = self.lossless or not self.accepts(array.dtype.name, array.shape)
        return 0.0 if exact else None

    def begin(self, array: Array) -> Encoding | None:
        width = array.shape[-2]
        return Encoding(b"", lambda block, _: [self._encode(block.reshape(-1, width, 3))])

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        refuse_params(self, params)
        width = shape[-2]
        return lambda body, out, _: self._decode(bytes(body), out.reshape(-1, width, 3))

    def block_elements(self, dtype: str, shape: tuple[int, ...]) -> int:
        width = shape[-2]
        rows = min(BLOCK_NBYTES // (3 * width), _MAX_SIDE)
        return 3 * width * (rows - rows % _JPEG_UNIT)

    def _encode(self, pixels: Array) -> bytes:
        """One strip [rows, W, 3] as a file; JPEG with Pillow's defaults: 4:2:0, baseline."""
        from PIL import Image

        image = Image.fromarray(pixels)
        if self.family == "avif":
            return avif.encode(image, self.quality)
        file = io.BytesIO()
        if self.family == "png":
            image.save(file, "PNG", compress_level=1)
        elif self.family == "jpeg":
            image.save(file, "JPEG", quality=self.quality)
        else:
            image.save(file, "WEBP", quality=self.quality, method=2)
        return file.getvalue()

    def _decode(self, file: bytes, out: Array) -> None:
        rows, width, _ = out.shape
        size = _SIZES[self.family](file)
        if size != (width, rows):
            raise CodecError(
                f"the {self.family} block must be a plain picture of {width} x {rows} pixels, "
                f"such as midstream writes (not {'one' if size is None else size})"
            )
        try:
            image = self._open(file)
            image.load()
        # Pillow's readers promise no particular exceptions for malformed files.
        except Exception as error:
            raise CodecError(
                f"the {self.family} block must be a whole picture (not so: {error})"
            ) from error
        if image.mode != "RGB" or image.size != size:
            raise CodecError(f"the {self.family} block must be RGB (not {image.mode})")
        np.copyto(out, np.asarray(image))

    def _open(self, file: bytes) -> ImageFile:
        from PIL import Image

        if self.family == "avif":
            return avif.open_frame(file)
        return Image.open(io.BytesIO(file), formats=[self.family.upper()])


def _png_size(file: bytes) -> tuple[int, int] | None:
    """(width, height) of an 8-bit RGB PNG of IHDR, IDAT* and IEND only, or None (RFC 2083)."""
    if file[:8] != b"\x89PNG\r\n\x1a\n" or file[12:16] != b"IHDR" or len(file) < 33:
        return None
    width, height, *kind = struct.unpack_from(">IIBBBBB", file, 16)
    position = 33
    while file[position + 4 : position + 8] == b"IDAT":
        position += 12 + int.from_bytes(file[position : position + 4], "big")
    ends = file[position:] == b"\x00\x00\x00\x00IEND\xaeB`\x82"
    return (width, height) if kind == [8, 2, 0, 0, 0] and ends else None


def _jpeg_size(file: bytes) -> tuple[int, int] | None:
    """(width, height) of a baseline JPEG of one scan and the segments it needs, or None.

    ITU-T T.81, annex B. Every further scan would cost a pass over the whole picture for a
    dozen bytes.
    """
    jfif, frame, codes, scan, tables, restarts = 0xE0, 0xC0, 0xC4, 0xDA, 0xDB, 0xDD
    size = None
    position = 2
    if file[:2] != b"\xff\xd8":
        return None
    while len(file) >= position + 4:
        mark, kind, length = struct.unpack_from(">BBH", file, position)
        if mark != 0xFF or length < 2:
            return None
        if kind == scan:
            return None if _BEYOND_ONE_SCAN.search(file, position + 2 + length) else size
        if kind == frame and size is None and len(file) >= position + 9:
            height, width = struct.unpack_from(">HH", file, position + 5)
            size = (width, height)
        elif kind not in (jfif, codes, tables, restarts):
            return None
        position += 2 + length
    return None


# In a scan, 0xFF is followed by 0x00, a restart marker, the end, or another 0xFF.
_BEYOND_ONE_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xd9\xff]")


def _webp_size(file: bytes) -> tuple[int, int] | None:
    """(width, height) of a simple lossy WebP, or None (RFC 9649, 2.5; RFC 6386, 9.1)."""
    if file[:4] != b"RIFF" or file[8:16] != b"WEBPVP8 " or file[23:26] != b"\x9d\x01\x2a":
        return None
    if len(file) < 30:
        return None
    riff_nbytes, data_nbytes = (int.from_bytes(file[at : at + 4], "little") for at in (4, 16))
    if riff_nbytes + 8 != len(file) or data_nbytes + (data_nbytes & 1) + 20 != len(file):
        return None
    width, height = struct.unpack_from("<HH", file, 26)
    return width & 0x3FFF, height & 0x3FFF


_SIZES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "png": _png_size,
    "jpeg": _jpeg_size,
    "webp": _webp_size,
    "avif": avif.size_of,
}
