"""Words without their zeros, in planes of bytes: the entropy coder of all tensor codecs.

    body = map_nbytes u32   (plane_nbytes u32) * planes   map   plane * planes

Activations after a ReLU are zeros, half of them and more, strewn among noise. Where enough
words are zero, a map of one bit per word says which are not, and the planes hold these alone;
map_nbytes is 0 where all words are there. A plane holds one byte of each word, plane 0 the
lowest: this is what lets zstd see the skewed exponents of floats apart from the noise of their
mantissas (the shuffle of Blosc). The lower half of a float is nothing but noise: it is one
plane, which saves the time to take it apart. Map and planes are stored as they are, or, if
that is shorter, as one zstd frame each.

Without the map, zstd goes through every plane in search of the zeros, which takes several
times as long and a quarter more bytes. The map tells words by their bits, so -0.0 is kept.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array

# Higher levels, lz4 and negative levels gain nothing on planes of activations.
_LEVEL = 1
# In planes of floats short repetitions are chance, and break up what the Huffman stage codes
# in fewer bits: without them exponents take 8 % less, and a third less time to read.
_NOISE = zstandard.ZstdCompressionParameters.from_level(_LEVEL, min_match=7, hash_log=6)
# A plane is probed by this many bytes at this many places before it is compressed whole.
_PROBE_NBYTES = 1024
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
        self.noise_compressor = zstandard.ZstdCompressor(compression_params=_NOISE)
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


def pack_words(
    words: Array, *, noise: bool = False, convert: Callable[[Array], Array] | None = None
) -> list[bytes | memoryview]:
    """The body that holds the flat array `words` of unsigned integers, at least one.

    `noise` says that only long repetitions are more than chance. `convert` makes of the words
    that are not 0 those that the planes hold.
    """
    compressor = _workspace.noise_compressor if noise else _workspace.compressor
    bitmap: list[bytes | memoryview] = []
    kept = words
    present = np.not_equal(words, 0, out=scratch("present", _BOOL, words.size))
    if np.count_nonzero(present) <= (1 - _SPARSE) * words.size:
        bitmap = [_pack(np.packbits(present), compressor)]
        kept = words.take(present.nonzero()[0])
    if convert is not None:
        kept = convert(kept)
    split = _split(kept, _widths(kept.dtype.itemsize, noise=noise))
    planes = [_pack(plane, compressor) if plane.size else b"" for plane in split]
    sizes = struct.pack(f"<{1 + len(planes)}I", sum(map(len, bitmap)), *map(len, planes))
    return [sizes, *bitmap, *planes]


def _widths(width: int, *, noise: bool) -> list[int]:
    """The bytes of a word of `width` bytes that each plane holds, the lowest first."""
    half = width // 2
    return [half] + [1] * half if noise and half > 1 else [1] * width


def _split(words: Array, widths: list[int]) -> list[_Bytes]:
    """The planes of `words`, in scratch memory where there are several."""
    if len(widths) == 1:
        return [words]
    memory = scratch("planes", _U8, words.nbytes)
    shifted = scratch("shifted", words.dtype, words.size)
    planes, rest, start = [], words, 0
    # Shift and narrow, not a transposed copy: both vectorise, which is 2-4 times as fast.
    for width in widths:
        plane = memory[start * words.size : (start + width) * words.size]
        np.copyto(plane.view(f"<u{width}"), rest, casting="unsafe")
        planes.append(plane)
        start += width
        if start < words.dtype.itemsize:
            rest = np.right_shift(words, words.dtype.type(8 * start), out=shifted)
    return planes


def _pack(plane: _Bytes, compressor: zstandard.ZstdCompressor) -> bytes | memoryview:
    if _shrinks(plane, compressor):
        frame = compressor.compress(plane.data)
        if len(frame) < plane.size:
            return frame
    return plane.data


def _shrinks(plane: _Bytes, compressor: zstandard.ZstdCompressor) -> bool:
    """Guess from samples over the whole length whether compressing is worth its time."""
    if plane.size <= 2 * _PROBES * _PROBE_NBYTES:
        return True
    last = plane.size - _PROBE_NBYTES
    starts = (last * index // (_PROBES - 1) for index in range(_PROBES))
    sample = b"".join([plane[start : start + _PROBE_NBYTES].data for start in starts])
    return len(compressor.compress(sample)) < _WORTH * len(sample)


def unpack_words(body: memoryview, out: Array, *, noise: bool = False) -> None:
    """Fill the flat array `out` of unsigned integers from `body`. Raises CodecError."""
    kept, places = read_words(body, out.size, out.dtype, noise=noise)
    if places is None:
        np.copyto(out, kept)
    else:
        out.fill(0)
        out[places] = kept


def read_words(
    body: memoryview, size: int, dtype: np.dtype[Any], *, noise: bool
) -> tuple[Array, Array | None]:
    """(words, their places among `size`; None for all), some in scratch memory.

    All other words are 0. Raises CodecError.
    """
    widths = _widths(dtype.itemsize, noise=noise)
    bitmap, *planes = _sections(body, 1 + len(widths))
    places, count = None, size
    if len(bitmap):
        bits = np.unpackbits(_unpack(bitmap, -(-size // 8)), count=size)
        places = bits.view(bool).nonzero()[0]
        count = places.size
    parts = [
        _unpack(plane, count * width).view(f"<u{width}")
        for plane, width in zip(planes, widths, strict=True)
    ]
    if len(parts) == 1:
        return parts[0], places
    words = scratch("kept", dtype, count)
    np.copyto(words, parts.pop())
    for part in reversed(parts):
        np.left_shift(words, dtype.type(8 * part.itemsize), out=words)
        np.bitwise_or(words, part, out=words)
    return words, places


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
