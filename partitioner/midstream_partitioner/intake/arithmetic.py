"""Counts of a model's arithmetic, node by node, with bodies and local functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import onnx

from midstream_partitioner.intake.operators import Call, Shape, operations
from midstream_partitioner.intake.shapes import Shaped, spec_of
from midstream_partitioner.onnx_tools.constants import captured_names
from midstream_partitioner.onnx_tools.validation import stored_nbytes
from midstream_wire.tensors import DTYPES

#: No device does more for one answer; keeps a declared loop of 2^63 rounds a number.
MOST_OPERATIONS = 10**18
#: Constants up to here may be shapes or trip counts, and go along into a body.
_VALUE_NBYTES = 4096
#: Bodies within bodies; deeper ones count nothing.
_MOST_NESTED = 16


@final
@dataclass(frozen=True, slots=True)
class _Scope:
    """The scope of a node: shapes by name, and small constants by name."""

    shapes: Mapping[str, Shaped]
    values: Mapping[str, onnx.TensorProto]
    opsets: Sequence[onnx.OperatorSetIdProto]
    nested: int = 0

    def inside(self, shapes: Mapping[str, Shaped], outer: Mapping[str, str]) -> _Scope:
        """The scope of a body that calls `outer[name]` by `name`, and is given `shapes`."""
        given = {
            inner: self.shapes[name] for inner, name in outer.items() if name in self.shapes
        }
        values = {
            inner: self.values[name] for inner, name in outer.items() if name in self.values
        }
        return _Scope(given | dict(shapes), values, self.opsets, self.nested + 1)


@final
class Arithmetic:
    """Counts the operations of a model's nodes, at the nominal shapes in `known`.

    The body of a Loop or a Scan counts once per round, as far as their number is known. Of the
    branches of an If, the one with more work counts: which one runs is not known.
    """

    def __init__(self, model: onnx.ModelProto, known: Mapping[str, Shaped]) -> None:
        self._model = model
        self._scope = _Scope(known, _small_values(model.graph), model.opset_import)
        self._functions = {(each.domain, each.name): each for each in model.functions}
        self._counted: dict[tuple[str, str, bytes, tuple[Shape | None, ...]], int] = {}

    def operations(self, node: onnx.NodeProto) -> int:
        """Operations of one node of the model's graph."""
        return self._node(node, self._scope)

    def _node(self, node: onnx.NodeProto, scope: _Scope) -> int:
        call = Call(
            [_shape_of(name, scope) for name in node.input],
            [_shape_of(name, scope) for name in node.output],
            {each.name: each for each in node.attribute},
        )
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            count = self._function(node, function, scope, call)
        elif bodies := _bodies(node):
            counts = [
                self._body(body, _body_scope(node, body, scope, call)) for body in bodies
            ]
            rounds = _rounds(node, scope, call)
            count = max(counts) if node.op_type == "If" else rounds * sum(counts)
        else:
            count = int(operations(node.domain, node.op_type, call))
        return min(count, MOST_OPERATIONS)

    def _function(
        self, node: onnx.NodeProto, function: onnx.FunctionProto, scope: _Scope, call: Call
    ) -> int:
        """A call's work, counted once for all calls of the same shapes and attributes."""
        attributes = b"".join(
            each.SerializeToString(deterministic=True) for each in node.attribute
        )
        key = (function.domain, function.name, attributes, tuple(call.inputs))
        if key not in self._counted:
            self._counted[key] = 0  # of a function that calls itself
            inner = scope.inside({}, dict(zip(function.input, node.input, strict=False)))
            body = onnx.GraphProto(name="body", node=_with_attributes(function, call))
            inner = replace(inner, opsets=function.opset_import)
            self._counted[key] = self._body(body, inner)
        return self._counted[key]

    def _body(self, body: onnx.GraphProto, scope: _Scope) -> int:
        if scope.nested > _MOST_NESTED:
            return 0
        values = {**scope.values, **_small_values(body)}
        inner = replace(scope, shapes=self._inferred(body, scope, values), values=values)
        return sum(self._node(node, inner) for node in body.node)

    def _inferred(
        self, body: onnx.GraphProto, scope: _Scope, values: Mapping[str, onnx.TensorProto]
    ) -> dict[str, Shaped]:
        """The shapes inside a body, as far as inference tells them."""
        typed = {name: _typed(name, shaped) for name, shaped in scope.shapes.items()}
        typed |= {
            each.name: onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
            for each in body.initializer
        }
        graph = onnx.GraphProto(
            name="body",
            node=body.node,
            input=[value for name, value in typed.items() if name not in values],
            initializer=[_named(each, name) for name, each in values.items()],
        )
        model = onnx.ModelProto(
            ir_version=self._model.ir_version,
            graph=graph,
            opset_import=scope.opsets,
            functions=self._model.functions,
        )
        inferred: list[onnx.ValueInfoProto] = []
        with suppress(Exception):  # onnx raises InferenceError, RuntimeError and others
            done = onnx.shape_inference.infer_shapes(model, data_prop=True)
            inferred = list(done.graph.value_info)
        found = {}
        for value in (*inferred, *typed.values()):
            spec = spec_of(value)
            sizes = tuple(size for size in spec.shape if isinstance(size, int))
            if len(sizes) == len(spec.shape):
                found[value.name] = Shaped(spec.dtype, sizes, sizes)
        return found


