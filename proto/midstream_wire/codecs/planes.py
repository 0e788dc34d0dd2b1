"""Words without their zeros, in planes of bytes: the entropy coder of all tensor codecs.

    body = map_nbytes u32   (plane_nbytes u32) * width   map   plane * width

Activations after a ReLU are zeros, half of them and more, strewn among noise. Where enough
words are zero, a map of one bit per word says which are not, and the planes hold these alone;
map_nbytes is 0 where all words are there. A plane holds one byte of each word, plane 0 the
lowest: this is what lets zstd see the skewed exponents of floats apart from the noise of their
mantissas (the shuffle of Blosc). Map and planes are stored as they are, or, if that is
shorter, as one zstd frame each.

Without the map, zstd goes through every plane in search of the zeros, which takes several
times as long and a quarter more bytes. The map tells words by their bits, so -0.0 is kept.
"""

from __future__ import annotations

import struct
import threading
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
# The share of zeros from which on a map pays: an eighth would do for floats, but zstd alone
# makes as much of bytes.
_SPARSE = 0.25

_Bytes = NDArray[np.uint8]
_U8 = np.dtype(np.uint8)
_BOOL = np.dtype(bool)
_NOTHING = np.empty(0, np.uint8)


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
    """The body that holds the flat array `words` of unsigned integers, at least one."""
    bitmap: list[bytes | memoryview] = []
    kept = words
    if np.count_nonzero(words) <= (1 - _SPARSE) * words.size:
        present = np.not_equal(words, 0, out=scratch("present", _BOOL, words.size))
        bitmap = [_pack(np.packbits(present))]
        kept = np.compress(present, words)
    planes = [_pack(plane) if plane.size else b"" for plane in _split(kept)]
    sizes = struct.pack(f"<{1 + len(planes)}I", sum(map(len, bitmap)), *map(len, planes))
    return [sizes, *bitmap, *planes]


def _split(words: Array) -> list[_Bytes]:
    """The planes of `words`, in scratch memory where there are several."""
    width = words.dtype.itemsize
    if width == 1:
        return [words]
    planes = scratch("planes", _U8, words.nbytes).reshape(width, words.size)
    shifted = scratch("shifted", words.dtype, words.size)
    # Shift and narrow, not a transposed copy: both vectorise, which is 2-4 times as fast.
    np.copyto(planes[0], words, casting="unsafe")
    for index in range(1, width):
        np.right_shift(words, words.dtype.type(8 * index), out=shifted)
        np.copyto(planes[index], shifted, casting="unsafe")
    return list(planes)


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
    """Fill the flat array `out` of unsigned integers from `body`. Raises CodecError."""
    bitmap, *planes = _sections(body, 1 + out.dtype.itemsize)
    if not len(bitmap):
        _merge(planes, out)
        return
    bits = np.unpackbits(_unpack(bitmap, -(-out.size // 8)), count=out.size)
    places = np.flatnonzero(bits.view(bool))
    kept = scratch("kept", out.dtype, places.size)
    _merge(planes, kept)
    out.fill(0)
    out[places] = kept


def _sections(body: memoryview, count: int) -> list[memoryview]:
    """The `count` sections of which `body` gives the sizes, one after the other."""
    start = 4 * count
    if len(body) < start:
        raise CodecError(
            f"a block must hold the sizes of {count} sections (not {len(body)} bytes only)"
        )
    sizes = struct.unpack_from(f"<{count}I", body)
    if start + sum(sizes) != len(body):
        raise CodecError(
            f"a block's sections must fill it ({len(body)} bytes, not {start + sum(sizes)})"
        )
    sections = []
    for size in sizes:
        sections.append(body[start : start + size])
        start += size
    return sections


def _merge(planes: list[memoryview], out: Array) -> None:
    """Fill `out` with the words whose bytes are in `planes`."""
    np.copyto(out, _unpack(planes[-1], out.size))
    eight = out.dtype.type(8)
    for plane in planes[-2::-1]:
        np.left_shift(out, eight, out=out)
        np.bitwise_or(out, _unpack(plane, out.size), out=out)


def _unpack(data: memoryview, count: int) -> _Bytes:
    if len(data) == count:
        return np.frombuffer(data, np.uint8) if count else _NOTHING
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
