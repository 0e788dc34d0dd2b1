"""Names in an ONNX graph, found and changed through If, Loop and Scan bodies alike."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx


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


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan; none for any other node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _bound(body: onnx.GraphProto) -> set[str]:
    bound = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    return bound.union(*(node.output for node in body.node))
