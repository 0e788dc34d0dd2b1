"""ctx:D: the numbers of ec:D, coded by what their neighbours are. For slow links.

Activations of convolutions are planes in which the large lie beside the large. ec codes every
number alike; here those beside zeros are expected to be zero, which saves 6 to 25 % of the
bytes and takes ten times as long (see interlace for how it is done).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding, plain
from midstream_wire.codecs.channels import Layout
from midstream_wire.codecs.deadzone import DeadZone
from midstream_wire.codecs.grid import UNIT, Grid, grid_of, parse_grid
from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.codecs.interlace import MAX_MAGNITUDE, pack_planes, unpack_planes
from midstream_wire.codecs.narrow import widened, working_dtype
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, dtype_of

_EC = DeadZone("ec", 9, lossless=False)
# Narrower planes are mostly edge.
_MIN_SIDE = 4


@final
@dataclass(frozen=True, slots=True)
class Context(Codec):
    """The dead-zone quantizer for planes [N, C, H, W], each with its neighbours as context.

    `dial` is the step over the standard deviation, 0 where it is not known. What is no float
    tensor of such planes, of 4 x 4 elements up to a block, goes as `otherwise` does with the
    same dial; what that cannot hold goes losslessly, and so does what has a peak of more than
    MAX_MAGNITUDE steps.
    """

    dial: float = 0.5
    otherwise: DeadZone = _EC

    @property
    def id(self) -> str:
        """The name that `codec()` takes."""
        return f"{self.family}:{self.dial:g}" if self.dial else self.family

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        if not self.otherwise.accepts(dtype, shape) or len(shape) != 4:
            return False
        nbytes = shape[2] * shape[3] * DTYPES[working_dtype(self, dtype)].itemsize
        return min(shape[2:]) >= _MIN_SIDE and nbytes <= BLOCK_NBYTES

    def suited_to(self, dtype: str, shape: tuple[int, ...]) -> Codec:
        return self if self.accepts(dtype, shape) else self._flat

    def error_bound(self, array: Array) -> float | None:
        """Return the bound of `otherwise`."""
        array = plain(array)
        accepted = self.accepts(dtype_of(array), array.shape)
        if accepted and self._grid(widened(self, array)) is None:
            return 0.0
        return self._flat.error_bound(array)

    def begin(self, array: Array) -> Encoding | None:
        grid = self._grid(array)
        if grid is None:
            return None
        sides = array.shape[2:]
        inverse = array.dtype.type(np.float32(1) / np.float32(grid.step))
        bias = array.dtype.type(0.5 - grid.theta / UNIT)

        def encode_block(block: Array, start: int) -> list[bytes | memoryview]:
            scaled = np.abs(block * inverse)
            scaled += bias
            # Casting truncates, which for what is not negative is floor.
            magnitudes = scaled.astype(np.int32).reshape(-1, *sides)
            negative = (block < 0).reshape(-1, *sides) if grid.signed else None
            return pack_planes(magnitudes, negative)

        return Encoding(grid.pack(), encode_block)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        grid = parse_grid(params, Layout(1, 1, math.prod(shape)))
        height, width = shape[2:]
        real = DTYPES[dtype].type

        def decode_block(body: memoryview, out: Array, start: int) -> None:
            planes = (out.size // (height * width), height, width)
            magnitudes, signs = unpack_planes(body, planes)
            flat = magnitudes.reshape(-1)
            values = np.arange(int(flat.max()) + 1).astype(out.dtype)
            values = (values - real(grid.delta / UNIT)) * real(grid.step)
            values[0] = 0
            # mode="clip" writes straight into out; no index is ever out of range.
            np.take(values, flat, out=out, mode="clip")
            _put_signs(out, flat, signs, signed=grid.signed)

        return decode_block

    def block_elements(self, dtype: str, shape: tuple[int, ...]) -> int:
        """As many whole planes as fit."""
        plane = shape[2] * shape[3]
        return BLOCK_NBYTES // (plane * DTYPES[dtype].itemsize) * plane

    @property
    def _flat(self) -> DeadZone:
        return replace(self.otherwise, dial=self.dial)

    def _grid(self, array: Array) -> Grid | None:
        grid = grid_of(array, Layout(1, 1, array.size), self.dial)
        if grid is None:
            return None
        peak = max(abs(float(array.min())), abs(float(array.max())))
        return grid if peak < MAX_MAGNITUDE * grid.step else None


def _put_signs(out: Array, magnitudes: Array, signs: memoryview, *, signed: bool) -> None:
    """Negate what `signs` says, a bit for each that is not 0. Raises CodecError."""
    places = np.flatnonzero(magnitudes) if signed else np.empty(0, np.intp)
    due = (places.size + 7) // 8
    if len(signs) != due:
        raise CodecError(
            f"{places.size} signs must be {due} bytes behind the codewords (not {len(signs)})"
        )
    if due:
        bits = np.unpackbits(np.frombuffer(signs, np.uint8), count=places.size)
        negative = places[bits.view(bool)]
        out[negative] = -out[negative]
