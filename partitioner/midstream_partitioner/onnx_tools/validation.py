"""Checks that a model must pass before anything is computed from it.

onnx reads files that no program wrote and onnxruntime says late, or never, what is wrong with
them. Checked here: names are text, each is made once and before it is used, and every stored
weight has as many bytes as its shape and dtype take.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx.external_data_helper import uses_external_data

from midstream_partitioner.graph.cuts import MAX_NODES
from midstream_partitioner.onnx_tools.constants import captured_names, walk_tensors
from midstream_partitioner.onnx_tools.names import all_nodes
from midstream_wire.errors import ModelError

#: Domain and name of an operator or a local function.
_Key = tuple[str, str]

#: Dtypes that pack several elements into a byte, and the bits that each takes.
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


#: A larger one fits into no segment (`serializing.MAX_MODEL_NBYTES`).
MAX_WEIGHT_NBYTES = (2 << 30) - (1 << 20)


def check_graph(graph: onnx.GraphProto) -> None:
    """Raise `ModelError` unless every name is made once, and before it is used."""
    made: set[str] = set()
    for value in graph.input:
        made.add(_text(value.name))
    # Up to IR version 3 an initializer is also listed as an input.
    made.update(_text(tensor.name) for tensor in graph.initializer)
    made.update(_text(tensor.values.name) for tensor in graph.sparse_initializer)
    for node in graph.node:
        _check_node(node, made)
    outputs = [_text(value.name) for value in graph.output]
    if not outputs or len(set(outputs)) < len(outputs):
        raise ModelError(
            f"a model must have outputs, each named once, not {outputs[:8]}: export it again"
        )
    for name in outputs:
        if name not in made:
            raise ModelError(
                f"every output must be made by a node; nothing makes {name!r}: export the "
                "model again"
            )


def check_expansion(model: onnx.ModelProto) -> None:
    """Raise `ModelError` where local functions, written out, are more than `MAX_NODES` nodes.

    Functions that call each other twice a level double with every level: 27 of them, in a file
    of 3 KB, are 134 million nodes for everything that follows calls.
    """
    functions = {(each.domain, each.name): each for each in model.functions}
    calls = {key: _operators(each.node) for key, each in functions.items()}
    order = TopologicalSorter({key: calls[key].keys() & functions for key in functions})
    counts: dict[_Key, int] = {}
    try:
        for key in order.static_order():
            counts[key] = _written_out(calls[key], counts)
    except CycleError as error:
        (_, name), *_ = error.args[1]
        raise ModelError(
            f"a local function must not call itself, and {name[:64]!r} does: export the "
            "model again"
        ) from None
    _written_out(_operators(model.graph.node), counts)


def _operators(nodes: Iterable[onnx.NodeProto]) -> Counter[_Key]:
    return Counter((node.domain, node.op_type) for node in all_nodes(nodes))


def _written_out(calls: Counter[_Key], counts: Mapping[_Key, int]) -> int:
    """Return how many nodes `calls` are, each as many as what it calls has."""
    total = sum(times * (1 + counts.get(key, 0)) for key, times in calls.items())
    if total > MAX_NODES:
        raise ModelError(
            f"a model must have at most {MAX_NODES:,} nodes, those of local functions "
            f"counted at every call, and this one has {total:,}: give a smaller one"
        )
    return total


def check_weights(model: onnx.ModelProto) -> None:
    """Raise `ModelError` unless every stored tensor holds what its shape and dtype say."""
    for tensor in walk_tensors(model):
        expected = stored_nbytes(tensor)
        if len(tensor.raw_data) > MAX_WEIGHT_NBYTES:
            raise ModelError(
                f"a weight must be smaller than 2 GiB; {tensor.name!r} takes {expected} "
                "bytes: store it in float16 or in parts"
            )
        if uses_external_data(tensor):
            raise ModelError(
                f"a model that is not read from a file must hold its weights; {tensor.name!r} "
                "lies in another file: give the model's path"
            )
        if tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
            raise ModelError(
                f"the weight {tensor.name!r} must hold {expected} bytes, which its shape and "
                f"dtype take, not {len(tensor.raw_data)}: export the model again"
            )


def stored_nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes that `tensor` takes as raw data, by its shape and dtype; raises `ModelError`."""
    try:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError):
        kind = "UNDEFINED"
    if kind == "UNDEFINED" or any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"a weight must have a known dtype and sizes from 0 up; {tensor.name!r} has dtype "
            f"{tensor.data_type} and sizes {list(tensor.dims)[:8]}: export the model again"
        )
    count = math.prod(tensor.dims)
    return math.ceil(count * _PACKED_BITS.get(kind, 8 * itemsize) / 8)


def _check_node(node: onnx.NodeProto, made: set[str]) -> None:
    _text(node.name)
    _text(node.op_type)
    for name in (*node.input, *captured_names(node)):
        if name and _text(name) not in made:
            raise ModelError(
                f"a node must come after what it uses; {node.op_type} {node.name!r} uses "
                f"{name!r}, which nothing before it makes: export the model again"
            )
    for name in node.output:
        if name and _text(name) in made:
            raise ModelError(
                f"every tensor must be made once; {name!r} is made again by {node.op_type} "
                f"{node.name!r}: export the model again"
            )
        made.add(name)


def _text(name: str | bytes) -> str:
    """`name` if it is text; protobuf hands out bytes where a string is not UTF-8."""
    if isinstance(name, bytes):
        raise ModelError(f"names must be UTF-8, not {name[:40]!r}: export the model again")
    return name
