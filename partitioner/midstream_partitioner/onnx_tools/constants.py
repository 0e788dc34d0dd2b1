"""Tensors that a model computes from its weights alone.

Such nodes (dequantized weights, shapes spelled out as Constant nodes, ConstantOfShape) belong
to whoever consumes them: they are copied into each segment that needs them instead of being
evaluated here, so a quantized weight stays quantized and nothing of unknown size is computed.
onnxruntime folds them when it compiles the segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import onnx

from midstream_partitioner.onnx_tools.names import bodies_of
from midstream_partitioner.onnx_tools.random_nodes import RandomNodes
from midstream_wire.tensors import DTYPES


def captured_names(node: onnx.NodeProto) -> tuple[str, ...]:
    """Names that the bodies of an If, Loop or Scan take from around it, in order of use."""
    names: dict[str, None] = {}
    for body in bodies_of(node):
        names.update(dict.fromkeys(_free_names(body)))
    return tuple(names)


def _free_names(body: onnx.GraphProto) -> Iterator[str]:
    bound = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    bound |= {tensor.values.name for tensor in body.sparse_initializer}
    for node in body.node:
        for name in (*node.input, *captured_names(node)):
            if name and name not in bound:
                yield name
        bound.update(node.output)
    for value in body.output:
        if value.name not in bound:
            yield value.name


def walk_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the model: initializers, attributes, bodies, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in bodies_of(node):
            yield from _graph_tensors(body)


@final
@dataclass(frozen=True, slots=True)
class Constants:
    """The names that hold constants, and the nodes (by name) that compute some of them."""

    names: frozenset[str]
    nodes: Mapping[str, onnx.NodeProto]
    makers: Mapping[str, onnx.NodeProto]  # by the name of what they make
    stored: Mapping[str, int]  # initializer -> bytes

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Constants:
        """Find the constants of a normalised model. A constant output is no constant here."""
        graph, drawn = model.graph, RandomNodes.of(model)
        stored = {tensor.name: _nbytes(tensor) for tensor in graph.initializer}
        for sparse in graph.sparse_initializer:
            stored[sparse.values.name] = _nbytes(sparse.values) + _nbytes(sparse.indices)
        names, makers = set(stored), dict[str, onnx.NodeProto]()
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            consumed = {name for name in (*node.input, *captured_names(node)) if name}
            moving = node.name in drawn.names or not outputs.isdisjoint(node.output)
            if not moving and consumed <= names:
                names.update(name for name in node.output if name)
                makers.update((name, node) for name in node.output if name)
        nodes = {node.name: node for node in makers.values()}
        return cls(frozenset(names), nodes, makers, stored)

    def closure(self, names: Iterable[str]) -> tuple[set[str], dict[str, onnx.NodeProto]]:
        """The initializers and the constant nodes (by name) that `names` rest on."""
        initializers: set[str] = set()
        nodes: dict[str, onnx.NodeProto] = {}
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in self.stored:
                initializers.add(name)
            elif name in self.makers and self.makers[name].name not in nodes:
                node = self.makers[name]
                nodes[node.name] = node
                stack += [used for used in (*node.input, *captured_names(node)) if used]
        return initializers, nodes

    def weights(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of the initializers, and of the Constant nodes, that `names` rest on."""
        initializers, nodes = self.closure(names)
        sizes = {name: self.stored[name] for name in initializers}
        for node in nodes.values():
            held = sum(_nbytes(tensor) for tensor in _node_tensors([node]))
            if held:
                sizes[node.output[0]] = held
        return sizes


def _nbytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
    except KeyError:
        return count
    return count * DTYPES[dtype].itemsize if dtype in DTYPES else count
