"""Layers that lose information between an input and all that crosses a cut.

Paths are not looked at one by one: `Concat(Relu(c), Relu(-c))` loses nothing though each path
does. What counts are dominators, the tensors through which everything that crosses gets what
it has of an input. A dominator is a veil if the values before it cannot all be told apart
behind it. docs/decisions/0019 has the rule, and what it does not promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import final

from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_wire.errors import UsageError

#: Depth of what an input does not reach: nothing of the input can be read from it.
SEALED = 1_000_000

#: Operators that map different inputs to one output. Averages and sums are not among them:
#: they are linear, and lose something only where they leave fewer elements.
LOSING = frozenset(
    "Abs ArgMax ArgMin Clip Gelu GlobalMaxPool GroupNormalization HardSigmoid HardSwish "
    "InstanceNormalization LayerNormalization LpNormalization LpPool MaxPool "
    "MeanVarianceNormalization Mish NhwcMaxPool RMSNormalization ReduceL1 ReduceL2 ReduceMax "
    "ReduceMin Relu Sign SimplifiedLayerNormalization Softmax Swish ThresholdedRelu".split()
)

#: Operators that mix what they take: with a layer on one path, a skip past it shows no more
#: than another layer would.
_SUMS = frozenset({"Add", "Sub", "Sum"})


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Passed:
    """The layers between one input and a tensor.

    `above` is the tensor's immediate dominator, `level` the number of dominators. `layers` is
    the least number of layers on any path, the most where paths are summed. `depth` counts the
    veils, the last of them behind `veiled` layers. `least` is the fewest elements that any
    dominator has.
    """

    above: _Passed | None
    level: int
    layers: int
    depth: int
    veiled: int
    least: int

    def behind(self, made: int, *, layers: int, losing: bool) -> _Passed:
        """Return what this dominates, in `made` elements and behind `layers` layers."""
        counts = (losing or made < self.least) and layers > self.veiled
        return _Passed(
            above=self,
            level=self.level + 1,
            layers=layers,
            depth=self.depth + counts,
            veiled=layers if counts else self.veiled,
            least=min(made, self.least),
        )


@final
class Veils:
    """Counts of each input's veils before any set of tensors of one graph."""

    def __init__(
        self, inputs: Sequence[str], nodes: Iterable[Node], tensors: Mapping[str, Tensor]
    ) -> None:
        self.inputs = tuple(inputs)
        self._elements = {name: prod(tensor.nominal) for name, tensor in tensors.items()}
        nodes = tuple(nodes)
        centred = _centred(nodes)
        self._passed = [self._from(name, nodes, tensors, centred) for name in self.inputs]

    def depths(self, names: Iterable[str]) -> tuple[int, ...]:
        """By input: the veils before `names` taken together, `SEALED` if it reaches none."""
        names = tuple(names)
        made = sum(self._elements[name] for name in names)
        return tuple(self._depth(passed, names, made) for passed in self._passed)

    def _depth(self, passed: Mapping[str, _Passed], names: Sequence[str], made: int) -> int:
        reached = [name for name in names if name in passed]
        if not reached:
            return SEALED
        if len(reached) < len(names):
            made = sum(self._elements[name] for name in reached)
        met, layers = _meet(passed, reached)
        return met.behind(made, layers=layers, losing=False).depth

    def _from(
        self,
        source: str,
        nodes: Iterable[Node],
        tensors: Mapping[str, Tensor],
        centred: frozenset[int],
    ) -> dict[str, _Passed]:
        passed = {source: _Passed(None, 0, 0, 0, 0, self._elements[source])}
        for node in nodes:
            taken = [name for name in node.inputs if name in passed]
            if not taken or not node.reveals:
                continue
            met, layers = _meet(passed, taken)
            if node.op_type in _SUMS:
                layers = max(passed[name].layers for name in taken)
            layers += node.layer
            losing = node.op_type in LOSING or node.index in centred
            for name in node.outputs:
                made = self._elements[name]
                found = met.behind(made, layers=layers, losing=losing)
                # A row of a table stands for an index: elements count from there on.
                dtypes = {tensors[each].dtype for each in (*taken, name)}
                looked_up = node.op_type == "Gather" and len(dtypes) > 1
                passed[name] = replace(found, least=made) if looked_up else found
        return passed


def secret_inputs(inputs: Sequence[str], public: Iterable[str]) -> tuple[str, ...]:
    """Return the inputs that are not `public`; `UsageError` for names that are no inputs."""
    public = frozenset(public)
    unknown = sorted(public.difference(inputs))
    if unknown:
        raise UsageError(
            f"public must name inputs of the model, which are {', '.join(inputs)} (not "
            f"{', '.join(unknown)}): correct the name"
        )
    return tuple(name for name in inputs if name not in public)


def _meet(passed: Mapping[str, _Passed], names: Sequence[str]) -> tuple[_Passed, int]:
    """Return the last common dominator of `names`, and the layers that each has behind it."""
    common, *others = (passed[name] for name in names)
    layers = common.layers
    for other in others:
        layers = min(layers, other.layers)
        while common is not other:
            if other.level > common.level:
                common, other = other, common
            assert common.above is not None  # the input, level 0, dominates all
            common = common.above
    return common, layers


def _centred(nodes: Iterable[Node]) -> frozenset[int]:
    """Indices of the subtractions of a tensor's own mean: how a normalisation begins where it
    is written in small operators."""
    means: dict[str, str] = {}
    found = set()
    for node in nodes:
        if node.op_type == "ReduceMean":
            means.update(dict.fromkeys(node.outputs, node.inputs[0]))
        elif node.op_type == "Sub" and len(node.inputs) == 2:
            whole, mean = node.inputs
            if means.get(mean) == whole:
                found.add(node.index)
    return frozenset(found)
