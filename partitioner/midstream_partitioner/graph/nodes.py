"""The nodes of a network, and the tensors between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_wire.tensors import DTYPES, TensorSpec, nbytes_of

#: Dtypes that may cross a cut: what the wire carries. Strings, sequences and optionals never
#: may.
CARRIABLE = frozenset(DTYPES)


@final
@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation: its declared shape, and the nominal one that sizes and times refer to."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    nominal: tuple[int, ...]

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.dtype, self.shape)

    @property
    def carriable(self) -> bool:
        """Return True if it may cross a cut."""
        return self.dtype in CARRIABLE

    @property
    def nbytes(self) -> int:
        """Bytes of the nominal shape; 0 for what cannot be carried."""
        return nbytes_of(self.dtype, self.nominal) if self.carriable else 0


@final
@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the network.

    `inputs` and `outputs` name activations only, among them those that the bodies of If, Loop
    and Scan capture. `weight_nbytes` counts a weight shared by several nodes at the first.
    `layer` tells whether the node applies learned weights to an activation (Conv, MatMul,
    ...).
    """

    index: int
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_nbytes: int
    flops: int
    layer: bool
    reveals: bool = True  # False for Shape and Size: their output says nothing of the values
