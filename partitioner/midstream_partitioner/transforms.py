"""Calibrated changes of coordinates in front of a codec, as part of a partition.

A transform belongs to one cut and stands for one tensor that crosses it: its encoder runs at
the head's end, its decoder at the tail's start, and between them travels another tensor, of
fewer elements or easier to code. Transforms of the same name at the same cut are used
together; what of the cut has none crosses as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import onnx

from midstream_partitioner.partition import Partition, read_model
from midstream_partitioner.prior import EXPANSION, Prior
from midstream_wire.errors import UsageError
from midstream_wire.limits import MAX_TRANSFORM_CHARS
from midstream_wire.tensors import DTYPES, TensorSpec

#: What a transform takes: the arithmetic is float32, so these alone go through it.
FLOATS = ("float16", "bfloat16", "float32", "float64")

#: Below this there is no axis that a transform could mix beside those of batch and place.
MIN_RANK = 3

#: Both models together of 4096 features, all kept, have 134 MB.
MAX_TRANSFORM_NBYTES = 256 << 20

#: A network of a hundred cuts with ten tensors each and four sizes of the transform.
MAX_TRANSFORMS = 4096

_NAME = re.compile(r"[a-z][a-z0-9]*(:[0-9]{1,6})?")

#: "prior:N" packs a tensor into bytes, with a step of N hundredths of its deviation; so does
#: "shaped:N", with numbers by a metric.
PRIOR, SHAPED = "prior", "shaped"
#: The one dimension of what is packed.
PACKED = "packed"


@final
@dataclass(frozen=True, slots=True)
class Transform:
    """What `tensor` goes through where it crosses the cut called `cut`.

    `spec` is what travels: under the tensor's name, of its rank, with its symbolic dimensions
    in their places; or bytes, where a prior packs it. `digest` is over all of this and both
    models.
    """

    cut: str
    name: str
    tensor: str
    spec: TensorSpec
    encoder_digest: str
    decoder_digest: str
    encoder_source: bytes | Path = field(repr=False, compare=False)
    decoder_source: bytes | Path = field(repr=False, compare=False)

    @property
    def encoder(self) -> bytes:
        """The serialized ONNX model of the head's end; `ModelError` if a file is not it."""
        return self._read(self.encoder_source, self.encoder_digest, "encoder")

    @property
    def decoder(self) -> bytes:
        """The serialized ONNX model of the tail's start; `ModelError` if a file is not it."""
        return self._read(self.decoder_source, self.decoder_digest, "decoder")

    @property
    def packs(self) -> bool:
        """Whether its models are not ONNX, but priors."""
        return is_packing(self.name)

    @property
    def digest(self) -> str:
        content = {
            "cut": self.cut,
            "name": self.name,
            "tensor": self.tensor,
            "spec": [self.spec.dtype, *self.spec.shape],
            "models": [self.encoder_digest, self.decoder_digest],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _read(self, source: bytes | Path, digest: str, side: str) -> bytes:
        what = f"the {side} of {self.name} at {self.cut}"
        return read_model(source, digest, what=what, max_nbytes=MAX_TRANSFORM_NBYTES)


def make_transform(
    cut: str,
    name: str,
    spec: TensorSpec,
    *,
    encoder: onnx.ModelProto,
    decoder: onnx.ModelProto,
) -> Transform:
    """The transform of the tensor called `spec.name`, instead of which `spec` travels."""
    models = [model.SerializeToString(deterministic=True) for model in (encoder, decoder)]
    first, second = (hashlib.sha256(model).hexdigest() for model in models)
    return Transform(cut, name, spec.name, spec, first, second, *models)


def make_packing(cut: str, dial: float, tensor: str, prior: Prior) -> Transform:
    """The transform "prior:N" of `tensor`, N being hundredths of a `dial` of deviations.

    It is "shaped:N" if the prior has a metric.
    """
    models = prior.encoder(), prior.to_bytes()
    first, second = (hashlib.sha256(model).hexdigest() for model in models)
    name = f"{PRIOR if prior.metric is None else SHAPED}:{round(100 * dial)}"
    spec = TensorSpec(tensor, "uint8", (PACKED,))
    return Transform(cut, name, tensor, spec, first, second, *models)


def with_transforms(partition: Partition, transforms: Iterable[Transform]) -> Partition:
    """`partition` with these transforms and no others, in an order of its own.

    The digest becomes another one, unless there are none, and so the calibration is left out.
    Raises `UsageError` for a transform
    of what does not cross, or cannot be transformed.
    """
    given = tuple(transforms)
    if len(given) > MAX_TRANSFORMS:
        raise UsageError(
            f"a partition may have at most {MAX_TRANSFORMS} transforms (not {len(given)}): "
            "leave out cuts that no plan will choose"
        )
    index_of = {cut.id: k for k, cut in enumerate(partition.cuts)}
    for each in given:
        if each.cut not in index_of:
            raise UsageError(f"a transform must be of one of the cuts (not {each.cut[:64]!r})")
        _check(partition, index_of[each.cut], each)
    keyed = {(index_of[t.cut], t.name, t.tensor): t for t in given}
    if len(keyed) < len(given):
        raise UsageError("a tensor may have one transform of a name at a cut: leave one out")
    ordered = tuple(keyed[key] for key in sorted(keyed))
    return replace(partition, transforms=ordered, calibration=None)


def is_packing(name: str) -> bool:
    """Whether transforms of this name pack a tensor into bytes, by a prior."""
    return name.partition(":")[0] in (PRIOR, SHAPED)


def transformable(spec: TensorSpec) -> bool:
    """Whether a tensor is one that transforms are made for; all others cross as they are."""
    return spec.dtype in FLOATS and len(spec.shape) >= MIN_RANK


def expansion(spec: TensorSpec, travelling: TensorSpec) -> float:
    """Bytes of the tensor for each byte of what travels, whatever the symbolic sizes.

    Of what is packed, the most that a byte may stand for.
    """
    if travelling.shape == (PACKED,) != spec.shape:
        return EXPANSION * max(1.0, DTYPES[spec.dtype].itemsize / 4)

    def fixed(each: TensorSpec) -> int:
        sizes = (size for size in each.shape if isinstance(size, int))
        return DTYPES[each.dtype].itemsize * math.prod(sizes)

    return fixed(spec) / max(1, fixed(travelling))


def _check(partition: Partition, k: int, transform: Transform) -> None:
    name, spec = transform.name, transform.spec
    if not _NAME.fullmatch(name) or len(name) > MAX_TRANSFORM_CHARS:
        raise UsageError(
            f"a transform's name must be letters, and a number where it has one, as klt:16 "
            f"(not {name[:64]!r})"
        )
    if transform.tensor not in partition.cuts[k].tensors:
        raise UsageError(
            f"a transform at {transform.cut} must be of one of "
            f"{', '.join(partition.cuts[k].tensors) or 'no tensors'} "
            f"(not {transform.tensor[:64]!r})"
        )
    original = partition.specs[transform.tensor]
    fits = len(spec.shape) == len(original.shape) and all(
        _is_size(have) if isinstance(want, int) else have == want
        for have, want in zip(spec.shape, original.shape, strict=True)
    )
    alike = spec.name == transform.tensor and spec.dtype in FLOATS
    if transform.packs:
        fits = len(original.shape) == 4
        alike = spec == TensorSpec(transform.tensor, "uint8", (PACKED,))
    if not (transformable(original) and fits and alike):
        raise UsageError(
            f"a transform must be of a float tensor of {MIN_RANK} dimensions or more, and "
            f"what travels keep its name, rank and symbolic dimensions ({original} became "
            f"{spec}): leave this tensor as it is"
        )


def _is_size(size: int | str) -> bool:
    """Whether a dimension is known, and not empty."""
    return isinstance(size, int) and size > 0
