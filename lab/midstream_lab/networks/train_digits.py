"""Train the digits network and write its weights.

    python -m midstream_lab.networks.train_digits

Plain numpy: convolutions as matrix products over their patches (im2col), Adam (Kingma and Ba
2014), a learning rate that falls along a cosine, pictures shifted by up to a pixel. Two thirds
of the digits are trained on; nothing is chosen by looking at the third that is held out.
Sums in another order change the last bits and so, in the end, the weights: what is committed
is the file, and a test measures it.

Legend: N pictures, C channels, H W the picture's sides, K = 9 C numbers of a 3x3 patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np

from midstream_lab.networks.builder import Builder
from midstream_lab.networks.digits import Labels, digits, digits_split
from midstream_lab.networks.weights import DATA, Floats, initial, npz_bytes
from midstream_wire.errors import UsageError

EPOCHS: Final = 60
BATCH: Final = 64
LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 1e-4
SEED: Final = 7
LAYERS: Final = ("conv1", "conv2", "conv3", "conv4", "fc5", "fc6")

Parameters = dict[str, Floats]


class Step(Protocol):
    """One operation: `backward` takes and returns gradients, after `forward`."""

    def forward(self, x: Floats) -> Floats: ...

    def backward(self, gradient: Floats) -> Floats: ...


@final
class Conv:
    """3x3 convolution with a border of zeros: [N, C, H, W] to [N, C', H, W]."""

    def __init__(self, layer: str, values: Parameters, gradients: Parameters) -> None:
        self._layer, self._values, self._gradients = layer, values, gradients
        self._patches = np.empty(0, np.float32)

    def forward(self, x: Floats) -> Floats:
        weight, bias = (self._values[f"{self._layer}.{part}"] for part in ("weight", "bias"))
        n, _, h, w = x.shape
        self._patches = _patches(x)
        y = self._patches @ weight.reshape(len(weight), -1).T + bias
        return y.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, gradient: Floats) -> Floats:
        weight = self._values[f"{self._layer}.weight"]
        rows = gradient.transpose(0, 2, 3, 1).reshape(-1, len(weight))
        self._gradients[f"{self._layer}.weight"] = (rows.T @ self._patches).reshape(
            weight.shape
        )
        self._gradients[f"{self._layer}.bias"] = rows.sum(axis=0)
        # The gradient of a convolution is a convolution with the kernels turned around.
        n, _, h, w = gradient.shape
        turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(weight.shape[1], -1)
        return (_patches(gradient) @ turned.T).reshape(n, h, w, -1).transpose(0, 3, 1, 2)


@final
class Dense:
    """Fully connected: [N, ...] to [N, D]."""

    def __init__(self, layer: str, values: Parameters, gradients: Parameters) -> None:
        self._layer, self._values, self._gradients = layer, values, gradients
        self._x = np.empty(0, np.float32)

    def forward(self, x: Floats) -> Floats:
        self._x = x
        weight = self._values[f"{self._layer}.weight"]
        return x.reshape(len(x), -1) @ weight.T + self._values[f"{self._layer}.bias"]

    def backward(self, gradient: Floats) -> Floats:
        flat = self._x.reshape(len(self._x), -1)
        self._gradients[f"{self._layer}.weight"] = gradient.T @ flat
        self._gradients[f"{self._layer}.bias"] = gradient.sum(axis=0)
        return (gradient @ self._values[f"{self._layer}.weight"]).reshape(self._x.shape)


@final
class Relu:
    def __init__(self) -> None:
        self._x = np.empty(0, np.float32)

    def forward(self, x: Floats) -> Floats:
        self._x = x
        return np.maximum(x, 0)

    def backward(self, gradient: Floats) -> Floats:
        return gradient * (self._x > 0)


@final
class MaxPool:
    """The largest of each 2x2; among equals the gradient goes to all, shared."""

    def __init__(self) -> None:
        self._largest = np.empty(0, np.float32)

    def forward(self, x: Floats) -> Floats:
        n, c, h, w = x.shape
        windows = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y = windows.max(axis=(3, 5), keepdims=True)
        largest = (windows == y).astype(np.float32)
        self._largest = largest / largest.sum(axis=(3, 5), keepdims=True)
        return np.asarray(y[:, :, :, 0, :, 0])

    def backward(self, gradient: Floats) -> Floats:
        n, c, h, w = gradient.shape
        spread = self._largest * gradient[:, :, :, None, :, None]
        return spread.reshape(n, c, 2 * h, 2 * w)


