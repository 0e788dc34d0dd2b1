"""Networks of open size, made by hand with seeded weights: a text encoder and a U-Net.

No reference networks: they are there to try what sizes do to costs and to cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Net:
    """Nodes and seeded weights, appended call by call."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = 1 / np.sqrt(np.prod(shape[1:] if len(shape) == 4 else shape[:1]))
        values = (self.rng.normal(size=shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def model(self, given: Any, y: str, shape: Sequence[int | str]) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [y], ["y"], name="y"))
        graph = helper.make_graph(
            self.nodes, "net", [given],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], self.weights,
        )  # fmt: skip
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def text_encoder(width: int = 256, layers: int = 6) -> onnx.ModelProto:
    """Embedding, self-attention and feed-forward layers over ids [batch, seq]; their mean."""
    net = _Net(0)
    x = net.add("Gather", net.weight(2000, width), "ids")
    for _ in range(layers):
        q, k, v = (net.add("MatMul", x, net.weight(width, width)) for _ in range(3))
        scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1]))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), v)
        x = net.add("Add", x, net.add("MatMul", mixed, net.weight(width, width)))
        inner = net.add("Relu", net.add("MatMul", x, net.weight(width, 4 * width)))
        x = net.add("Add", x, net.add("MatMul", inner, net.weight(4 * width, width)))
    y = net.add("ReduceMean", x, axes=[1], keepdims=0)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "seq"])
    return net.model(ids, y, ["batch", width])


def unet(width: int = 24, depth: int = 3, bottom: int = 3) -> onnx.ModelProto:
    """A U-Net over [batch, 3, height, width], sides a multiple of 2 ** depth.

    It gives one map, of the size of the picture. The stem halves the picture, as practical
    ones do.
    """
    net = _Net(1)

    def conv(x: str, before: int, after: int, stride: int = 1) -> str:
        made = net.add("Conv", x, net.weight(after, before, 3, 3), pads=[1] * 4,
                       strides=[stride] * 2)  # fmt: skip
        return net.add("Relu", made)

    x, channels, skips = conv("x", 3, width, stride=2), width, []
    for _ in range(depth - 1):
        x = conv(x, channels, channels)
        skips.append((x, channels))
        x = conv(
            net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), channels, 2 * channels
        )
        channels *= 2
    for _ in range(bottom):
        x = conv(x, channels, channels)
    doubled = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "doubled")
    net.weights.append(doubled)
    for skip, of_skip in reversed(skips):
        up = net.add("Resize", x, "", "doubled", mode="nearest")
        x = conv(net.add("Concat", up, skip, axis=1), channels + of_skip, of_skip)
        channels = of_skip
    x = net.add("Resize", x, "", "doubled", mode="nearest")
    y = net.add("Sigmoid", net.add("Conv", x, net.weight(1, channels, 3, 3), pads=[1] * 4))
    sides: list[int | str] = ["batch", 3, "height", "width"]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)
    return net.model(picture, y, ["batch", 1, "height", "width"])
