"""Planes of bytes, each compressed for itself: the entropy coder of all tensor codecs.

    body = (plane_nbytes u32) * width   plane * width

A plane holds one byte of each of n words: plane 0 the lowest. A plane of n bytes is stored as
it is, a shorter one is a single zstd frame of n bytes. Separating the bytes of floats is what
lets zstd see the skewed exponents apart from the noise of the mantissas (Blosc's shuffle).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

# Higher levels, lz4 and negative levels gain nothing on planes of activations.
_LEVEL = 1
# A plane is probed by this many bytes at this many places before it is compressed whole.
_PROBE_NBYTES = 4096
_PROBES = 4
# Below that shrinkage the time for compressing is worth more than the bytes saved.
_WORTH = 0.97

_Bytes = NDArray[np.uint8]


class _Workspace(threading.local):
    """Per thread: zstd contexts (which are not thread-safe) and memory to be used again."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()
        self.scratch: dict[str, _Bytes] = {}


_workspace = _Workspace()


def scratch(name: str, dtype: np.dtype[Any], count: int) -> Array:
    """`count` uninitialised elements of this thread's scratch memory called `name`.

    Valid until the next call with that name: fresh memory for every block would cost more
    than the arithmetic done in it.
    """
    nbytes = count * dtype.itemsize
    memory = _workspace.scratch.get(name)
    if memory is None or memory.size < nbytes:
        memory = _workspace.scratch[name] = np.empty(nbytes, np.uint8)
    return memory[:nbytes].view(dtype)


def pack_words(words: Array) -> list[bytes | memoryview]:
    """The body that holds the flat array `words`, of unsigned little-endian integers."""
    width = words.dtype.itemsize
    if width == 1:
        return pack_planes([words])
    planes = scratch("planes", np.dtype(np.uint8), words.nbytes).reshape(width, words.size)
    shifted = scratch("shifted", words.dtype, words.size)
    # Shift and narrow, not a transposed copy: both vectorise, which is 2-4 times as fast.
    np.copyto(planes[0], words, casting="unsafe")
    for index in range(1, width):
        np.right_shift(words, words.dtype.type(8 * index), out=shifted)
        np.copyto(planes[index], shifted, casting="unsafe")
    return pack_planes(list(planes))


def pack_planes(planes: Sequence[_Bytes]) -> list[bytes | memoryview]:
    """The body that holds `planes`, all of the same length, at least 1."""
    packed = [_pack(plane) for plane in planes]
    return [struct.pack(f"<{len(packed)}I", *map(len, packed)), *packed]


def _pack(plane: _Bytes) -> bytes | memoryview:
    if _shrinks(plane):
        frame = _workspace.compressor.compress(plane.data)
        if len(frame) < plane.size:
            return frame
    return plane.data


def _shrinks(plane: _Bytes) -> bool:
    """Guess from samples over the whole length whether compressing is worth its time."""
    if plane.size <= 2 * _PROBES * _PROBE_NBYTES:
        return True
    last = plane.size - _PROBE_NBYTES
    starts = (last * index // (_PROBES - 1) for index in range(_PROBES))
    sample = b"".join(plane[start : start + _PROBE_NBYTES].data for start in starts)
    return len(_workspace.compressor.compress(sample)) < _WORTH * len(sample)


def unpack_words(body: memoryview, out: Array) -> None:
    """Fill the flat array `out`, of unsigned little-endian integers, from `body`."""
    planes = unpack_planes(body, width=out.dtype.itemsize, count=out.size)
    np.copyto(out, planes[-1])
    eight = out.dtype.type(8)
    for plane in planes[-2::-1]:
        np.left_shift(out, eight, out=out)
        np.bitwise_or(out, plane, out=out)


def unpack_planes(body: memoryview, *, width: int, count: int) -> list[_Bytes]:
    """The `width` planes of `count` bytes in `body`; some may alias it. Raises CodecError."""
    start = 4 * width
    if len(body) < start:
        raise CodecError(
            f"a block must hold the sizes of {width} planes (not {len(body)} bytes only)"
        )
    sizes = struct.unpack_from(f"<{width}I", body)
    if start + sum(sizes) != len(body):
        raise CodecError(
            f"a block's planes must fill it ({len(body)} bytes, not {start + sum(sizes)})"
        )
    planes: list[_Bytes] = []
    for size in sizes:
        planes.append(_unpack(body[start : start + size], count))
        start += size
    return planes


def _unpack(data: memoryview, count: int) -> _Bytes:
    if len(data) == count:
        return np.frombuffer(data, np.uint8)
    if len(data) > count:
        raise CodecError(f"a plane must be of at most {count} bytes (not {len(data)})")
    try:
        # The declared size comes first: decompress() trusts a frame's own declaration, and
        # its max_output_size holds only for frames that declare none. Given that
        # declaration, zstd writes no byte more than it.
        declared = zstandard.get_frame_parameters(data)
        if declared.content_size != count or declared.window_size > BLOCK_NBYTES:
            raise CodecError(
                f"a plane must hold {count} bytes (its frame declares "
                f"{declared.content_size}, and a window of {declared.window_size})"
            )
        plane = _workspace.decompressor.decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CodecError(f"a plane must be one whole zstd frame (not so: {error})") from error
    if len(plane) != count:
        raise CodecError(f"a plane must hold {count} bytes (not {len(plane)})")
    return np.frombuffer(plane, np.uint8)
