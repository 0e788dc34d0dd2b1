"""The trained network: handwritten digits of 8x8 pixels, and the third of them held out.

The pictures come with scikit-learn (`load_digits`: 1,797 of them, from Alpaydin and Kaynak's
Optical Recognition of Handwritten Digits, UCI 1998).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from midstream_lab.networks.builder import Builder
from midstream_lab.networks.weights import Floats
from midstream_wire.errors import UsageError

SIDE = 8
CLASSES = 10
Labels = NDArray[np.int64]


def digits(b: Builder) -> None:
    """[N, 1, 8, 8] in 0..1 to logits [N, 10]: 25,274 parameters."""
    x = b.input("input", (1, SIDE, SIDE))
    x = b.relu(b.conv(x, 16, kernel=3, name="conv1"), name="relu1")
    x = b.relu(b.conv(x, 16, kernel=3, name="conv2"), name="relu2")
    x = b.max_pool(x, 2, stride=2, name="pool2")
    x = b.relu(b.conv(x, 32, kernel=3, name="conv3"), name="relu3")
    x = b.relu(b.conv(x, 32, kernel=3, name="conv4"), name="relu4")
    x = b.flatten(b.max_pool(x, 2, stride=2, name="pool4"))
    x = b.relu(b.gemm(x, 64, name="fc5"), name="relu5")
    b.output(b.gemm(x, CLASSES, name="fc6"), "logits")


def digits_split(*, held_out: bool = True) -> tuple[Floats, Labels]:
    """Images [N, 1, 8, 8] with pixels 0..16, and labels [N], of the third that was held out.

    `held_out=False` gives the two thirds that were trained on. A third of each class, drawn
    with a fixed seed. Raises `UsageError` where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "the digits need scikit-learn, which is missing: pip install 'midstream[lab]'"
        ) from None
    bunch = load_digits()
    images = bunch.images.astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    chosen = _held_out(labels) == held_out
    return images[chosen], labels[chosen]


def _held_out(labels: Labels) -> NDArray[np.bool_]:
    """Marks a third of each class: those whose number hashes lowest, the same everywhere."""
    keys = np.array(
        [hashlib.sha256(f"digits/{i}".encode()).digest()[:8] for i in range(len(labels))]
    )
    chosen = np.zeros(len(labels), np.bool_)
    for label in range(CLASSES):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members])]
        chosen[ranked[: len(members) // 3]] = True
    return chosen
