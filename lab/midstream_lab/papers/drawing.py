"""Networks drawn from their layers' shapes alone: no weights, nothing that could run.

What planning needs of a network is its tensors' sizes, the arithmetic and the bytes of
weights. A rectifier has no node of its own: in the papers' runtime it works in place, changes
no size, and is counted with the layer before it.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import final

from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import Node, Tensor

FLOAT_NBYTES = 4


@final
class Drawing:
    """A graph in the making. Methods append a layer and return the name of what it makes.

    Shapes are [C, H, W] or [D]; the batch is one picture. `dtype` is that of the picture as
    it would cross: what is made from it is float32.
    """

    def __init__(self, name: str, picture: tuple[int, int, int], dtype: str) -> None:
        self._name = name
        self._nodes: list[Node] = []
        self._tensors = {"input": _tensor("input", dtype, picture)}

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
    ) -> str:
        """Convolution with bias, padded by half the kernel unless told."""
        padding = kernel // 2 if padding is None else padding
        inputs, height, width = self._shape(x)
        shape = (channels, *(_slid(size, kernel, stride, padding) for size in (height, width)))
        fan_in = inputs // groups * kernel * kernel
        return self._node("Conv", (x,), name, shape, fan_in=fan_in)

    def pool(self, x: str, kernel: int, *, stride: int, name: str) -> str:
        """Maximum over a square; with stride 1 the size stays, as in tiny YOLOv2."""
        channels, *sides = self._shape(x)
        if stride > 1:
            sides = [_slid(size, kernel, stride, 0) for size in sides]
        return self._node("MaxPool", (x,), name, (channels, *sides))

    def normalise(self, x: str, *, name: str) -> str:
        """Local response normalisation."""
        return self._node("LRN", (x,), name, self._shape(x))

    def add(self, x: str, y: str, *, name: str) -> str:
        """The sum of two tensors of one shape."""
        return self._node("Add", (x, y), name, self._shape(x))

    def dense(self, *xs: str, features: int, name: str) -> str:
        """Fully connected layer, with bias, on all of `xs` joined."""
        fan_in = sum(prod(self._shape(x)) for x in xs)
        return self._node("Gemm", xs, name, (features,), fan_in=fan_in)

    def graph(self, output: str) -> Graph:
        """The finished graph."""
        facts = repr((self._name, self._nodes, self._tensors))
        digest = hashlib.sha256(facts.encode()).hexdigest()
        nodes = tuple(self._nodes)
        return Graph(self._name, nodes, self._tensors, ("input",), (output,), digest)

    def _shape(self, x: str) -> tuple[int, ...]:
        return self._tensors[x].nominal[1:]

    def _node(
        self,
        op_type: str,
        inputs: tuple[str, ...],
        name: str,
        shape: tuple[int, ...],
        *,
        fan_in: int = 0,
    ) -> str:
        """A layer; `fan_in` is how many products a value sums, 0 for one without weights."""
        rows = shape[0] if fan_in else 0
        self._nodes.append(
            Node(
                index=len(self._nodes),
                name=name,
                op_type=op_type,
                inputs=inputs,
                outputs=(name,),
                weight_nbytes=rows * (fan_in + 1) * FLOAT_NBYTES,
                flops=2 * fan_in * prod(shape),
                layer=fan_in > 0,
            )
        )
        self._tensors[name] = _tensor(name, "float32", shape)
        return name


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, dtype, (1, *shape), (1, *shape))


def _slid(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1
