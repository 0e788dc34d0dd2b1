"""A calibrated change of coordinates in front of a codec, as a value of a partition.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from midstream_partitioner.onnx_tools.model_files import read_model
from midstream_wire.tensors import DTYPES, TensorSpec

#: What is packed has at least a byte for so many bytes of float32.
EXPANSION = 256

#: What a transform takes: the arithmetic is float32, so these alone go through it.
FLOATS = ("float16", "bfloat16", "float32", "float64")

#: Below this there is no axis that a transform could mix beside those of batch and place.
MIN_RANK = 3

#: Both models together of 4096 features, all kept, have 134 MB.
MAX_TRANSFORM_NBYTES = 256 << 20

#: A network of a hundred cuts with ten tensors each and four sizes of the transform.
MAX_TRANSFORMS = 4096

#: A name, and after a colon what it is given: "prior:25".
TRANSFORM_NAME = re.compile(r"[a-z][a-z0-9]*(:[0-9]{1,6})?")

#: "prior:N" packs a tensor into bytes, with a step of N hundredths of its deviation; so does
#: "shaped:N", with numbers by a metric.
PRIOR, SHAPED = "prior", "shaped"

#: The one dimension of what is packed.
PACKED = "packed"


@final
@dataclass(frozen=True, slots=True)
class Transform:
    """A transform of `tensor` where it crosses the cut called `cut`.

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
        """Return True if its models are not ONNX, but priors."""
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


def is_packing(name: str) -> bool:
    """Return True if transforms of this name pack a tensor into bytes, by a prior."""
    return name.partition(":")[0] in (PRIOR, SHAPED)


def transformable(spec: TensorSpec) -> bool:
    """Return True if a tensor is one that transforms are made for; all others cross as they
    are.
    """
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