def _shape_of(name: str, scope: _Scope) -> Shape | None:
    return scope.shapes[name].nominal if name in scope.shapes else None


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        body
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


def _rounds(node: onnx.NodeProto, scope: _Scope, call: Call) -> int:
    """Return how often a body runs; once where nothing tells."""
    if node.op_type == "Scan":
        first, axes = _scanned(call)
        shape = call.inputs[first] if first < len(call.inputs) else None
        return shape[axes[0]] if shape and -len(shape) <= axes[0] < len(shape) else 1
    if node.op_type != "Loop":
        return 1
    if node.input and node.input[0] in scope.values:
        declared = onnx.numpy_helper.to_array(scope.values[node.input[0]])
        return max(0, int(declared.reshape(-1)[0])) if declared.size else 1
    collected = call.outputs[max(0, len(node.input) - 2) :]
    return next((shape[0] for shape in collected if shape), 1)


def _scanned(call: Call) -> tuple[int, list[int]]:
    """Return where the scanned inputs of a Scan begin, and the axis of each."""
    count = min(max(1, int(call.value("num_scan_inputs", 1))), max(1, len(call.inputs)))
    axes = [*call.value("scan_input_axes", ())]
    return len(call.inputs) - count, [*axes, *[0] * (count - len(axes))]


def _body_scope(
    node: onnx.NodeProto, body: onnx.GraphProto, scope: _Scope, call: Call
) -> _Scope:
    """Return what a body sees: what it captures, and what its own inputs are given, as
    shapes.
    """
    names = [value.name for value in body.input]
    given: dict[str, Shaped] = {}
    passed: Sequence[str] = node.input
    if node.op_type == "Loop":
        given |= dict.fromkeys(names[:1], Shaped("int64", (), ()))
        given |= dict.fromkeys(names[1:2], Shaped("bool", (), ()))
        names, passed = names[2:], node.input[2:]
    first, axes = _scanned(call) if node.op_type == "Scan" else (len(names), [])
    for at, (inner, outer) in enumerate(zip(names, passed, strict=False)):
        shaped = scope.shapes.get(outer)
        if shaped is not None and at >= first:
            sizes = [*shaped.nominal]
            del sizes[axes[at - first] : axes[at - first] + 1 or None]
            shaped = Shaped(shaped.dtype, tuple(sizes), tuple(sizes))
        if shaped is not None:
            given[inner] = shaped
    return scope.inside(given, {name: name for name in captured_names(node)})


def _with_attributes(function: onnx.FunctionProto, call: Call) -> list[onnx.NodeProto]:
    """A function's nodes with the attributes of a call, or their defaults, in place."""
    given = {each.name: each for each in function.attribute_proto} | dict(call.attributes)
    nodes = []
    for node in function.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.attribute[:]
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                copy.attribute.add().CopyFrom(attribute)
            elif attribute.ref_attr_name in given:
                copy.attribute.add().CopyFrom(given[attribute.ref_attr_name])
                copy.attribute[-1].name = attribute.name
        nodes.append(copy)
    return nodes


def _typed(name: str, shaped: Shaped) -> onnx.ValueInfoProto:
    dtype = DTYPES.get(shaped.dtype, np.dtype(np.float32))
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return onnx.helper.make_tensor_value_info(name, kind, shaped.nominal)


def _small_values(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constants that are small enough to be shapes, by name."""
    stored = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            stored[node.output[0]] = node.attribute[0].t
    return {
        name: each for name, each in stored.items() if stored_nbytes(each) <= _VALUE_NBYTES
    }


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
