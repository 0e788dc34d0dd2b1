"""Tensors on the wire: the dtypes that midstream carries, specs that check arrays."""

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


#: Arrays whose elements are all that there is to them; other kinds carry masks, or mean
#: something else by the same operations. A memmap is an array that lies in a file.
_PLAIN = frozenset((np.ndarray, np.memmap))


def dtype_of(array: Array) -> str:
    """The name of an array's dtype, as in `DTYPES`; for any other dtype numpy's full text.

    Looked up by the dtype itself: numpy gives one name to both orders of bytes.
    """
    return _NAMES.get(array.dtype) or str(array.dtype)


def require_array(what: str, given: object) -> Array:
    """Return `given` if it is an array, or numpy's scalar, and nothing more.

    Raises `TensorError` for anything else.
    """
    if type(given) in _PLAIN:
        return given  # type: ignore[return-value]
    if isinstance(given, np.generic):
        return np.asarray(given)
    kind = f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
    cure = "numpy.asarray makes one"
    if isinstance(given, np.ma.MaskedArray):
        cure = "its mask would be lost, so fill it first (numpy.ma.filled)"
    raise TensorError(f"{what} must be a plain numpy array (not a {kind}): {cure}")


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
        """Return True if an array of `dtype` and `shape` fits."""
        if dtype != self.dtype or len(shape) != len(self.shape):
            return False
        return self.shape == tuple(shape) or all(
            have >= 0 if isinstance(want, str) else have == want
            for have, want in zip(shape, self.shape, strict=True)
        )

    def check(self, given: object) -> None:
        """Raise `TensorError` unless `given` is an array that fits."""
        array = require_array(f"tensor {self.name!r} ({self})", given)
        if not self.admits(dtype_of(array), array.shape):
            came = f"{dtype_of(array)} {list(array.shape)}"
            raise TensorError(
                f"tensor {self.name!r} must be {self} (not {came}): check the input's "
                "layout and dtype against the model's"
            )

    @property
    def nominal_nbytes(self) -> int:
        """Bytes with every symbolic dimension at 1."""
        return nbytes_of(self.dtype, [1 if isinstance(d, str) else d for d in self.shape])

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"
