"""bfloat16 on processors that cannot compute in it: in float32, each result rounded.

onnxruntime's CPU has casts of bfloat16 and few other kernels, and its Python face no arrays of
it. So a model is rewritten: every value is float32, holds a number of bfloat16, and is rounded
to that by two casts behind the node that makes it. A kernel of bfloat16 that sums in float32
would give the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from midstream_partitioner.onnx_tools.names import bodies_of, fresh_name, value_names

_NARROW, _WIDE = TensorProto.BFLOAT16, TensorProto.FLOAT
#: What gives some of the numbers that it is given, and no others.
_PASSING = frozenset(
    "Identity Reshape Transpose Flatten Squeeze Unsqueeze Expand Tile Slice Split Concat "
    "Gather GatherElements GatherND Relu Max Min MaxPool GlobalMaxPool DepthToSpace "
    "SpaceToDepth Where Neg Abs If Loop Scan".split()
)

Types = Mapping[str, int]


def widened(model: bytes | Path) -> tuple[bytes, frozenset[str]] | None:
    """Return the model in float32, and which inputs and outputs were bfloat16.

    None where nothing in it is.
    """
    made = (
        onnx.load(str(model))
        if isinstance(model, Path)
        else onnx.load_model_from_string(model)
    )
    if made.functions:
        made = inliner.inline_local_functions(made)
    if _NARROW not in set(_kinds(made.graph)):
        return None
    made = onnx.shape_inference.infer_shapes(made)
    graph = made.graph
    ends = {v.name for v in (*graph.input, *graph.output) if _kind(v) == _NARROW}
    _widen(graph, {}, value_names(graph))
    return made.SerializeToString(), frozenset(ends)


def _kind(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


def _kinds(graph: onnx.GraphProto) -> Iterator[int]:
    yield from map(_kind, (*graph.input, *graph.output, *graph.value_info))
    yield from (tensor.data_type for tensor in graph.initializer)
    for node in graph.node:
        yield from (each.i for each in node.attribute if each.name in ("to", "dtype"))
        yield from (each.t.data_type for each in node.attribute if each.HasField("t"))
        for body in bodies_of(node):
            yield from _kinds(body)


def _widen(graph: onnx.GraphProto, around: Types, taken: set[str]) -> None:
    types = {**around}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = _kind(value)
        if _kind(value) == _NARROW:
            value.type.tensor_type.elem_type = _WIDE
    for tensor in graph.initializer:
        types[tensor.name] = tensor.data_type
        _widen_tensor(tensor)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == _NARROW:
                attribute.i = _WIDE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
        for body in bodies_of(node):
            _widen(body, types, taken)
        rounds = () if node.op_type in _PASSING else (*_rounding(node, types, taken),)
        graph.node.extend((node, *rounds))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _NARROW:
        array = numpy_helper.to_array(tensor).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _rounding(node: onnx.NodeProto, types: Types, taken: set[str]) -> Iterator[onnx.NodeProto]:
    """Have the outputs of `node` that were bfloat16 rounded to it, under their names."""
    for position, name in enumerate(node.output):
        if name and types.get(name) == _NARROW:
            made, held = (fresh_name(f"{name}/{how}", taken) for how in ("wide", "rounded"))
            taken |= {made, held}
            node.output[position] = made
            yield helper.make_node("Cast", [made], [held], to=_NARROW)
            yield helper.make_node("Cast", [held], [name], to=_WIDE)
