"""zstd frames without their header, which the reader writes itself (RFC 8878, 3.1.1).

All of a frame's header is known beforehand: one segment, no checksum, no number of a
dictionary, and as many bytes as the block has symbols. Left out, it cannot lie, and 6 to 9
bytes of a small tensor are saved. What zstd then writes is bounded by the header that we made.
"""

from __future__ import annotations

import struct
import threading

import numpy as np
import zstandard
from numpy.typing import NDArray

from midstream_wire.errors import CodecError

# Level 1, but looking for long and near repetitions only: among symbols all others are chance,
# and break up what the Huffman stage would code in fewer bits (2-7 % more bytes, 10-60 % more
# time). Higher levels gain nothing, negative ones have no Huffman stage.
_LEVEL, _MIN_MATCH, _HASH_LOG = 1, 7, 6
_MAGIC = b"\x28\xb5\x2f\xfd"

_Bytes = NDArray[np.uint8]


class _Contexts(threading.local):
    """Per thread, as they are not thread-safe: contexts by the dictionary that they use."""

    def __init__(self) -> None:
        self.compressors: dict[bytes, zstandard.ZstdCompressor] = {}
        self.decompressors: dict[bytes, zstandard.ZstdDecompressor] = {}


_contexts = _Contexts()


def compress(data: _Bytes, dictionary: bytes = b"") -> bytes | None:
    """One frame of the contiguous `data`, less its header; None where that is not shorter."""
    compressor = _contexts.compressors.get(dictionary)
    if compressor is None:
        known = _dictionary(dictionary)
        settings = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, min_match=_MIN_MATCH, hash_log=_HASH_LOG, write_dict_id=False
        )
        if known is not None:
            known.precompute_compress(compression_params=settings)
        compressor = zstandard.ZstdCompressor(dict_data=known, compression_params=settings)
        _contexts.compressors[dictionary] = compressor
    frame = compressor.compress(data.data)
    header = _header(data.size)
    body = frame[len(header) :]
    return body if frame.startswith(header) and len(body) < data.size else None


def decompress(body: memoryview, count: int, dictionary: bytes = b"") -> _Bytes:
    """The `count` bytes in such a frame. Raises CodecError."""
    decompressor = _contexts.decompressors.get(dictionary)
    if decompressor is None:
        decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(dictionary))
        _contexts.decompressors[dictionary] = decompressor
    frame = b"".join((_header(count), body))
    try:
        data = decompressor.decompress(frame, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CodecError(f"symbols must be one whole zstd frame (not so: {error})") from error
    if len(data) != count:
        raise CodecError(f"symbols must be {count} bytes (not {len(data)})")
    return np.frombuffer(data, np.uint8)


def _header(count: int) -> bytes:
    """The header of a frame of `count` bytes in one segment."""
    if count < 256:
        return _MAGIC + struct.pack("<BB", 0x20, count)
    if count < 65536 + 256:
        return _MAGIC + struct.pack("<BH", 0x60, count - 256)
    return _MAGIC + struct.pack("<BI", 0xA0, count)


def _dictionary(content: bytes) -> zstandard.ZstdCompressionDict | None:
    if not content:
        return None
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_FULLDICT)
