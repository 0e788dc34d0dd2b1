"""Weights of the reference models: drawn from a seed, calibrated, or trained.

Random weights are a function of (network, parameter name, shape) and of nothing else: neither
the order of the calls, nor the machine, nor the version of numpy. Only the raw stream of PCG64
is drawn from, the part of numpy.random whose values are guaranteed for ever (NEP 19), and made
into numbers by operations that IEEE 754 rounds exactly. `Generator.standard_normal` would do
for the statistics, but its tails go through libm, which differs between platforms in the last
bit.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: (layer, shape of its weight, output axis of the weight) -> weight and bias [C].
Weights = Callable[[str, tuple[int, ...], int], tuple[Floats, Floats]]

#: Files of this package: normalisation tables and trained weights.
DATA = files("midstream_lab") / "data"
#: Weights drawn at a time; a multiple of 4, because a word of PCG64 makes four.
_PIECE = 2**18


@final
@dataclass(frozen=True, slots=True)
class Norm:
    """A normalisation after a layer, per channel: y = scale x + shift.

    Both [C], float32, rounded to the 8 significant bits of a bfloat16 (`rounded_norm`).
    """

    scale: Floats
    shift: Floats


def rounded_norm(scale: NDArray[np.floating], shift: NDArray[np.floating]) -> Norm:
    """A norm kept to 8 significant bits, so that sums in another order hardly ever change it.

    Calibrating runs convolutions, whose last bits depend on the processor. Rounded to 1 part
    in 256, nearly every channel comes out the same anywhere; what is committed is the table,
    and a network is built from the table alone.
    """
    return Norm(*(_from_bits(_to_bits(values)) for values in (scale, shift)))


def initial(network: str) -> Weights:
    """He initialisation and no bias: what a calibration starts from."""

    def weights(layer: str, shape: tuple[int, ...], output_axis: int) -> tuple[Floats, Floats]:
        fan_in = math.prod(shape) // shape[output_axis]
        # He et al. 2015, eq. 10: variance 2 / fan_in, here of a uniform distribution.
        weight = uniform(f"{network}/{layer}.weight", shape, math.sqrt(6 / fan_in))
        return weight, np.zeros(shape[output_axis], np.float32)

    return weights


def calibrated(network: str, table: Mapping[str, Norm]) -> Weights:
    """He initialisation with the normalisation of `table` folded into weight and bias."""
    start = initial(network)

    def weights(layer: str, shape: tuple[int, ...], output_axis: int) -> tuple[Floats, Floats]:
        weight, _ = start(layer, shape, output_axis)
        norm = table[layer]
        weight *= norm.scale.reshape(-1, *(1,) * (len(shape) - output_axis - 1))
        return weight, norm.shift

    return weights


def trained(network: str) -> Weights:
    """The committed weights of a trained network."""
    arrays: dict[str, Floats] = _read(f"{network}.npz")

    def weights(layer: str, shape: tuple[int, ...], output_axis: int) -> tuple[Floats, Floats]:
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
        assert weight.shape == shape, f"{layer} of {network} was trained as {weight.shape}"
        return weight, bias

    return weights


def uniform(seed: str, shape: tuple[int, ...], bound: float) -> Floats:
    """Numbers spread evenly over (-bound, bound) in steps of bound / 32768."""
    entropy = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    source = np.random.PCG64(entropy)
    values = np.empty(math.prod(shape), np.float32)
    # In pieces that fit a cache: fc6 of VGG-16 alone is 411 MB.
    for first in range(0, len(values), _PIECE):
        piece = values[first : first + _PIECE]
        words = source.random_raw(-(-len(piece) // 4))
        piece[:] = words.astype("<u8", copy=False).view("<i2")[: len(piece)]
        piece += np.float32(0.5)  # even around zero
        piece *= np.float32(bound / 32768)
    return values.reshape(shape)


def load_table(network: str) -> dict[str, Norm]:
    """The committed normalisation of every layer of `network`, by layer name."""
    arrays = _read(f"{network}.norms.npz")
    return {layer: Norm(*map(_from_bits, bits)) for layer, bits in arrays.items()}


def table_bytes(table: Mapping[str, Norm]) -> bytes:
    """`table` as the npz that `load_table` reads: per layer uint16 [2, C], bfloat16 bits."""
    return npz_bytes({
        layer: np.stack([_to_bits(norm.scale), _to_bits(norm.shift)])
        for layer, norm in table.items()
    })  # fmt: skip


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An uncompressed npz; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _read(file: str) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO((DATA / file).read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _to_bits(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    return values.astype(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)


def _from_bits(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)
