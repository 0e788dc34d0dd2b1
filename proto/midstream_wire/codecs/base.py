"""The base of all codecs: a family with a code on the wire, a promise, block functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import final

import numpy as np

from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.errors import TensorError
from midstream_wire.tensors import DTYPES, Array, dtype_of, require_array

#: (a block's elements, index of its first element in the flat array) -> its body, in parts.
#: A body of one part may alias the array; otherwise parts are joined before the next call,
#: so they may live in scratch memory.
EncodeBlock = Callable[[Array, int], Sequence[bytes | memoryview]]

#: (a block's body, where its elements go, index of the first of them in the flat array).
#: Raises CodecError for a body that does not hold exactly these elements.
DecodeBlock = Callable[[memoryview, Array, int], None]


@final
@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of one array: parameters for the header, and a function of blocks."""

    params: bytes
    encode_block: EncodeBlock


#: The code of a codec that is not one of ours: each session gives it one of its own.
PRIVATE = 0


@dataclass(frozen=True, slots=True)
class Codec(ABC):
    """A way to turn tensors into bytes and back. Instances are immutable and thread-safe.

    `family` and `code` name it to people and on the wire; `quality` is 1..100, or 0 where
    there is no such setting.

    A codec of a user's own derives from this class, too (docs/how-to/write-a-codec.md). It has
    no code, but a `version`, any short word: both sides must hold the same one. It may have
    one setting; then `id` is "family:setting", and says the setting even where that is the
    default. Payloads do not carry the setting: they are decoded by the codec with its default
    one, so `begin` puts into `params` whatever `resume` needs.
    """

    family: str
    code: int = PRIVATE
    _: KW_ONLY
    lossless: bool
    quality: int = 0
    version: str = ""

    @property
    def id(self) -> str:
        """The name that `codec()` takes."""
        return f"{self.family}:{self.quality}" if self.quality else self.family

    @abstractmethod
    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Return True if such arrays can be encoded; for others, lossless takes the codec's
        place.

        `dtype` is a key of `midstream_wire.tensors.DTYPES`. A lossy codec that accepts
        float16 or bfloat16 is handed float32 in their place, and rounded results.
        """

    def suited_to(self, dtype: str, shape: tuple[int, ...]) -> Codec:
        """The codec to use for such arrays: this one, unless it leaves them to another."""
        return self

    @abstractmethod
    def error_bound(self, array: Array) -> float | None:
        """The largest |x - decoded x| promised for any element of `array`; None = no promise.

        0.0 where this array would travel losslessly. O(size) for lossy codecs.
        """

    @abstractmethod
    def begin(self, array: Array) -> Encoding | None:
        """Return how to encode `array` (accepted, little-endian, C order; maybe empty).

        None where the promise cannot be kept: NaN, infinities, values out of range. Then
        lossless takes the codec's place.
        """

    @abstractmethod
    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        """Return how to decode the blocks of such an array; raises CodecError for unfit
        `params`.

        `params` and the blocks' bodies come from a peer: nothing in them may be relied on.
        """

    def block_elements(self, dtype: str, shape: tuple[int, ...]) -> int:
        """Elements in each block but the last, at least 1."""
        return BLOCK_NBYTES // DTYPES[dtype].itemsize

    def __str__(self) -> str:
        return self.id


def plain(array: Array) -> Array:
    """`array` in C order and little-endian: itself where it is so already, else a copy."""
    array = require_array("a tensor", array)
    name = dtype_of(array)
    # Looked up by numpy's name where its bytes lie the other way round: those can be turned.
    dtype = DTYPES.get(name) or DTYPES.get(array.dtype.name)
    if dtype is None:
        raise TensorError(
            f"a tensor must be of one of the dtypes {', '.join(DTYPES)} "
            f"(not {name}): convert it first"
        )
    # Not ascontiguousarray: that makes a vector of a scalar.
    return np.asarray(array, dtype=dtype, order="C")
