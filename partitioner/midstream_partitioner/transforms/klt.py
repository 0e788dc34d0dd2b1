"""The Karhunen-Loève transform over channels, fitted to activations: PCA at a cut.

Channels of an activation are correlated; in the coordinates of their covariance's
eigenvectors most of the energy lies in few of them, and the others are left out. Over the
channels of a convolution ([N, C, ...], axis 1) the change of coordinates is a convolution of
size 1, over the features of a transformer ([N, T, F], the last axis) a product and a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.transform import Transform, transformable
from midstream_partitioner.transforms.construct import make_transform
from midstream_wire.errors import UsageError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Share of the energy (variance) that is kept unless somebody says otherwise.
SHARE = 0.999

#: Covariance and eigenvectors of so many channels take 270 MB and about a minute.
MAX_CHANNELS = 4096

#: The oldest operators that both models need, so that every supported onnxruntime runs them.
_OPSET, _IR_VERSION = 13, 8


@final
@dataclass(frozen=True, slots=True)
class Spectrum:
    """The spectrum of a tensor's channels: where their energy lies.

    `mean` [C]; `energies` [C], variances in descending order; `basis` [C, C], a row for each
    energy, orthonormal, its largest entry positive. All float64.
    """

    mean: Float64
    energies: Float64
    basis: Float64

    def keep(self, components: int) -> tuple[Float32, Float32]:
        """Mean [C] and the first rows of the basis [components, C]; `UsageError`."""
        if not 1 <= components <= len(self.mean):
            raise UsageError(
                f"a tensor of {len(self.mean)} channels has 1 to {len(self.mean)} components "
                f"(not {components})"
            )
        return self.mean.astype(np.float32), self.basis[:components].astype(np.float32)


def channel_axis(rank: int) -> int:
    """The axis that is transformed: features are last in three dimensions, channels are 1."""
    return 1 if rank > 3 else rank - 1


def spectrum_of(samples: Iterable[Array]) -> Spectrum:
    """Fit to `samples`, arrays [N, C, ...] or [N, T, F] of one tensor, one after the other.

    Places with a NaN or an infinity are passed over. Fewer places than channels, and channels
    that never change, leave energies of 0. Means and covariances are merged as in Chan, Golub
    and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
    (1979). Raises `UsageError` where there is nothing to fit to.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for sample in samples:
        places = _places(sample, channels=len(mean) if count else None)
        if not len(places):
            continue
        if not count:
            mean, scatter = np.zeros(places.shape[1]), np.zeros((places.shape[1],) * 2)
        shift = places.mean(axis=0) - mean
        centered = places - (mean + shift)
        total = count + len(places)
        scatter += centered.T @ centered
        scatter += np.outer(shift, shift) * (count * len(places) / total)
        mean = mean + shift * (len(places) / total)
        count = total
    if not count or not np.isfinite(scatter).all():
        raise UsageError(
            "fitting a transform needs samples with finite numbers of moderate size, and "
            "there were none: calibrate with other data"
        )
    energies, vectors = np.linalg.eigh(scatter / count)
    basis = vectors.T[::-1]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1)
    signed = np.where(largest < 0, -basis, basis)
    return Spectrum(mean, np.maximum(energies[::-1], 0.0), signed)


def fit_klt(samples: Iterable[Array], components: int) -> tuple[Float32, Float32]:
    """Mean [C] and basis [components, C] of `samples`, as `klt` takes them; `UsageError`."""
    return spectrum_of(samples).keep(components)


def components_for(energies: Sequence[float] | Float64, share: float = SHARE) -> int:
    """The fewest leading components that hold `share` of the energy, at least 1."""
    if not 0.0 < share <= 1.0 or not len(energies):
        raise UsageError(
            f"a share of the energy must be above 0 and at most 1 (not {share}), of one "
            f"channel or more (not {len(energies)})"
        )
    held = np.cumsum(np.asarray(energies, dtype=np.float64))
    return 1 + int(np.searchsorted(held[:-1], share * held[-1], side="left"))