@final
class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    def __init__(self, values: Parameters) -> None:
        self._values = values
        self._means = {name: np.zeros_like(value) for name, value in values.items()}
        self._squares = {name: np.zeros_like(value) for name, value in values.items()}
        self._steps = 0

    def step(self, gradients: Parameters, rate: float) -> None:
        self._steps += 1
        for name, gradient in gradients.items():
            mean, square, value = self._means[name], self._squares[name], self._values[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            unbiased = mean / (1 - 0.9**self._steps)
            deviation = np.sqrt(square / (1 - 0.999**self._steps)) + 1e-8
            value -= rate * (unbiased / deviation + WEIGHT_DECAY * value)


def train(*, epochs: int = EPOCHS) -> Parameters:
    """Weights and biases by name, as `weights.trained` reads them."""
    images, labels = digits_split(held_out=False)
    values = _initial_values()
    gradients: Parameters = {}
    steps = _steps(values, gradients)
    adam = Adam(values)
    rng = np.random.default_rng(SEED)
    total = epochs * math.ceil(len(images) / BATCH)
    for index, (x, expected) in enumerate(
        _batches(_scaled(images), labels, rng, epochs=epochs)
    ):
        gradient = _loss_gradient(_forward(steps, x), expected)
        for step in reversed(steps):
            gradient = step.backward(gradient)
        adam.step(gradients, LEARNING_RATE * (1 + math.cos(math.pi * index / total)) / 2)
    return values


def accuracy(values: Parameters, images: Floats, labels: Labels) -> float:
    """Share of `images` (pixels 0..16) that the network names rightly."""
    logits = _forward(_steps(values, {}), _scaled(images))
    return float(np.mean(logits.argmax(axis=1) == labels))


def _initial_values() -> Parameters:
    """Return what `initial` gives to each of the layers that the architecture asks for."""
    values: Parameters = {}
    start = initial("digits")

    def remember(layer: str, shape: tuple[int, ...], axis: int) -> tuple[Floats, Floats]:
        weight, bias = start(layer, shape, axis)
        values.update({f"{layer}.weight": weight, f"{layer}.bias": bias})
        return weight, bias

    digits(Builder("digits", remember))
    return values


def _steps(values: Parameters, gradients: Parameters) -> list[Step]:
    """The architecture of `digits`, in numpy."""
    conv1, conv2, conv3, conv4 = (Conv(layer, values, gradients) for layer in LAYERS[:4])
    fc5, fc6 = (Dense(layer, values, gradients) for layer in LAYERS[4:])
    first: list[Step] = [conv1, Relu(), conv2, Relu(), MaxPool()]
    second: list[Step] = [conv3, Relu(), conv4, Relu(), MaxPool()]
    return [*first, *second, fc5, Relu(), fc6]


def _forward(steps: list[Step], x: Floats) -> Floats:
    for step in steps:
        x = step.forward(x)
    return x


def _loss_gradient(logits: Floats, labels: Labels) -> Floats:
    """Gradient of the mean cross entropy."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    return np.asarray(shares / len(labels), np.float32)


def _batches(
    images: Floats, labels: Labels, rng: np.random.Generator, *, epochs: int
) -> Iterator[tuple[Floats, Labels]]:
    """Every picture once an epoch, each shifted by -1, 0 or 1 pixel both ways."""
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            moves = rng.integers(-1, 2, (len(chosen), 2))
            padded = np.pad(images[chosen], ((0, 0), (0, 0), (1, 1), (1, 1)))
            shifted = [
                picture[:, 1 + y : 9 + y, 1 + x : 9 + x]
                for picture, (y, x) in zip(padded, moves, strict=True)
            ]
            yield np.stack(shifted), labels[chosen]


def _scaled(images: Floats) -> Floats:
    """Pixels 0..16 to 0..1, as the feed of the network does it."""
    return images * np.float32(1 / 16)


def _patches(x: Floats) -> Floats:
    """The 3x3 around every pixel: [N, C, H, W] to [N H W, K]."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, 9 * c)


def main() -> None:
    values = train()
    path = Path(str(DATA)) / "digits.npz"
    path.write_bytes(npz_bytes(values))
    print(
        f"{path}: {path.stat().st_size} bytes, {accuracy(values, *digits_split()):.2%} right"
    )


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(str(error)) from None
