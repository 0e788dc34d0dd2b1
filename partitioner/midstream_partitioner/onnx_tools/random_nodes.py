"""The nodes of a network that draw random numbers.

What such a node gives is new at each run. It is no constant, though it may have no inputs, and
must stand in one segment only: both sides would draw numbers of their own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import final

import onnx

from midstream_partitioner.onnx_tools.names import bodies_of

_OPERATORS = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli "
    "Sampling".split()
)

#: Operators that draw in training mode, and which of their inputs says so.
_IN_TRAINING = {"Dropout": 2, "BiasDropout": 4, "BitmaskDropout": 2, "BitmaskBiasDropout": 4}

#: Domain, name and overload: how a node names a local function.
_Key = tuple[str, str, str]


@final
@dataclass(frozen=True, slots=True)
class RandomNodes:
    """Names of nodes of a model's graph that draw, and the operators through which they do."""

    names: tuple[str, ...]
    operators: tuple[str, ...]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> RandomNodes:
        """Find them, also where bodies of If, Loop and Scan or local functions draw.

        Linear in the size of the model; functions that call each other in a circle end, too.
        """
        functions = _drawing_functions(model)
        off = frozenset(_switched_off(model.graph.node, model.graph.initializer))
        drawing = [node for node in model.graph.node if _draws(node, functions, off)]
        return cls(
            tuple(node.name for node in drawing),
            tuple(dict.fromkeys(node.op_type for node in drawing)),
        )


def _drawing_functions(model: onnx.ModelProto) -> frozenset[_Key]:
    callers: dict[_Key, list[_Key]] = {}
    found: set[_Key] = set()
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        for node in _every_node(function.node):
            callers.setdefault(_called(node), []).append(key)
        off = frozenset(_switched_off(function.node, ()))
        if any(_draws(node, (), off) for node in function.node):
            found.add(key)
    stack = list(found)
    while stack:
        fresh = set(callers.get(stack.pop(), ())) - found
        found |= fresh
        stack += fresh
    return frozenset(found)


def _draws(node: onnx.NodeProto, functions: Container[_Key], off: frozenset[str]) -> bool:
    """Return True if `node` draws; `off` names the stored values that are False."""
    if node.op_type in _OPERATORS or _called(node) in functions:
        return True
    switch = node.input[_IN_TRAINING.get(node.op_type, 0) :][:1]
    if node.op_type in _IN_TRAINING and switch and switch[0]:
        return switch[0] not in off
    return any(
        _draws(inner, functions, off.union(_switched_off(body.node, body.initializer)))
        for body in bodies_of(node)
        for inner in body.node
    )


def _switched_off(
    nodes: Iterable[onnx.NodeProto], stored: Iterable[onnx.TensorProto]
) -> Iterator[str]:
    """Names of stored booleans that are False."""
    for tensor in stored:
        if _is_false(tensor):
            yield tensor.name
    for node in nodes:
        if node.op_type == "Constant" and any(_is_false(each.t) for each in node.attribute):
            yield node.output[0]


def _is_false(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.BOOL or len(tensor.dims) > 1:
        return False
    return not any(tensor.raw_data) and not any(tensor.int32_data)


def _every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from _every_node(body.node)


def _called(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload
