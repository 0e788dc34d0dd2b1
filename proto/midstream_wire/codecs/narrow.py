"""Half-precision floats under lossy codecs: coded as float32, which holds each exactly.

The header tells the tensor's own dtype. Blocks are those of float32, and what they decode to
is rounded once, to the nearest, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock
from midstream_wire.codecs.planes import scratch
from midstream_wire.tensors import DTYPES, Array, dtype_of

_WIDE = "float32"
#: Half a unit in the last place, relative to the value, and among the subnormals.
_ROUNDING: Mapping[str, tuple[float, float]] = {
    "float16": (2.0**-11, 2.0**-25),
    "bfloat16": (2.0**-8, 2.0**-134),
}
_GREATEST = {"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127}

#: What codecs that compute with reals take.
FLOATS = (*_ROUNDING, _WIDE, "float64")


def working_dtype(codec: Codec, dtype: str) -> str:
    """Return the dtype that `codec` computes with for tensors of `dtype`."""
    return dtype if codec.lossless or dtype not in _ROUNDING else _WIDE


def widened(codec: Codec, array: Array) -> Array:
    """Return `array` as `codec` computes with it: itself, or a copy in float32."""
    return array.astype(DTYPES[working_dtype(codec, dtype_of(array))], copy=False)


def rounding(dtype: str, peak: float) -> float:
    """Return what rounding to `dtype` adds to an error, at magnitudes up to `peak`."""
    relative, least = _ROUNDING.get(dtype, (0.0, 0.0))
    return max(relative * peak, least)


def narrowing(decode_block: DecodeBlock, dtype: str) -> DecodeBlock:
    """Return what decodes by `decode_block`, of float32, into an array of `dtype`.

    What quantizing has moved beyond the greatest finite number becomes that, and no infinity.
    """
    most = _GREATEST[dtype]

    def narrow_block(body: memoryview, out: Array, start: int) -> None:
        wide = scratch("wide", DTYPES[_WIDE], out.size)
        decode_block(body, wide, start)
        np.clip(wide, -most, most, out=wide)
        np.copyto(out, wide, casting="unsafe")

    return narrow_block
