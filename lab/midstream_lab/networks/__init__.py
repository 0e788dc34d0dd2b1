"""Reference networks, built as ONNX without torch: the published shapes, seeded weights.

The seven of the literature have random weights, normalised so that activations look like a
trained network's in mean, deviation and sparsity: right for time, size and compression, while
their answers mean nothing. "digits" is trained, and its accuracy can be measured.

What a network is built from is committed (a table of normalisations each, `calibrate`; the
weights of the digits, `train_digits`), so that it has the same bytes wherever it is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import onnx

from midstream_lab.networks import convnets, weights
from midstream_lab.networks.builder import Builder, parameter_count
from midstream_lab.networks.digits import SIDE, digits, digits_split
from midstream_lab.networks.photo import photo, photos
from midstream_lab.networks.vit import vit_tiny
from midstream_lab.networks.yolo import yolo
from midstream_partitioner.inputs.feed import Feed
from midstream_wire.errors import UsageError

__all__ = [
    "ARCHITECTURES",
    "DIGITS_FEED",
    "NETWORKS",
    "PICTURE_FEED",
    "Reference",
    "build",
    "digits_split",
    "parameter_count",
    "photo",
    "photos",
]

#: The mean and deviation of ImageNet, which the published networks are fed with. The size is
#: the network's own.
PICTURE_FEED = Feed(
    kind="image",
    resize="crop",
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
#: Pixels of the digits go from 0 to 16.
DIGITS_FEED = Feed(
    kind="array", height=SIDE, width=SIDE, scale=1 / 16, labels=tuple("0123456789")
)
_RANDOM = "random weights: its times and sizes are real, its answers mean nothing"

#: The networks with random weights.
ARCHITECTURES: dict[str, Callable[[Builder], None]] = {
    "alexnet": convnets.alexnet,
    "vgg16": convnets.vgg16,
    "resnet18": convnets.resnet18,
    "resnet50": convnets.resnet50,
    "mobilenetv2": convnets.mobilenetv2,
    "yolo": yolo,
    "vit-tiny": vit_tiny,
}


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """A network that can be named where a model file is expected.

    `build` makes the ONNX model, which takes float32 [batch, C, H, W] with the arithmetic of
    `feed` already done; `note` is what must be said wherever its answers are shown.
    """

    name: str
    title: str
    build: Callable[[], onnx.ModelProto]
    feed: Feed
    trained: bool
    note: str


def build(name: str) -> onnx.ModelProto:
    """The ONNX model of the reference network `name`; `UsageError` if there is none."""
    reference = NETWORKS.get(name)
    if reference is None:
        near = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.5)
        raise UsageError(
            f"a reference network must be one of {', '.join(NETWORKS)} (not {name!r})"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return reference.build()


def _build_random(name: str) -> onnx.ModelProto:
    builder = Builder(name, weights.calibrated(name, weights.load_table(name)))
    ARCHITECTURES[name](builder)
    return builder.model()


def _build_digits() -> onnx.ModelProto:
    builder = Builder("digits", weights.trained("digits"))
    digits(builder)
    return builder.model()


def _random(name: str, title: str) -> Reference:
    return Reference(
        name=name,
        title=title,
        build=partial(_build_random, name),
        feed=PICTURE_FEED,
        trained=False,
        note=_RANDOM,
    )


NETWORKS: dict[str, Reference] = {
    reference.name: reference
    for reference in (
        _random("alexnet", "AlexNet, 61.1 M parameters, 224x224"),
        _random("vgg16", "VGG-16, 138.4 M parameters, 224x224"),
        _random("resnet18", "ResNet-18, 11.7 M parameters, 224x224"),
        _random("resnet50", "ResNet-50, 25.5 M parameters, 224x224"),
        _random("mobilenetv2", "MobileNetV2, 3.5 M parameters, 224x224"),
        _random("yolo", "a detector like YOLO, 1.9 M parameters, three outputs, 320x320"),
        _random("vit-tiny", "ViT-Tiny with patches of 16, 5.7 M parameters, 224x224"),
        Reference(
            name="digits",
            title="handwritten digits, 25 k parameters, 8x8",
            build=_build_digits,
            feed=DIGITS_FEED,
            trained=True,
            note="trained on two thirds of scikit-learn's digits",
        ),
    )
}
