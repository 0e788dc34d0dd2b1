"""A network as midstream sees it: nodes in execution order and the tensors between them.

Constants (weights, and whatever is computed from weights alone) are no part of the graph: they
never cross a link. What remains are the activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.graph.veils import Veils

#: Producer index of a graph input.
INPUT = -1


#: Operators that onnxruntime moves to the 8-bit side of a DequantizeLinear before them or a
#: QuantizeLinear behind them; and those besides that it lets the latter's range do.
_MOVERS = frozenset(
    "Flatten Identity MaxPool Reshape Slice Squeeze Transpose Unsqueeze".split()
)
_CLAMPS = frozenset({"Clip", "Relu"})


@final
@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in execution order, tensors by name, a digest over the content (sha256, hex).

    `fused` names the floats that stay inside an 8-bit kernel (`_fused`).
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    digest: str
    producer: Mapping[str, int] = field(init=False, repr=False, compare=False)
    consumers: Mapping[str, tuple[int, ...]] = field(init=False, repr=False, compare=False)
    veils: Veils = field(init=False, repr=False, compare=False)
    fused: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        producer = dict.fromkeys(self.inputs, INPUT)
        consumers: dict[str, list[int]] = {name: [] for name in self.inputs}
        for node in self.nodes:
            for name in node.inputs:
                consumers[name].append(node.index)
            for name in node.outputs:
                producer[name] = node.index
                consumers[name] = []
        frozen = {name: tuple(indices) for name, indices in consumers.items()}
        object.__setattr__(self, "producer", producer)
        object.__setattr__(self, "consumers", frozen)
        object.__setattr__(self, "veils", Veils(self.inputs, self.nodes, self.tensors))
        object.__setattr__(self, "fused", _fused(self))

    @property
    def weight_nbytes(self) -> int:
        """Bytes of all weights; one that several nodes share counts once."""
        return sum(node.weight_nbytes for node in self.nodes)

    def crossing(self, head: Iterable[int]) -> tuple[str, ...]:
        """Names of the tensors that the nodes of `head` (and the inputs) hand to the rest."""
        inside = set(head)
        return tuple(
            name
            for name, made_by in self.producer.items()
            if (made_by == INPUT or made_by in inside)
            and any(user not in inside for user in self.consumers[name])
        )

    def may_cross(self, name: str) -> bool:
        """Return True unless a tensor cannot be carried, or the answer would change by it."""
        return self.tensors[name].carriable and name not in self.fused

    def is_closed(self, head: Iterable[int]) -> bool:
        """Return True if every producer of what `head` consumes is in `head` too (a down-
        set).
        """
        inside = set(head)
        return all(
            self.producer[name] == INPUT or self.producer[name] in inside
            for index in inside
            for name in self.nodes[index].inputs
        )


def _fused(graph: Graph) -> frozenset[str]:
    """Names of the tensors that exist only where a quantized operator is cut apart.

    onnxruntime computes DequantizeLinear, an operator and QuantizeLinear in integers, and only
    where it sees all three: cut between them, the answer is off by a step of the quantizer.
    The 8-bit tensors around them cross instead, in a quarter of the bytes.
    """
    held = _dequantized(graph)
    closing = _quantized_next(graph)
    for node in graph.nodes:
        if not held.isdisjoint(node.inputs):
            held |= closing.intersection(node.outputs)
    return frozenset(held)


def _dequantized(graph: Graph) -> set[str]:
    """Floats that hold nothing but 8-bit values: what can cross is in front of them."""
    found: set[str] = set()
    for node in graph.nodes:
        if not node.inputs:  # all that it takes is stored
            continue
        source = node.inputs[0]
        opens = node.op_type == "DequantizeLinear" and graph.tensors[source].carriable
        if opens or (node.op_type in _MOVERS and source in found):
            found.update(node.outputs)
    return found


def _quantized_next(graph: Graph) -> set[str]:
    """Floats of which nothing is used but their 8-bit form."""
    found: set[str] = set()

    def quantizes(name: str, user: Node) -> bool:
        passed_on = user.op_type in _MOVERS | _CLAMPS and found.issuperset(user.outputs)
        return user.inputs[0] == name and (passed_on or user.op_type == "QuantizeLinear")

    for node in reversed(graph.nodes):
        for name in node.outputs:
            users = [graph.nodes[index] for index in graph.consumers[name]]
            if users and name not in graph.outputs and all(quantizes(name, u) for u in users):
                found.add(name)
    return found
