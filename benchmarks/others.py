"""Other people's codecs, and plain ones, for benchmarks/codecs.py to measure in the same run.

What is not installed is left out, and said so: pip install zfpy blosc2 pcodec. zfp is told how
far off it may be, in standard deviations, and keeps far below that: of these tolerances some
give an error (l2) like that of ec:0.125 to ec:1. Integers have a range from the least to the
greatest value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, final

import numpy as np
import zstandard

from midstream_wire.tensors import Array

REFERENCE = "zstd-1"


@final
@dataclass(frozen=True, slots=True)
class Contender:
    """A codec on one array."""

    encode: Callable[[], Any]
    decode: Callable[[Any], Array]


def contenders(array: Array) -> dict[str, Contender]:
    """Those that take `array`; zstd level 1 is always the first."""
    found = {REFERENCE: _zstd(array)}
    if array.dtype != np.float32:
        return found
    found["fp16"] = Contender(
        lambda: array.astype(np.float16).tobytes(),
        lambda data: np.frombuffer(data, np.float16).astype(np.float32).reshape(array.shape),
    )
    found["int8 + zstd-1"] = _integers(array, 8)
    found["int4 + zstd-1"] = _integers(array, 4)
    blosc2, pcodec, zfpy = (_installed(name) for name in ("blosc2", "pcodec", "zfpy"))
    if blosc2:
        for name in ("LZ4", "ZSTD"):
            found[f"blosc2 {name.lower()}"] = _blosc(blosc2, array, name)
    if pcodec:
        found["pcodec"] = _pcodec(array)
    if zfpy:
        for share in (2, 8, 16):
            found[f"zfp {share:g} std"] = _zfp(zfpy, array, share * float(array.std()))
    return found


@cache
def _installed(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        print(f"{name} is left out: it is not installed", file=sys.stderr)
        return None


def _zstd(array: Array) -> Contender:
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()

    def decode(frame: bytes) -> Array:
        return np.frombuffer(decompressor.decompress(frame), array.dtype).reshape(array.shape)

    return Contender(lambda: compressor.compress(np.ascontiguousarray(array).data), decode)


def _integers(array: Array, bits: int) -> Contender:
    """Uniform from the least to the greatest value; two 4-bit numbers a byte; zstd level 1."""
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()

    def encode() -> _Sized:
        low, high = array.min(), array.max()
        scale = (high - low) / np.float32((1 << bits) - 1)
        numbers = np.rint((array.reshape(-1) - low) / scale).astype(np.uint8)
        if bits == 4:
            numbers = np.append(numbers, np.zeros(numbers.size % 2, np.uint8))
            numbers = numbers[::2] | numbers[1::2] << 4
        return _Sized(compressor.compress(numbers.data), low, scale)

    def decode(made: _Sized) -> Array:
        frame, low, scale = made
        numbers = np.frombuffer(decompressor.decompress(frame), np.uint8)
        if bits == 4:
            numbers = np.stack((numbers & 15, numbers >> 4), axis=1).reshape(-1)[: array.size]
        return (numbers * scale + low).reshape(array.shape)

    return Contender(encode, decode)


class _Sized(tuple[bytes, np.float32, np.float32]):
    """A frame and its range, as long as their bytes."""

    def __new__(cls, frame: bytes, low: np.float32, scale: np.float32) -> _Sized:
        return super().__new__(cls, (frame, low, scale))

    def __len__(self) -> int:
        return len(self[0]) + 8


def _blosc(blosc2: ModuleType, array: Array, name: str) -> Contender:
    blosc2.set_nthreads(1)
    settings = {"codec": blosc2.Codec[name], "clevel": 1, "filter": blosc2.Filter.BITSHUFFLE}
    flat = np.ascontiguousarray(array)
    return Contender(
        lambda: blosc2.compress(flat, typesize=4, **settings),
        lambda data: np.frombuffer(blosc2.decompress(data), np.float32).reshape(array.shape),
    )


def _pcodec(array: Array) -> Contender:
    from pcodec import ChunkConfig, standalone

    flat = np.ascontiguousarray(array).reshape(-1)
    return Contender(
        lambda: standalone.simple_compress(flat, ChunkConfig()),
        lambda data: standalone.simple_decompress(data).reshape(array.shape),
    )


def _zfp(zfpy: ModuleType, array: Array, tolerance: float) -> Contender:
    # Blocks of 4 x 4 x 4; an axis of length 1 would waste three quarters of each.
    squeezed = np.ascontiguousarray(array.squeeze())
    return Contender(
        lambda: zfpy.compress_numpy(squeezed, tolerance=tolerance),
        lambda data: zfpy.decompress_numpy(data).reshape(array.shape),
    )
