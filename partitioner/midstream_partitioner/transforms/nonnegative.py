"""Detection of tensors that are never negative, which a lossy decoder may clip."""

from __future__ import annotations

from typing import final

import onnx
from onnx import numpy_helper

from midstream_partitioner.partition.partition import Partition

#: Operators whose result is never negative.
_SOURCES = frozenset("Abs Exp HardSigmoid Relu Sigmoid Softmax Softplus Sqrt".split())

#: Operators whose result is not negative when none of their activations is. All inputs of
#: the first kind count, of the second the first alone: the others say where and how much.
_MIXING = frozenset("Add Concat Max Mul Sum".split())
_MOVING = frozenset(
    "AveragePool Dropout Flatten GlobalAveragePool GlobalMaxPool Identity MaxPool ReduceMax "
    "ReduceMean Reshape Slice Squeeze Transpose Unsqueeze".split()
)


def is_nonnegative(partition: Partition, tensor: str) -> bool:
    """Return True if `tensor` holds no number below 0 whatever the input is.

    False where that is not plain from the operators that make it: a ReLU, or what only moves,
    adds or averages the results of ReLUs.
    """
    graph = _Producers(partition)
    open_names, seen = [tensor], {tensor}
    while open_names:
        name = open_names.pop()
        found = graph.producer(name)
        if found is None:
            return False
        segment, node = found
        if node.op_type in _SOURCES or _clips_at_zero(segment, node):
            continue
        if node.op_type in _MIXING:
            inputs = list(node.input)
        elif node.op_type in _MOVING and node.output[0] == name:
            inputs = [node.input[0]]
        else:
            return False
        open_names += [each for each in inputs if each not in seen]
        seen.update(inputs)
    return True


@final
class _Producers:
    """The nodes that make tensors, segment by segment as they are asked for."""

    def __init__(self, partition: Partition) -> None:
        self._makers = {
            name: segment for segment in partition.segments for name in segment.outputs
        }
        self._graphs: dict[int, onnx.GraphProto] = {}

    def producer(self, name: str) -> tuple[onnx.GraphProto, onnx.NodeProto] | None:
        """The node that makes `name`, and its segment; None for inputs and constants."""
        if (segment := self._makers.get(name)) is not None and (
            segment.index not in self._graphs
        ):
            model = onnx.load_model_from_string(segment.model)
            self._graphs[segment.index] = model.graph
        for graph in self._graphs.values():
            for node in graph.node:
                if name in node.output and node.domain in ("", "ai.onnx"):
                    return graph, node
        return None


def _clips_at_zero(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Return True if `node` is a Clip from a constant that is not negative."""
    if node.op_type != "Clip":
        return False
    for attribute in node.attribute:  # as it was before opset 11
        if attribute.name == "min":
            return attribute.f >= 0
    lowest = node.input[1] if len(node.input) > 1 else ""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for other in graph.node:
        if other.op_type == "Constant" and other.attribute[0].name == "value":
            constants[other.output[0]] = other.attribute[0].t
    if lowest not in constants:
        return False
    bound = numpy_helper.to_array(constants[lowest])  # of one element, in whatever shape
    return bound.size > 0 and bool((bound >= 0).all())
