"""What static tables save small tensors: the table of docs/reference/wire.md.

    python benchmarks/static_gain.py [--data FOLDER]

Runs of activations of a trained ResNet-20 (after the ReLUs of its middle and last block, 60
training pictures) and of normal noise, quantized with a step of half a standard deviation.
Bits per element of the bodies, with zstd's own tables alone and with the static ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from unittest import mock

import numpy as np

from midstream_wire.codecs import codec, symbols
from midstream_wire.codecs.base import Codec
from midstream_wire.tensors import Array

SIZES = (256, 512, 1024, 2048, 4096, 8192)
PICTURES = 60
# Of the 19 ReLUs: behind blocks 9 and 6.
LAST, MIDDLE = 18, 12


def activations(data: Path) -> dict[str, list[Array]]:
    """Flat float32 arrays, one a picture."""
    import onnx
    import onnxruntime

    with np.load(data / "cifar10" / "cifar10-train-10000.npz") as pictures:
        images = pictures["images"][:PICTURES] / 255
    images = (images - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    model = onnx.load(data / "models" / "resnet20-cifar10.onnx")
    relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    names = [relus[LAST], relus[MIDDLE]]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (feed,) = session.get_inputs()
    last, middle = [], []
    for image in images.transpose(0, 3, 1, 2).astype(np.float32):
        one, other = session.run(names, {feed.name: image[None]})
        last.append(one.reshape(-1))
        middle.append(other.reshape(-1))
    noise = np.random.default_rng(7).standard_normal((PICTURES, max(SIZES)), np.float32)
    return {
        "ResNet-20, last block": last,
        "ResNet-20, middle": middle,
        "normal": list(noise),
    }


def bits_per_element(chosen: Codec, arrays: list[Array], size: int) -> float:
    """Of the bodies of all runs of `size` elements that `arrays` hold, one behind another."""
    every = np.concatenate(arrays)
    bits = 0
    runs = every[: every.size - every.size % size].reshape(-1, size)[: 8 * PICTURES]
    for run in runs:
        encoding = chosen.begin(run)
        if encoding is not None:
            bits += 8 * sum(map(len, encoding.encode_block(run, 0)))
    return bits / runs.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="where cifar10/ and models/ are")
    chosen = parser.parse_args()
    data = chosen.data or Path(os.environ.get("MIDSTREAM_DATA", "../shared/data"))
    found = activations(data)
    print("| elements | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for size in SIZES:
        cells = []
        for arrays in found.values():
            with mock.patch.object(symbols, "_STATIC_SYMBOLS", 0):
                own = bits_per_element(codec("ec:0.5"), arrays, size)
            static = bits_per_element(codec("ec:0.5"), arrays, size)
            cells.append(f"{own:.2f}, **{static:.2f}**")
        print(f"| {size} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
