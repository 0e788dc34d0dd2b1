"""Build an ONNX graph the way a paper writes a network: a call per layer, names in, names out.

Legend of shapes: N batch (symbolic, "batch"), C channels, H height, W width, L tokens,
D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from midstream_lab.networks.weights import Weights, uniform

BATCH = "batch"
#: 17 is the first with LayerNormalization; every onnxruntime since 1.12 runs it.
OPSET = 17
#: The IR version that came with opset 17.
IR_VERSION = 8
#: Initializers under this prefix are fixed numbers of an operator, not parameters.
_CONSTANT = "constant/"


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with a normalisation folded into it: `node` makes its pre-activation."""

    name: str
    node: str
    channel_axis: int
    gain: float


@final
class Builder:
    """An ONNX model in the making. Methods append nodes and return the name of what they make.

    `layers` lists those with a normalisation folded in, for whoever calibrates it.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self.layers: list[Layer] = []
        self._weights = weights
        self._scopes: list[str] = []
        self._shapes: dict[str, tuple[int, ...]] = {}  # without the batch axis
        self._model = onnx.ModelProto(
            ir_version=IR_VERSION,
            producer_name="midstream",
            opset_import=[helper.make_opsetid("", OPSET)],
        )
        self._graph = self._model.graph
        self._graph.name = name

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names made inside start with `name/`."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def shape(self, x: str) -> tuple[int, ...]:
        """The shape of `x` without its batch axis."""
        return self._shapes[x]

    # Inputs and outputs

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """A float32 input [N, *shape]."""
        self._graph.input.append(_value(name, TensorProto.FLOAT, (BATCH, *shape)))
        self._shapes[name] = shape
        return name

    def output(self, x: str, name: str) -> None:
        """Make `x`, just made and consumed by nobody, the output `name`."""
        node = next(node for node in self._graph.node if node.output[0] == x)
        node.output[0] = name
        self._shapes[name] = self._shapes.pop(x)
        self._graph.output.append(
            _value(name, TensorProto.FLOAT, (BATCH, *self._shapes[name]))
        )

    def model(self) -> onnx.ModelProto:
        """The finished model, with the shape of every tensor declared."""
        declared = {value.name for value in (*self._graph.input, *self._graph.output)}
        for name, shape in self._shapes.items():
            if name not in declared:
                value = _value(name, TensorProto.FLOAT, (BATCH, *shape))
                self._graph.value_info.append(value)
        return self._model

    # Layers with weights

    def conv(
        self,
        x: str,
        channels: int,
        *,
        kernel: int,
        name: str,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        gain: float = 1.0,
    ) -> str:
        """Convolution of [N, C, H, W], with bias; padded by half the kernel unless told."""
        padding = kernel // 2 if padding is None else padding
        inputs, height, width = self._shapes[x]
        out = tuple((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        weight = (channels, inputs // groups, kernel, kernel)
        return self._node(
            "Conv",
            (x, *self._parameters(name, weight, output_axis=0, gain=gain)),
            name=name,
            shape=(channels, *out),
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(padding,) * 4,
            group=groups,
        )

    def gemm(self, x: str, features: int, *, name: str, gain: float = 1.0) -> str:
        """Fully connected layer on [N, D], with bias."""
        weight = (features, self._shapes[x][0])
        parameters = self._parameters(name, weight, output_axis=0, gain=gain)
        return self._node("Gemm", (x, *parameters), name=name, shape=(features,), transB=1)

    def linear(self, x: str, features: int, *, name: str, gain: float = 1.0) -> str:
        """Fully connected layer on every token of [N, L, D]: MatMul, then Add of the bias."""
        tokens, inputs = self._shapes[x]
        weight, bias = self._parameters(name, (inputs, features), output_axis=1, gain=gain)
        product = self._node("MatMul", (x, weight), name=name, shape=(tokens, features))
        return self._node(
            "Add", (product, bias), name=f"{name}/bias", shape=(tokens, features)
        )

    def layer_norm(self, x: str, *, name: str, epsilon: float) -> str:
        """LayerNormalization over the last axis, as it is before training: ones and zeros."""
        width = self._shapes[x][-1]
        scale = self._tensor(f"{self._path(name)}.scale", np.ones(width, np.float32))
        bias = self._tensor(f"{self._path(name)}.bias", np.zeros(width, np.float32))
        return self._like("LayerNormalization", (x, scale, bias), name=name, epsilon=epsilon)

    def embedding(self, shape: tuple[int, ...], *, name: str, std: float) -> str:
        """A learned tensor that is not multiplied with anything: a position or class token."""
        path = self._path(name)
        values = uniform(f"{self.name}/{path}", shape, std * math.sqrt(3))
        return self._tensor(path, values)

    # Activations

    def relu(self, x: str, *, name: str = "relu") -> str:
        return self._like("Relu", (x,), name=name)

    def relu6(self, x: str, *, name: str = "relu6") -> str:
        return self._like("Clip", (x, self._scalar(0.0), self._scalar(6.0)), name=name)

    def silu(self, x: str, *, name: str = "silu") -> str:
        gate = self._like("Sigmoid", (x,), name=f"{name}/sigmoid")
        return self._like("Mul", (x, gate), name=name)

    def gelu(self, x: str, *, name: str = "gelu") -> str:
        """x (1 + erf(x / sqrt 2)) / 2; ONNX has Gelu only from opset 20 on."""
        scaled = self._like("Div", (x, self._scalar(math.sqrt(2))), name=f"{name}/div")
        erf = self._like("Erf", (scaled,), name=f"{name}/erf")
        above = self._like("Add", (erf, self._scalar(1.0)), name=f"{name}/add")
        product = self._like("Mul", (x, above), name=f"{name}/mul")
        return self._like("Mul", (product, self._scalar(0.5)), name=name)

    def softmax(self, x: str, *, name: str = "softmax") -> str:
        return self._like("Softmax", (x,), name=name, axis=-1)

    # Shapes, sums and pools

    def add(self, x: str, y: str, *, name: str = "add") -> str:
        """x + y, in the shape of x."""
        return self._like("Add", (x, y), name=name)

    def scale(self, x: str, factor: float, *, name: str = "scale") -> str:
        return self._like("Mul", (x, self._scalar(factor)), name=name)

    def matmul(self, x: str, y: str, *, name: str) -> str:
        shape = (*self._shapes[x][:-1], self._shapes[y][-1])
        return self._node("MatMul", (x, y), name=name, shape=shape)

    def max_pool(
        self, x: str, kernel: int, *, stride: int, padding: int = 0, name: str = "pool"
    ) -> str:
        channels, height, width = self._shapes[x]
        out = tuple((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        return self._node(
            "MaxPool",
            (x,),
            name=name,
            shape=(channels, *out),
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(padding,) * 4,
        )

    def global_pool(self, x: str, *, name: str = "avgpool") -> str:
        """Mean over H and W: [N, C, H, W] to [N, C, 1, 1]."""
        return self._node(
            "GlobalAveragePool", (x,), name=name, shape=(self._shapes[x][0], 1, 1)
        )

    def flatten(self, x: str, *, name: str = "flatten") -> str:
        return self._node(
            "Flatten", (x,), name=name, shape=(math.prod(self._shapes[x]),), axis=1
        )

    def concat(self, parts: Sequence[str], *, name: str = "concat") -> str:
        """Join along the channels of [N, C, H, W]."""
        channels = sum(self._shapes[part][0] for part in parts)
        shape = (channels, *self._shapes[parts[0]][1:])
        return self._node("Concat", tuple(parts), name=name, shape=shape, axis=1)

    def upsample(self, x: str, *, name: str = "upsample") -> str:
        """Twice as high and wide, by the nearest neighbour."""
        channels, height, width = self._shapes[x]
        factors = self._constant("double", np.array([1, 1, 2, 2], np.float32))
        return self._node(
            "Resize",
            (x, "", factors),
            name=name,
            shape=(channels, 2 * height, 2 * width),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def reshape(self, x: str, shape: tuple[int, ...], *, name: str) -> str:
        """[N, *shape]; the batch is copied, so that it stays symbolic."""
        text = "x".join(map(str, shape))
        target = self._constant(f"shape-{text}", np.array([0, *shape], np.int64))
        return self._node("Reshape", (x, target), name=name, shape=shape)

    def transpose(self, x: str, order: tuple[int, ...], *, name: str) -> str:
        """Axes in `order`, the batch counted as axis 0 and staying there."""
        shape = tuple(self._shapes[x][axis - 1] for axis in order[1:])
        return self._node("Transpose", (x,), name=name, shape=shape, perm=order)

    def split(self, x: str, parts: Sequence[str], *, name: str) -> list[str]:
        """Equal pieces of the last axis, one for each name in `parts`."""
        *rest, width = self._shapes[x]
        made = [f"{self._path(name)}/{part}" for part in parts]
        self._append("Split", (x,), made, name=name, axis=-1)
        self._shapes.update({piece: (*rest, width // len(parts)) for piece in made})
        return made

    def prepend(self, token: str, x: str, *, name: str) -> str:
        """[N, L, D] to [N, L + 1, D]: the parameter `token` [1, 1, D] in front of each sample.

        The batch is known only when the network runs: Shape, Concat, Expand, as exporters
        write it.
        """
        tokens, width = self._shapes[x]
        one_by_width = self._constant(f"1x{width}", np.array([1, width], np.int64))
        batch, wanted = (f"{self._path(name)}/{part}" for part in ("batch", "shape"))
        self._append("Shape", (x,), [batch], name=f"{name}/batch", start=0, end=1)
        self._append("Concat", (batch, one_by_width), [wanted], name=f"{name}/shape", axis=0)
        for made, size in ((batch, 1), (wanted, 3)):
            self._graph.value_info.append(_value(made, TensorProto.INT64, (size,)))
        expanded = self._node(
            "Expand", (token, wanted), name=f"{name}/expand", shape=(1, width)
        )
        return self._node(
            "Concat", (expanded, x), name=name, shape=(tokens + 1, width), axis=1
        )

    def first(self, x: str, *, name: str) -> str:
        """The first token: [N, L, D] to [N, D]."""
        zero = self._constant("first", np.array(0, np.int64))
        shape = self._shapes[x][1:]
        return self._node("Gather", (x, zero), name=name, shape=shape, axis=1)

    # Below the layers

    def _parameters(
        self, name: str, shape: tuple[int, ...], *, output_axis: int, gain: float
    ) -> tuple[str, str]:
        """Weight and bias of a layer."""
        path = self._path(name)
        weight, bias = self._weights(path, shape, output_axis)
        per_token = output_axis == 1
        node = f"{path}/bias" if per_token else path
        self.layers.append(Layer(path, node, -1 if per_token else 1, gain))
        return self._tensor(f"{path}.weight", weight), self._tensor(f"{path}.bias", bias)

    def _like(self, op_type: str, inputs: tuple[str, ...], *, name: str, **more: Any) -> str:
        return self._node(op_type, inputs, name=name, shape=self._shapes[inputs[0]], **more)

    def _node(
        self,
        op_type: str,
        inputs: tuple[str, ...],
        *,
        name: str,
        shape: tuple[int, ...],
        **attributes: Any,
    ) -> str:
        path = self._path(name)
        assert path not in self._shapes, f"{path} is made twice"
        self._append(op_type, inputs, [path], name=name, **attributes)
        self._shapes[path] = shape
        return path

    def _append(
        self,
        op_type: str,
        inputs: tuple[str, ...],
        outputs: list[str],
        *,
        name: str,
        **more: Any,
    ) -> None:
        node = helper.make_node(op_type, inputs, outputs, name=self._path(name), **more)
        self._graph.node.append(node)

    def _path(self, name: str) -> str:
        return "/".join((*self._scopes, name))

    def _scalar(self, value: float) -> str:
        return self._constant(f"{value:.4g}", np.array(value, np.float32))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        path = _CONSTANT + name
        if any(tensor.name == path for tensor in self._graph.initializer):
            return path
        return self._tensor(path, values)

    def _tensor(self, path: str, values: NDArray[Any]) -> str:
        # Straight into the model: make_graph and make_model would copy VGG-16's 550 MB twice.
        tensor = self._graph.initializer.add()
        tensor.name = path
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor.dims.extend(values.shape)
        tensor.raw_data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        return path


def parameter_count(model: onnx.ModelProto) -> int:
    """Learned numbers in a model made here: all initializers but the operators' constants."""
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if not tensor.name.startswith(_CONSTANT)
    )


def _value(name: str, dtype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
