"""A codec of your own: block floating point, 16 numbers with one exponent.

    midstream pair resnet18 --codec-plugin python:examples.own_codec:make --codecs raw,bfp:4
    midstream cloud serve resnet18 --codec-plugin python:examples.own_codec:make
    midstream edge run resnet18 --server localhost:50051 \\
        --codec-plugin python:examples.own_codec:make --codecs raw,bfp:6

In an experiment file: `codec_plugins = ["python:examples.own_codec:make"]`.

Each number keeps 2 to 8 bits: "bfp:4" takes 4.5 bits a number. Where magnitudes differ from
place to place, as activations' do, that is finer than one scale for the whole tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from midstream import Codec, CodecError, Encoding
from midstream_wire.codecs import DecodeBlock
from midstream_wire.tensors import Array

#: Numbers that share an exponent.
GROUP = 16
#: Added to exponents, which are -127 to 128, so that they fit a byte.
BIAS = 127


@dataclass(frozen=True, slots=True)
class BlockFloat(Codec):
    """Rounds each number to `bits` bits, sign included, of its group's largest magnitude."""

    bits: int = 8

    @property
    def id(self) -> str:
        """The family and the setting: "bfp:8"."""
        return f"{self.family}:{self.bits}"

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Take float32 alone: all else travels without loss."""
        return dtype == "float32"

    def error_bound(self, array: Array) -> float | None:
        """One step of the group with the largest magnitude."""
        if not self.accepts(array.dtype.name, array.shape) or not _is_finite(array):
            return 0.0  # it would travel without loss
        _, exponent = np.frexp(np.abs(array).max(initial=0.0))
        return float(np.ldexp(1.0, max(int(exponent), -BIAS) - self.bits + 1))

    def begin(self, array: Array) -> Encoding | None:
        """The decoder learns the bits from the parameters, one byte."""
        if not _is_finite(array):
            return None
        return Encoding(bytes([self.bits]), self._encode)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        """Trust nothing that came: not the parameters, nor how long a body is."""
        if len(params) != 1 or not 2 <= params[0] <= 8:
            raise CodecError(f"bfp must have one parameter from 2 to 8 (not {params.hex()})")
        bits = params[0]

        def decode(body: memoryview, out: Array, start: int) -> None:
            groups = -(-out.size // GROUP)
            due = groups + _packed_nbytes(groups, bits)
            if len(body) != due:
                raise CodecError(f"a block of bfp must be {due} bytes (not {len(body)})")
            exponents = np.frombuffer(body, np.uint8, groups).astype(np.int32) - BIAS
            packed = np.frombuffer(body, np.uint8, offset=groups)
            rows = np.unpackbits(packed, count=groups * GROUP * bits).reshape(-1, bits)
            weights = 1 << np.arange(bits, dtype=np.int32)
            numbers = (rows @ weights - (1 << bits - 1)).astype(np.float32)
            scales = np.repeat(exponents - (bits - 1), GROUP)
            with np.errstate(over="ignore"):  # of what we did not make
                out[:] = np.ldexp(numbers, scales)[: out.size]

        return decode

    def _encode(self, block: Array, start: int) -> list[bytes | memoryview]:
        groups = -(-block.size // GROUP)
        numbers = np.zeros(groups * GROUP, np.float32)
        numbers[: block.size] = block
        _, exponents = np.frexp(np.abs(numbers).reshape(groups, GROUP).max(axis=1))
        exponents = exponents.clip(-BIAS, None)
        scaled = np.rint(np.ldexp(numbers, np.repeat(self.bits - 1 - exponents, GROUP)))
        most = (1 << self.bits - 1) - 1
        shifted = scaled.clip(-most, most).astype(np.int32) + (1 << self.bits - 1)
        rows = (shifted[:, None] >> np.arange(self.bits) & 1).astype(np.uint8)
        return [(exponents + BIAS).astype(np.uint8).tobytes(), np.packbits(rows).tobytes()]


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _packed_nbytes(groups: int, bits: int) -> int:
    return groups * GROUP * bits // 8


def make(setting: str) -> BlockFloat:
    """Return the codec with so many bits: "2" to "8", "" for 8."""
    if setting not in ("", *"2345678"):
        raise ValueError(f"bfp keeps 2 to 8 bits (not {setting!r})")
    return BlockFloat("bfp", lossless=False, version="1", bits=int(setting or 8))
