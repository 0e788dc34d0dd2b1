"""ec:D and ecc:D: one quantization step, a dead zone around zero, entropy-coded.

    q = sign(x) * floor(|x| / step + 0.5 - theta)        x' = sign(q) * (|q| - delta) * step

The step is D standard deviations: of the array under ec, of each channel under ecc. theta
widens the zone that becomes zero (the encoder takes none: `grid` says why). delta shifts what
is not zero so that the sum of magnitudes stays, which is what the next layer computes with.
Exact zeros stay so. The mean is not subtracted: zero is the value that matters. Why this beats
clipping to a few bits: the entropy coder makes outliers cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock, Encoding, plain
from midstream_wire.codecs.channels import Layout, layout_of, runs
from midstream_wire.codecs.grid import FIXED, UNIT, Grid, encoding_of, grid_of, parse_grid
from midstream_wire.codecs.header import FRAME_NBYTES, MAX_PARAMS_NBYTES, Header
from midstream_wire.codecs.narrow import FLOATS, rounding, widened
from midstream_wire.codecs.target import fitting_grid
from midstream_wire.codecs.unpacking import Unpacker
from midstream_wire.tensors import DTYPES, Array, dtype_of

#: What D may be. Below, int8 is as small; above, nearly everything is zero.
MIN_DIAL, MAX_DIAL = 0.01, 16.0
#: The largest payload that can be asked for: a pebibyte, so that the product is no surprise.
MAX_TARGET_NBYTES = 1 << 50

# A channel of fewer elements does not earn the byte of its own step.
_MIN_CHANNEL_ELEMENTS = 8
_MAX_CHANNELS = MAX_PARAMS_NBYTES - FIXED.size


@final
@dataclass(frozen=True, slots=True)
class DeadZone(Codec):
    """The entropy-coded dead-zone quantizer; `dial` is the step over the standard deviation.

    With `target_nbytes`, the finest step is sought of which the payload is no longer. Decoding
    needs neither; where `dial` is 0, it is not known.

    What has no deviation worth the name (constants among it), values out of range and all that
    is no float goes losslessly.
    """

    per_channel: bool = False
    dial: float = 0.5
    target_nbytes: int = 0

    @property
    def id(self) -> str:
        """The name that `codec()` takes."""
        if self.target_nbytes:
            whole, rest = divmod(self.target_nbytes, 1000)
            return (
                f"{self.family}@{self.target_nbytes}B" if rest else f"{self.family}@{whole}KB"
            )
        return f"{self.family}:{self.dial:g}" if self.dial else self.family

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in FLOATS

    def error_bound(self, array: Array) -> float | None:
        """About 0.5 + theta of the largest step, plus the rounding of float32 at the peak."""
        array = plain(array)
        dtype = dtype_of(array)
        if not self.accepts(dtype, array.shape):
            return 0.0
        array = widened(self, array)
        grid = self._grid(array)
        if grid is None:
            return 0.0
        theta, delta = grid.theta / UNIT, grid.delta / UNIT
        steps = max(0.5 + theta, 0.5 + theta + delta, 0.5 - theta - delta)
        peak = max(abs(float(array.min())), abs(float(array.max())))
        # float32 rounds numbers of up to 256 steps, by 2**-17, and those of the peak.
        bound = 1.0001 * steps * float(grid.steps.max()) + 2.0**-20 * peak
        return bound + rounding(dtype, peak + bound)

    def begin(self, array: Array) -> Encoding | None:
        grid = self._grid(array)
        return None if grid is None else encoding_of(grid)

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        grid = parse_grid(params, self._layout(shape))
        # Where channels differ, in steps first.
        unit = 1.0 if grid.finer else grid.step
        unpacker = Unpacker(DTYPES[dtype], grid.signed, grid.delta / UNIT, unit)
        if not grid.finer:
            return lambda body, out, _: unpacker.unpack(body, out)
        layout, steps = grid.layout, grid.steps

        def decode_block(body: memoryview, out: Array, start: int) -> None:
            unpacker.unpack(body, out)
            for run, channels in runs(
                start, out.size, inner=layout.inner, channels=layout.channels
            ):
                values = out[run].reshape(len(channels), -1)
                np.multiply(values, steps[channels, None], out=values)

        return decode_block

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        if not self.per_channel:
            return Layout(1, 1, math.prod(shape))
        return layout_of(shape, least=_MIN_CHANNEL_ELEMENTS, most=_MAX_CHANNELS)

    def _grid(self, array: Array) -> Grid | None:
        layout = self._layout(array.shape)
        if not self.target_nbytes:
            return grid_of(array, layout, self.dial)
        blocks = self.block_elements(array.dtype.name, array.shape)
        front = Header(self.code, 0, False, array.dtype.name, array.shape, bytes(FIXED.size))
        around = len(front.pack()) + FRAME_NBYTES * -(-array.size // blocks)
        return fitting_grid(
            array,
            layout,
            dials=(MIN_DIAL, MAX_DIAL),
            most_nbytes=self.target_nbytes - around,
            block_elements=blocks,
        )
