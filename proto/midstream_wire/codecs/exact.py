"""The codecs that lose nothing: raw, and lossless. Both take every dtype and every shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding
from midstream_wire.codecs.planes import pack_words, unpack_words
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array


def refuse_params(codec: Codec, params: bytes) -> None:
    """Raise CodecError if there are `params`, for codecs that have none."""
    if params:
        raise CodecError(f"codec {codec.id} must have no parameters (not {len(params)} bytes)")


@final
@dataclass(frozen=True, slots=True)
class Raw(Codec):
    """The bytes in C order, little-endian; blocks alias the array."""

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in DTYPES

    def error_bound(self, array: Array) -> float | None:
        return 0.0

    def begin(self, array: Array) -> Encoding | None:
        return Encoding(b"", lambda block, _: [block.view(np.uint8).data])

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        refuse_params(self, params)
        return _copy_block


def view_block(body: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return a raw block's bytes as an array of `dtype` and `shape`, not copied."""
    due = dtype.itemsize * math.prod(shape)
    if len(body) != due:
        raise CodecError(f"a raw block must be {due} bytes (not {len(body)})")
    return np.frombuffer(body, dtype).reshape(shape)


def _copy_block(body: memoryview, out: Array, start: int) -> None:
    into = out.view(np.uint8)
    np.copyto(into, view_block(body, into.dtype, into.shape))


@final
@dataclass(frozen=True, slots=True)
class Lossless(Codec):
    """A map of the zeros, the bytes of other words in planes, zstd on what shrinks."""

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in DTYPES

    def error_bound(self, array: Array) -> float | None:
        return 0.0

    def begin(self, array: Array) -> Encoding | None:
        words = _words_of(array.dtype.name)
        noise = _is_noise(array.dtype)
        return Encoding(b"", lambda block, _: pack_words(block.view(words), noise=noise))

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        refuse_params(self, params)
        words = _words_of(dtype)
        noise = _is_noise(DTYPES[dtype])
        return lambda body, out, _: unpack_words(body, out.view(words), noise=noise)


def _is_noise(dtype: np.dtype[Any]) -> bool:
    """Return True if the low bits of such numbers are chance as a rule: floats', not
    integers'.
    """
    return dtype.kind not in "biu"


def _words_of(dtype: str) -> np.dtype[np.unsignedinteger]:
    """The unsigned integer as wide as an element; a complex number is two words."""
    numpy_dtype = DTYPES[dtype]
    width = numpy_dtype.itemsize // (2 if numpy_dtype.kind == "c" else 1)
    return np.dtype(f"<u{width}")
