"""The range of an array's values, for codecs whose promise depends on it."""

from __future__ import annotations

import math

from midstream_wire.tensors import Array


def finite_range(array: Array) -> tuple[float, float] | None:
    """Least and greatest value; None if there is none, or any value is NaN or infinite.

    Two passes, no temporary array: minimum and maximum carry a NaN through to the end.
    """
    if not array.size:
        return None
    low, high = float(array.min()), float(array.max())
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
