"""Declared shapes of a model's tensors, reduced to what it promises.

The shapes of the inputs are a promise: what does not fit them is refused. All other shapes in
a file are hints of whoever wrote it, and often wrong: exporters freeze the batch of an output
that follows the input's. What inference and a run say counts, so the hints are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from midstream_partitioner.onnx_tools.names import bodies_of


def normalise(model: onnx.ModelProto) -> None:
    """Drop every declared shape but those of inputs, and write open dimensions alike."""
    for value in model.graph.input:
        _open(value)
    for value in model.graph.output:
        _forget(value)
    model.graph.ClearField("value_info")
    _forget_bodies(model.graph.node)
    for function in model.functions:
        function.ClearField("value_info")
        _forget_bodies(function.node)


def _open(value: onnx.ValueInfoProto) -> None:
    """Exporters also write an open dimension as -1, 0, or a name that is empty."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_value <= 0 and not dim.dim_param:
            dim.Clear()


def _forget_bodies(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for body in bodies_of(node):
            body.ClearField("value_info")
            for value in body.input:  # which Loop and Scan check against what they pass in
                _open(value)
            for value in body.output:
                _forget(value)
            _forget_bodies(body.node)


def _forget(value: onnx.ValueInfoProto) -> None:
    if value.type.HasField("tensor_type"):
        value.type.tensor_type.ClearField("shape")
