"""Preprocessing as the first nodes of a network.

So the first place to cut is what comes in, the uint8 picture itself, and a picture codec is a
codec like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import onnx
from onnx.helper import make_node, make_tensor_value_info

from midstream_partitioner.inputs.feed import Feed, either
from midstream_partitioner.onnx_tools.names import fresh_name, rename_uses, value_names
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def prepend(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """`model` with the preprocessing of `feed` in front, as nodes named "preprocess/...".

    For pictures the network's input becomes a uint8 [batch, H, W, channels] named "image" (a
    number is added where the network has another value of that name); arrays keep their
    input. Only float32 operators that all opsets from 7 on share. `model` itself is not
    changed, and given back where there is nothing to do. Raises `UsageError` where the feed
    does not fit the network.
    """
    value = _fed_input(model.graph, feed)
    if value is None:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    taken = value_names(graph) | {node.name for node in graph.node}
    raw, prepared = _ends(graph, feed, value.name, taken)
    steps = _Steps(taken | {raw, prepared}, current=raw)
    if feed.kind == "image":
        picture = _picture_shape(feed, value)
        _prepare_picture(steps, feed, value)
        fed = next(each for each in graph.input if each.name == value.name)
        fed.CopyFrom(make_tensor_value_info(raw, onnx.TensorProto.UINT8, picture))
    else:
        _prepare_array(steps, feed, value)
    steps.nodes[-1].output[0] = prepared
    if prepared != value.name:
        rename_uses(graph, value.name, prepared)
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*steps.nodes, *network])
    graph.initializer.extend(steps.constants)
    if result.ir_version < 4:  # until then every initializer had to be an input, too
        graph.input.extend(
            make_tensor_value_info(each.name, each.data_type, each.dims)
            for each in steps.constants
        )
    return result


@final
@dataclass(slots=True)
class _Steps:
    """Nodes in a row, each reading what the one before gives."""

    taken: set[str]
    current: str
    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    constants: list[onnx.TensorProto] = dataclasses.field(default_factory=list)

    def add(self, op_type: str, constant: Array | None = None, **attributes: Any) -> None:
        name = fresh_name(f"preprocess/{op_type.lower()}", self.taken)
        output = fresh_name(f"{name}/output", self.taken)
        inputs = [self.current]
        if constant is not None:
            inputs.append(fresh_name(f"{name}/constant", self.taken))
            self.constants.append(onnx.numpy_helper.from_array(constant, inputs[1]))
        self.nodes.append(make_node(op_type, inputs, [output], name=name, **attributes))
        self.taken |= {name, output, *inputs}
        self.current = output

    def calculate(self, feed: Feed, channels: int | None, inner: int) -> None:
        """(x * scale - mean) / std, with `inner` dimensions after the one of channels."""
        if feed.scale != 1:
            self.add("Mul", np.array(feed.scale, np.float32))
        for op_type, field, neutral in (("Sub", "mean", 0), ("Div", "std", 1)):
            values = getattr(feed, field)
            if len(values) > 1 and channels not in (None, len(values)):
                raise UsageError(
                    f"{field} must have 1 value or {channels}, one per channel "
                    f"(not {len(values)})"
                )
            if any(each != neutral for each in values):
                shape = () if len(values) == 1 else (len(values), *(1,) * inner)
                self.add(op_type, np.array(values, np.float32).reshape(shape))


def _fed_input(graph: onnx.GraphProto, feed: Feed) -> onnx.ValueInfoProto | None:
    """The input that `feed` describes; None where there is nothing to put in front of it."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    if feed.input and feed.input not in inputs:
        raise UsageError(f"input must be {either(tuple(inputs))} (not {feed.input!r})")
    if feed.kind == "array" and not feed.changes_values:
        return None
    if not feed.input and len(inputs) != 1:
        raise UsageError(
            "a model of several inputs needs a feed that names one: give input = "
            f"{either(tuple(inputs))}"
        )
    return inputs[feed.input] if feed.input else next(iter(inputs.values()))


def _ends(
    graph: onnx.GraphProto, feed: Feed, name: str, taken: Container[str]
) -> tuple[str, str]:
    """Names of what is fed and of what the network then reads in place of `name`."""
    if feed.kind == "array":
        return name, fresh_name(f"{name}/prepared", taken)
    # An output keeps its name even where a network passes its input on.
    passed_on = any(output.name == name for output in graph.output)
    if name == "image" and not passed_on:
        return name, fresh_name(f"{name}/prepared", taken)
    return fresh_name("image", taken), name


def _prepare_picture(steps: _Steps, feed: Feed, value: onnx.ValueInfoProto) -> None:
    wanted = value.type.tensor_type.elem_type
    calculates = feed.changes_values or wanted != onnx.TensorProto.UINT8
    if calculates:
        steps.add("Cast", to=onnx.TensorProto.FLOAT)
    if feed.color == "BGR":
        steps.add("Gather", np.array([2, 1, 0], np.int64), axis=3)
    if feed.layout == "NCHW":
        steps.add("Transpose", perm=[0, 3, 1, 2])
    steps.calculate(feed, feed.channels, inner=2 if feed.layout == "NCHW" else 0)
    if calculates and wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=wanted)
    if not steps.nodes:
        steps.add("Identity")


def _prepare_array(steps: _Steps, feed: Feed, value: onnx.ValueInfoProto) -> None:
    dims, wanted = _declared_dims(value), value.type.tensor_type.elem_type
    if onnx.TensorProto.DataType.Name(wanted) not in _FLOATS:
        raise UsageError(
            f"scale, mean and std need an input of floats ({value.name!r} is none): "
            "leave them out"
        )
    if wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=onnx.TensorProto.FLOAT)
    axis = 1 if feed.layout == "NCHW" and len(dims) > 1 else len(dims) - 1
    channels = dims[axis] if dims else 1
    known = channels if isinstance(channels, int) else None
    steps.calculate(feed, known, inner=max(0, len(dims) - 1 - axis))
    if wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=wanted)


def _picture_shape(feed: Feed, value: onnx.ValueInfoProto) -> list[int | str | None]:
    """[batch, H, W, channels] as the network declares them, open sizes as the feed says."""
    dims = _declared_dims(value)
    if len(dims) != 4:
        raise UsageError(
            f"pictures need an input of 4 dimensions, {feed.layout} ({value.name!r} has "
            f'{dims}): describe it with kind = "array"'
        )
    order = (0, 2, 3, 1) if feed.layout == "NCHW" else (0, 1, 2, 3)
    batch, height, width, channels = (dims[axis] for axis in order)
    if isinstance(channels, int) and channels != feed.channels:
        raise UsageError(
            f"a model fed {feed.color} pictures as {feed.layout} must take {feed.channels} "
            f"channels (not the {channels} of {dims}): check layout and color"
        )
    for field, own, said in (("height", height, feed.height), ("width", width, feed.width)):
        if isinstance(own, int) and said not in (None, own):
            raise UsageError(f"{field} must be the model's {own} (not {said}): leave it out")
    return [batch, feed.height or height, feed.width or width, feed.channels]


def _declared_dims(value: onnx.ValueInfoProto) -> list[int | str | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]
