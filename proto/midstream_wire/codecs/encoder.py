"""From an array to pieces of bytes, lazily."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from midstream_wire.codecs.base import Codec, Encoding, plain
from midstream_wire.codecs.header import (
    Frame,
    Header,
    checksum_of,
    frame_of,
    header_checksum,
    most_encoded,
)
from midstream_wire.codecs.narrow import widened, working_dtype
from midstream_wire.codecs.private import NO_PRIVATE_CODES, PrivateCodes
from midstream_wire.codecs.registry import LOSSLESS, RAW
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, dtype_of

#: Bodies up to here are copied behind their frame, so that a small tensor is one piece. Larger
#: ones that alias the array are pieces of their own: the copy would cost more than the call.
JOIN_NBYTES = 1 << 16


def encode(
    codec: Codec, array: Array, *, codes: PrivateCodes = NO_PRIVATE_CODES
) -> Iterator[bytes | memoryview]:
    """The payload of `array`, in pieces; block after block is encoded when it is asked for.

    Where `codec` does not accept the array, or cannot keep its promise (NaN, infinities,
    values out of range), lossless takes its place and the header says so. Pieces of raw alias
    the array, which must not change until they are sent. An array of at most JOIN_NBYTES is
    exactly one piece; no piece is longer than a block's encoded bytes and the headers.

    Raises TensorError at once for dtypes that midstream does not carry, and CodecError where a
    codec of a user's own fails, or has no code among `codes`.
    """
    array = plain(array)
    dtype = dtype_of(array)
    codec = codec.suited_to(dtype, array.shape)
    accepted = codec.accepts(dtype, array.shape)
    wide = widened(codec, array) if accepted else array
    encoding = codec.begin(wide) if accepted else None
    fallback = encoding is None
    if encoding is None:
        codec, wide, encoding = LOSSLESS, array, LOSSLESS.begin(array)
    assert encoding is not None, "lossless takes everything"
    code = codes.code_of(codec)
    header = Header(code, codec.quality, fallback, dtype, array.shape, encoding.params)
    return _pieces(codec, encoding, header, wide)


def _pieces(
    codec: Codec, encoding: Encoding, header: Header, array: Array
) -> Iterator[bytes | memoryview]:
    flat = array.reshape(-1)
    front = header.pack()
    if not flat.size:
        yield front
        return
    step = codec.block_elements(working_dtype(codec, header.dtype), header.shape)
    itemsize = DTYPES[header.dtype].itemsize
    checksum = header_checksum(front)
    for start in range(0, flat.size, step):
        block = flat[start : start + step]
        parts = encoding.encode_block(block, start)
        frame = frame_of(parts, decoded_nbytes=block.size * itemsize, seed=checksum)
        most = most_encoded(frame.decoded_nbytes)
        if not 1 <= frame.encoded_nbytes <= most:  # as the other side demands
            raise CodecError(
                f"codec {codec.id} must make 1 to {most} bytes of a block of "
                f"{frame.decoded_nbytes} (not {frame.encoded_nbytes}): mend it"
            )
        checksum = frame.checksum
        front += frame.pack()
        body = parts[0]
        if isinstance(body, memoryview) and len(parts) == 1 and len(body) > JOIN_NBYTES:
            yield front
            yield body
        else:
            yield b"".join((front, *parts))
        front = b""


def encode_small(array: Array) -> bytes:
    """The raw payload of an array of at most JOIN_NBYTES, by the shortest way there is.

    Right behind a tail that has swept the caches each line costs microseconds.
    """
    array = plain(array)
    front, seed = _raw_front(array.dtype, array.shape)
    body = array.tobytes()
    if not body:
        return front
    return b"".join((front, Frame(len(body), len(body), checksum_of(body, seed)).pack(), body))


@lru_cache(256)
def _raw_front(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, int]:
    """The header of such an array's raw payload, and the checksum that it ends with."""
    front = Header(RAW.code, 0, False, dtype_of(np.empty(0, dtype)), shape).pack()
    return front, header_checksum(front)


def encode_bytes(
    codec: Codec, array: Array, *, codes: PrivateCodes = NO_PRIVATE_CODES
) -> bytes:
    """The payload of `array` as one bytes object."""
    return b"".join(encode(codec, array, codes=codes))
