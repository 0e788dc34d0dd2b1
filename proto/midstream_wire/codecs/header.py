"""Headers of a payload and of each of its blocks (docs/reference/wire.md).

    payload = header block*
    header  = magic version codec quality flags dtype ndim dims params_nbytes params checksum
    block   = encoded_nbytes decoded_nbytes checksum body

All numbers are little-endian. Checksums are xxh3_64: the header's covers all bytes in front of
it; a block's covers its body and is seeded with the checksum before it, the header's or that
of the block in front. So blocks can neither be damaged, nor change places, nor stand behind
what they were not made for. Without checksums, most single bit flips in a zstd frame decode to
silently wrong numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import xxhash

from midstream_wire.errors import CodecError

#: Raw bytes that one block covers, at most: the size of message that gRPC for Python carries
#: best (smaller chunks cost calls, larger ones run into malloc's threshold).
BLOCK_NBYTES = 1 << 20

MAGIC = b"\x8dM"
VERSION = 1
FALLBACK = (
    0x01  # flag: the codec asked for did not apply to this array, lossless took its place
)
MAX_NDIM = 32  # numpy's own limit until 2.0
MAX_PARAMS_NBYTES = 1 << 20  # scale and offset of 131,072 channels

#: Codes from here on are no codec's for ever: each session says anew what they stand for.
FIRST_PRIVATE = 128

DTYPE_CODES: dict[str, int] = {
    "float16": 1, "float32": 2, "float64": 3, "bfloat16": 4, "bool": 5,
    "int8": 6, "int16": 7, "int32": 8, "int64": 9,
    "uint8": 10, "uint16": 11, "uint32": 12, "uint64": 13,
    "complex64": 14, "complex128": 15,
}  # fmt: skip
_DTYPE_NAMES = {code: name for name, code in DTYPE_CODES.items()}

_FIXED = struct.Struct("<2sBBBBBB")
_COUNT = struct.Struct("<I")
_CHECKSUM = struct.Struct("<Q")
_FRAME = struct.Struct("<IIQ")

FIXED_NBYTES = _FIXED.size
FRAME_NBYTES = _FRAME.size


@final
@dataclass(frozen=True, slots=True)
class Header:
    """The header of a payload: the codec that made it, and the tensor's shape."""

    codec: int
    quality: int
    fallback: bool
    dtype: str
    shape: tuple[int, ...]
    params: bytes = b""

    def pack(self) -> bytes:
        """The header's bytes."""
        front = b"".join(
            (
                _FIXED.pack(
                    MAGIC,
                    VERSION,
                    self.codec,
                    self.quality,
                    FALLBACK if self.fallback else 0,
                    DTYPE_CODES[self.dtype],
                    len(self.shape),
                ),
                struct.pack(f"<{len(self.shape)}Q", *self.shape),
                _COUNT.pack(len(self.params)),
                self.params,
            )
        )
        return front + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(front))


def header_checksum(header: bytes | bytearray) -> int:
    """The checksum that a packed header ends with; it seeds that of the first block."""
    checksum: int = _CHECKSUM.unpack_from(header, len(header) - _CHECKSUM.size)[0]
    return checksum


def header_nbytes(front: bytes | bytearray) -> int:
    """Return how long the header that starts with `front` is, as far as `front` tells.

    `front` holds at least FIXED_NBYTES bytes. The answer grows while more of the header is
    known, and is final once it is no greater than len(front). Raises CodecError for what is
    no header of this version.
    """
    magic, version, _, _, _, _, ndim = _FIXED.unpack_from(front)
    if magic != MAGIC:
        raise CodecError(
            f"a payload must start with {MAGIC.hex()} (not {magic.hex()}): "
            "what came is not a midstream tensor"
        )
    if version != VERSION:
        raise CodecError(
            f"a payload must be of version {VERSION} (not {version}): "
            "run the same release of midstream on both sides"
        )
    if ndim > MAX_NDIM:
        raise CodecError(f"a payload must have at most {MAX_NDIM} dimensions (not {ndim})")
    dims_end: int = FIXED_NBYTES + 8 * ndim
    counted = dims_end + _COUNT.size
    if len(front) < counted:
        return counted
    params_nbytes: int = _COUNT.unpack_from(front, dims_end)[0]
    if params_nbytes > MAX_PARAMS_NBYTES:
        raise CodecError(
            f"codec parameters must be at most {MAX_PARAMS_NBYTES} bytes (not {params_nbytes})"
        )
    return counted + params_nbytes + _CHECKSUM.size


def parse_header(data: bytes) -> Header:
    """Read the header that `data`, of header_nbytes(data) bytes, holds; raise CodecError."""
    end = len(data) - _CHECKSUM.size
    if xxhash.xxh3_64_intdigest(data[:end]) != header_checksum(data):
        raise CodecError(
            "a payload's header must match its checksum: it was damaged on the way, "
            "send it again"
        )
    _, _, codec, quality, flags, dtype_code, ndim = _FIXED.unpack_from(data)
    if flags & ~FALLBACK:
        raise CodecError(f"a payload must use no flags but {FALLBACK:#04x} (not {flags:#04x})")
    dtype = _DTYPE_NAMES.get(dtype_code)
    if dtype is None:
        raise CodecError(f"a payload must use a known dtype code (not {dtype_code})")
    shape = struct.unpack_from(f"<{ndim}Q", data, FIXED_NBYTES)
    params = data[FIXED_NBYTES + 8 * ndim + _COUNT.size : end]
    return Header(codec, quality, bool(flags & FALLBACK), dtype, shape, params)


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a block."""

    encoded_nbytes: int
    decoded_nbytes: int
    checksum: int

    def pack(self) -> bytes:
        """The frame's bytes."""
        return _FRAME.pack(self.encoded_nbytes, self.decoded_nbytes, self.checksum)


def frame_of(parts: Sequence[bytes | memoryview], *, decoded_nbytes: int, seed: int) -> Frame:
    """The frame for a block whose body is `parts` one after the other.

    `seed` is the checksum in front of it: the header's, or that of the block before.
    """
    digest = xxhash.xxh3_64(seed=seed)
    encoded_nbytes = 0
    for part in parts:
        digest.update(part)
        encoded_nbytes += len(part)
    return Frame(encoded_nbytes, decoded_nbytes, digest.intdigest())


def parse_frame(data: bytes | memoryview) -> Frame:
    """Read a frame from FRAME_NBYTES bytes. Its figures are as yet unchecked."""
    return Frame(*_FRAME.unpack(data))


def most_encoded(nbytes: int) -> int:
    """Return how many bytes the body of a block of `nbytes` decoded bytes may have.

    No codec makes more of a block than this; pictures of few pixels have their tables.
    """
    return 2 * nbytes + 4096


def checksum_of(body: bytes | memoryview, seed: int) -> int:
    """The checksum of a block with this body, behind the checksum `seed`."""
    return xxhash.xxh3_64_intdigest(body, seed=seed)
