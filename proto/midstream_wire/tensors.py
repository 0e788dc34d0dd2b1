"""What a tensor may look like: the dtypes that midstream carries, specs that check arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from midstream_wire.errors import TensorError

Array = NDArray[Any]

#: dtype name -> numpy dtype, little-endian where byte order matters. What is not listed
#: (strings, sequences, optionals) cannot cross a cut.
DTYPES: dict[str, np.dtype[Any]] = {
    **{
        name: np.dtype(name).newbyteorder("<")
        for name in (
            "float16", "float32", "float64",
            "int8", "int16", "int32", "int64",
            "uint8", "uint16", "uint32", "uint64",
            "bool", "complex64", "complex128",
        )
    },
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_of(array: Array) -> str:
    """The name of an array's dtype, as in `DTYPES`; numpy makes its own anew for each call,
    in seven of Python's."""
    return _NAMES.get(array.dtype) or array.dtype.name


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense array of `dtype` (a name from `DTYPES`) and `shape`."""
    return DTYPES[dtype].itemsize * math.prod(shape)


@final
@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a tensor; a dimension given by name stands for any size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def admits(self, dtype: str, shape: Sequence[int]) -> bool:
        """Whether an array of `dtype` and `shape` fits."""
        if dtype != self.dtype or len(shape) != len(self.shape):
            return False
        return self.shape == tuple(shape) or all(
            have >= 0 if isinstance(want, str) else have == want
            for have, want in zip(shape, self.shape, strict=True)
        )

    def check(self, array: Array) -> None:
        """Raise `TensorError` unless `array` fits."""
        if not self.admits(dtype_of(array), array.shape):
            came = f"{array.dtype.name} {list(array.shape)}"
            raise TensorError(
                f"tensor {self.name!r} must be {self} (not {came}): check the input's "
                "layout and dtype against the network's"
            )

    @property
    def nominal_nbytes(self) -> int:
        """Bytes with every symbolic dimension at 1."""
        return nbytes_of(self.dtype, [1 if isinstance(d, str) else d for d in self.shape])

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"
