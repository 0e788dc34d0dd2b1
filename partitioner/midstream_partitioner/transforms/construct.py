"""Calibrated changes of coordinates in front of a codec, as part of a partition.

A transform belongs to one cut and stands for one tensor that crosses it: its encoder runs at
the head's end, its decoder at the tail's start, and between them travels another tensor, of
fewer elements or easier to code. Transforms of the same name at the same cut are used
together; what of the cut has none crosses as it is.
"""

from __future__ import annotations

import hashlib

import onnx

from midstream_partitioner.partition.transform import (
    PACKED,
    PRIOR,
    SHAPED,
    Transform,
)
from midstream_partitioner.transforms.prior import Prior
from midstream_wire.tensors import TensorSpec


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