def klt(
    partition: Partition,
    k: int,
    tensor: str,
    mean: Float32,
    basis: Float32,
    *,
    nonnegative: bool = False,
) -> Transform:
    """The transform "klt:N" of `tensor` at cut `k`, N being the rows of `basis`.

    The encoder computes basis (x - mean), the decoder basisᵀ y + mean, both in float32. With
    `nonnegative`, for a tensor that cannot be below 0 (`signs.is_nonnegative`), the decoder
    clips at 0. Raises `UsageError` for a tensor that has no such transform.
    """
    spec = _spec_of(partition, k, tensor)
    axis = channel_axis(len(spec.shape))
    channels, components = spec.shape[axis], len(basis)
    if basis.shape != (components, channels) or mean.shape != (channels,) or not components:
        raise UsageError(
            f"the basis of {tensor!r} ({spec}) must have {channels} columns, as the mean has "
            f"entries (not {list(basis.shape)} and {list(mean.shape)}): fit it to this tensor"
        )
    shape = (*spec.shape[:axis], components, *spec.shape[axis + 1 :])
    travels = TensorSpec(tensor, "float32", shape)
    # The encoder's bias in float64: a large mean would cost digits otherwise.
    offset = -(basis.astype(np.float64) @ mean.astype(np.float64)).astype(np.float32)
    return make_transform(
        partition.cuts[k].id,
        f"klt:{components}",
        travels,
        encoder=_linear("encoder", spec, travels, basis, offset),
        decoder=_linear("decoder", travels, spec, basis.T, mean, clip=nonnegative),
    )


def _places(sample: Array, *, channels: int | None) -> Float64:
    """The channel vectors of every place of `sample` that are finite: [places, C]."""
    rank = sample.ndim
    size = sample.shape[channel_axis(rank)] if rank >= 3 else 0
    if not 0 < size <= MAX_CHANNELS or channels not in (None, size):
        expected = channels if channels else f"1 to {MAX_CHANNELS}"
        raise UsageError(
            f"samples must be arrays [N, C, ...] or [N, T, F], all of {expected} channels "
            f"(not {list(sample.shape)}): fit one tensor at a time"
        )
    flat = np.moveaxis(sample, channel_axis(rank), -1).reshape(-1, size).astype(np.float64)
    finite = np.isfinite(flat).all(axis=1)
    return flat if finite.all() else flat[finite]


def _spec_of(partition: Partition, k: int, tensor: str) -> TensorSpec:
    found = {spec.name: spec for spec in partition.crossing(k)}
    able = {
        name
        for name, spec in found.items()
        if transformable(spec) and isinstance(spec.shape[channel_axis(len(spec.shape))], int)
    }
    if tensor not in able:
        raise UsageError(
            f"a tensor to transform at {partition.cuts[k].id} must be a float of three or "
            "more dimensions with a fixed number of channels: "
            f"{', '.join(sorted(able)) or 'none'} (not {tensor!r})"
        )
    return found[tensor]


def _linear(
    name: str,
    given: TensorSpec,
    made: TensorSpec,
    matrix: Float32,
    bias: Float32,
    *,
    clip: bool = False,
) -> onnx.ModelProto:
    """made = matrix · given + bias over the channels, between tensors of these specs."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if given.dtype != "float32":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if len(given.shape) == 3:
        matrix = np.ascontiguousarray(matrix.T)
        steps += [("MatMul", ["matrix"], {}), ("Add", ["bias"], {})]
    else:
        matrix = matrix.reshape(*matrix.shape, *[1] * (len(given.shape) - 2))
        steps.append(("Conv", ["matrix", "bias"], {}))
    if clip:
        steps.append(("Relu", [], {}))
    if made.dtype != "float32":
        steps.append(("Cast", [], {"to": _element_type(made)}))
    names = ["given", *(f"step{at}" for at in range(1, len(steps))), "made"]
    nodes = [
        helper.make_node(op_type, [names[at], *weights], [names[at + 1]], **attributes)
        for at, (op_type, weights, attributes) in enumerate(steps)
    ]
    weights = [
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.ascontiguousarray(bias), "bias"),
    ]
    graph = helper.make_graph(
        nodes, name, [_value("given", given)], [_value("made", made)], weights
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="midstream"
    )


def _value(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    dims = [size if isinstance(size, int) else None for size in spec.shape]
    return helper.make_tensor_value_info(name, _element_type(spec), dims)


def _element_type(spec: TensorSpec) -> int:
    return helper.np_dtype_to_tensor_dtype(DTYPES[spec.dtype])
