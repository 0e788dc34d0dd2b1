"""Compute the normalisations that are folded into the random networks, and write their tables.

    python -m midstream_lab.networks.calibrate [NETWORK ...]

He initialisation keeps the variance of independent inputs. Pictures are not independent, and
depth compounds what is left: means drift, channels die, answers stop depending on the
picture. Trained networks have normalisations against that. So each layer in turn is run on
pictures (`photo`), and its channels are shifted and scaled to mean 0 and deviation `gain`, as
a batch normalisation in training would; the layers behind it then see the normalised values.

Run by whoever changes an architecture; the tables are committed, and building a network needs
only them. On another machine a few channels may come out one step of rounding apart.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from midstream_lab.networks import ARCHITECTURES, PICTURE_FEED, weights
from midstream_lab.networks.builder import IR_VERSION, OPSET, Builder, Layer
from midstream_lab.networks.photo import photos
from midstream_lab.networks.weights import Floats, Norm
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_wire.tensors import Array

PICTURES = 32
#: Channels that vary less than this share of the layer's typical deviation are amplified only
#: as if they varied that much: what is left in them is noise.
_SMALLEST = 0.05
THREADS = 2


def calibrate(name: str, pictures: int = PICTURES) -> dict[str, Norm]:
    """The rounded norm of every layer of the network `name`, in the order of the layers."""
    builder = Builder(name, weights.initial(name))
    ARCHITECTURES[name](builder)
    model = builder.model()
    layers = {layer.node: layer for layer in builder.layers}
    table: dict[str, Norm] = {}
    for node, values in _evaluate(model, sample_input(model, pictures)):
        layer = layers.get(node)
        if layer is not None:
            table[layer.name] = norm = _standardising(values, layer)
            values *= _along(norm.scale, values, layer)
            values += _along(norm.shift, values, layer)
    return table


def sample_input(model: onnx.ModelProto, count: int, *, first_seed: int = 0) -> Floats:
    """`count` normalised pictures [N, 3, H, W] in the size that `model` takes."""
    *_, height, width = model.graph.input[0].type.tensor_type.shape.dim
    x = photos(count, height.dim_value, width.dim_value, first_seed=first_seed)
    feed = PICTURE_FEED
    scaled = (x * np.float32(feed.scale) - np.array(feed.mean)) / np.array(feed.std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _evaluate(model: onnx.ModelProto, x: Floats) -> Iterator[tuple[str, Floats]]:
    """Run `model` node by node; what is done to a yielded array, later nodes see.

    Arrays are let go after their last use: all of VGG-16's at once would take 4 GB.
    """
    parameters = {tensor.name: tensor for tensor in model.graph.initializer}
    waiting = Counter(name for node in model.graph.node for name in node.input)
    values: dict[str, Array] = {model.graph.input[0].name: x}
    for node in model.graph.node:
        made = _run(node, values, parameters)
        values.update((name, array.copy()) for name, array in made.items())
        yield node.name, values[node.output[0]]
        waiting.subtract(node.input)
        for name in node.input:
            if not waiting[name]:
                values.pop(name, None)


def _run(
    node: onnx.NodeProto,
    values: Mapping[str, Array],
    parameters: Mapping[str, onnx.TensorProto],
) -> dict[str, Array]:
    feeds = {name: values[name] for name in node.input if name in values}
    graph = helper.make_graph(
        [node],
        node.name,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [parameters[name] for name in dict.fromkeys(node.input) if name in parameters],
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    return Executor(model.SerializeToString(), threads=THREADS).run(feeds)


def _standardising(values: Floats, layer: Layer) -> Norm:
    """The norm that brings every channel of `values` to mean 0 and deviation `layer.gain`."""
    channel = layer.channel_axis % values.ndim
    others = tuple(axis for axis in range(values.ndim) if axis != channel)
    mean = values.mean(axis=others, dtype=np.float64)
    deviation = values.std(axis=others, dtype=np.float64)
    typical = np.sqrt(np.mean(deviation**2))
    scale = layer.gain / np.maximum(deviation, _SMALLEST * typical)
    return weights.rounded_norm(scale, -mean * scale)


def _along(vector: Floats, values: Floats, layer: Layer) -> Floats:
    """`vector` [C], shaped to broadcast along the channels of `values`."""
    shape = [1] * values.ndim
    shape[layer.channel_axis] = -1
    return vector.reshape(shape)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[[], *ARCHITECTURES], metavar="NETWORK")
    parser.add_argument("--into", type=Path, default=Path(str(weights.DATA)), metavar="DIR")
    chosen = parser.parse_args(arguments)
    for name in chosen.networks or ARCHITECTURES:
        path = chosen.into / f"{name}.norms.npz"
        path.write_bytes(weights.table_bytes(calibrate(name)))
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
