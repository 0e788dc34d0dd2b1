"""Times of a runtime's fused nodes, attributed to the nodes of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from midstream_partitioner.graph.graph import INPUT, Graph


def owners_of(graph: Graph, optimised: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """For each node of the optimised graph, the user's nodes whose work it does.

    Optimisation keeps the names of the tensors that remain. So a node stands for everything
    between the tensors it makes and those that other optimised nodes make. Around a node that
    computes in half precision, casts take the names of its tensors, but it keeps its own.
    """
    own = {node.name: node.outputs for node in graph.nodes}
    told = {
        node.name: [name for name in node.output if name in graph.producer]
        for node in optimised.node
    }
    hidden = {name: own[name] for name, kept in told.items() if not kept and name in own}
    made = {name for node in optimised.node for name in node.output}
    made.update(*hidden.values())
    taken: set[int] = set()
    owners = {}
    for node in sorted(optimised.node, key=lambda node: node.name not in hidden):
        stack = [*(hidden.get(node.name) or told[node.name])]
        mine: list[int] = []
        while stack:
            index = graph.producer[stack.pop()]
            if index != INPUT and index not in taken:
                taken.add(index)
                mine.append(index)
                stack += [name for name in graph.nodes[index].inputs if name not in made]
        owners[node.name] = tuple(mine)
    return owners


def attribute(
    graph: Graph, owners: Mapping[str, tuple[int, ...]], kernels: Sequence[Mapping[str, float]]
) -> list[list[float]]:
    """Per node of `graph`, seconds in each run. A fused group's time goes to its main node."""
    times: list[list[float]] = [[] for _ in graph.nodes]
    for name, group in owners.items():
        if group:
            times[_main(graph, group)] = [run.get(name, 0.0) for run in kernels]
    return times


def _main(graph: Graph, group: Sequence[int]) -> int:
    """The node that a fused group is called after: the one with the most arithmetic."""
    return max(group, key=lambda index: (graph.nodes[index].flops, -index))


def fused_into(graph: Graph, owners: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
    return {
        index: graph.nodes[_main(graph, group)].name
        for group in owners.values()
        for index in group
        if index != _main(graph, group)
    }
