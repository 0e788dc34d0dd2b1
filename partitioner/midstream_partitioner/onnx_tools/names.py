"""Names in an ONNX graph, found and changed through If, Loop and Scan bodies alike."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import onnx

_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Every name that a value has anywhere in `graph` or in the bodies of its nodes."""
    names = {value.name for value in (*graph.input, *graph.output)}
    names |= {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        names.update(node.output)
        for body in bodies_of(node):
            names |= value_names(body)
    return names


def fresh_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or `wanted` with the first number that makes it new."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every node that reads `old` read `new`; outputs of `graph` itself stay."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
        for body in bodies_of(node):
            if old not in _bound(body):
                rename_uses(body, old, new)
                # A body may give a value back that it took from around it.
                for value in body.output:
                    if value.name == old:
                        value.name = new


def with_own_bytes(source: bytes | Path) -> bytes:
    """Return a model in which no two operators share an 8-bit weight or zero point."""
    model = (
        onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    )
    graph, taken = model.graph, value_names(model.graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    narrow = {name for name, tensor in stored.items() if tensor.data_type in _BYTES}
    used: set[str] = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in used:
                node.input[position] = own = fresh_name(name, taken)
                taken.add(own)
                copy = graph.initializer.add()
                copy.CopyFrom(stored[name])
                copy.name = own
            elif name in narrow:
                used.add(name)
    return model.SerializeToString()


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan; none for any other node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield `nodes` and those of the bodies inside them, at any depth."""
    waiting = [iter(nodes)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(iter(body.node) for body in bodies_of(node))


def _bound(body: onnx.GraphProto) -> set[str]:
    bound = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    return bound.union(*(node.output for node in body.node))
