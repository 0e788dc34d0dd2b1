"""The axis of a tensor's channels: behind the batch, or somewhere else."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import NamedTuple, final

import onnx

from midstream_partitioner.partition.partition import Partition

#: Operators that take channels at axis 1, always.
_CHANNELS_FIRST = frozenset(
    "AveragePool BatchNormalization Conv ConvInteger ConvTranspose DepthToSpace "
    "GlobalAveragePool GlobalMaxPool GroupNormalization InstanceNormalization LRN LpPool "
    "MaxPool SpaceToDepth".split()
)
#: Operators that leave every axis where it is.
_ELEMENTWISE = frozenset(
    "Abs Add Cast Clip Concat Div Dropout Elu Erf Exp Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Max Min Mish Mul Neg PRelu Pad Relu Selu Sigmoid Slice Softplus Sqrt Sub Sum "
    "Tanh".split()
)


class _Step(NamedTuple):
    op_type: str
    names: tuple[str, ...]

    @property
    def is_fixed(self) -> bool:
        return self.op_type in _CHANNELS_FIRST


@final
class Layouts:
    """Finds out about the tensors of one partition; its models are read once."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def are_channels_first(self, tensor: str) -> bool:
        """Return True if axis 1 of a tensor of four or more dimensions holds channels, surely.

        So it is where a convolution, a pooling or the like makes or takes the tensor, with
        nothing between but what works element by element. Of fewer dimensions, always False.
        """
        if len(self._partition.specs[tensor].shape) < 4:
            return False
        open_names, seen = [tensor], {tensor}
        while open_names:
            for step in self._beside[open_names.pop()]:
                if step.is_fixed:
                    return True
                found = [name for name in step.names if name not in seen]
                open_names += found
                seen.update(found)
        return False

    @cached_property
    def _beside(self) -> defaultdict[str, list[_Step]]:
        """The steps of interest that make or take each tensor."""
        beside: defaultdict[str, list[_Step]] = defaultdict(list)
        for segment in self._partition.segments:
            for node in onnx.load_model_from_string(segment.model).graph.node:
                if (step := _step_of(node)) is not None:
                    for name in step.names:
                        beside[name].append(step)
        return beside


def _step_of(node: onnx.NodeProto) -> _Step | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _CHANNELS_FIRST:  # the other inputs are weights
        return _Step(node.op_type, (*node.input[:1], *node.output[:1]))
    if node.op_type in _ELEMENTWISE:
        names = (name for name in (*node.input, *node.output) if name)
        return _Step(node.op_type, tuple(names))
    return None
