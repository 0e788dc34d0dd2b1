"""The parts of a graph where branches run side by side, and the cuts through them.

A node that every other node comes before or after splits the search for a closed set: a head
either holds it and all before it, or lacks it and all after it. The nodes between two such
nodes are a *block*; a closed set that is no prefix ends inside exactly one. Residual and
densely connected networks consist of splitting nodes nearly everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import final

from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.search.cost_table import Costs
from midstream_partitioner.search.max_flow import FlowNetwork


def blocks_of(graph: Graph) -> Iterator[tuple[int, int]]:
    """Every block as [start, end) of node indices; O(nodes x edges / word size)."""
    start = None
    for index, splits in enumerate([*_splitting(graph), True]):
        if splits and start is not None:
            yield start, index
            start = None
        elif not splits and start is None:
            start = index


def closed_sets(graph: Graph, start: int, end: int, *, limit: int) -> list[int] | None:
    """The closed subsets of a block as bits (bit j: node start + j); None if over `limit`."""
    before = _predecessors(graph, start, end)
    sets = [0]
    for offset, needed in enumerate(before):
        sets += [bits | 1 << offset for bits in sets if bits & needed == needed]
        if len(sets) > limit:
            return None
    return sets


def _splitting(graph: Graph) -> list[bool]:
    """For every node, whether all others are its ancestors or its descendants."""
    ancestors: list[int] = []
    for before in _predecessors(graph, 0, len(graph.nodes)):
        reached = before
        for index in bits_of(before):
            reached |= ancestors[index]
        ancestors.append(reached)
    descendants = [0] * len(ancestors)
    for index in range(len(ancestors) - 1, -1, -1):
        for name in graph.nodes[index].outputs:
            for user in graph.consumers[name]:
                descendants[index] |= descendants[user] | 1 << user
    return [
        above.bit_count() + below.bit_count() == len(ancestors) - 1
        for above, below in zip(ancestors, descendants, strict=True)
    ]


def _predecessors(graph: Graph, start: int, end: int) -> list[int]:
    """The producers within [start, end) of each node's inputs, as bits relative to start."""
    bits = []
    for node in graph.nodes[start:end]:
        made_by = {graph.producer[name] for name in node.inputs}
        bits.append(sum(1 << index - start for index in made_by if index >= start))
    return bits


def bits_of(number: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


@final
@dataclass(frozen=True, slots=True)
class Wire:
    """A tensor that may cross within a block. Nodes count from the block's start.

    `made_by` is -1 for what comes from before the block; `outlives` tells whether a node after
    the block reads it, so that it crosses wherever the block is cut after it is made.
    """

    name: str
    made_by: int
    users: tuple[int, ...]
    outlives: bool
    nbytes: float  # infinite for what may not cross at all


@final
@dataclass(frozen=True, slots=True)
class WideBlock:
    """A block with too many closed sets to list: minimum cuts through it."""

    start: int
    end: int
    before: tuple[int, ...]  # by node: the producers of its inputs, as bits
    wires: tuple[Wire, ...]

    @classmethod
    def of(cls, graph: Graph, costs: Costs, start: int, end: int) -> WideBlock:
        wires = []
        for name, made_by in graph.producer.items():
            users = sorted({user for user in graph.consumers[name] if user >= start})
            if users and made_by < end:
                within = tuple(user - start for user in users if user < end)
                wires.append(
                    Wire(
                        name=name,
                        made_by=max(made_by - start, -1),
                        users=within,
                        outlives=users[-1] >= end,
                        nbytes=inf if name in costs.barred else costs.wire_nbytes[name],
                    )
                )
        return cls(start, end, tuple(_predecessors(graph, start, end)), tuple(wires))

    def up_nbytes(self, bits: int) -> float:
        """Return what a closed set sends up; infinite if part of it may not cross."""
        total = 0.0
        for wire in self.wires:
            made = wire.made_by < 0 or bits >> wire.made_by & 1
            if made and (wire.outlives or any(not bits >> user & 1 for user in wire.users)):
                total += wire.nbytes
        return total

    def least_up_nbytes(self) -> float:
        """The least that any closed set ending in this block sends up."""
        free = [0.0] * (self.end - self.start)
        bits = self.best(free, free, byte_s=1.0)
        return inf if bits is None else self.up_nbytes(bits)

    def best(
        self,
        head_s: Sequence[float],
        tail_s: Sequence[float],
        *,
        byte_s: float,
        barred: Collection[str] = (),
    ) -> int | None:
        """The closed set with the least sum of node times and bytes times `byte_s`, as bits.

        Times are by node of the block. None if something always crosses that may not, or is
        `barred` here.
        """
        wires = [
            (wire, inf if wire.name in barred else wire.nbytes * byte_s) for wire in self.wires
        ]
        group = self._contract(head_s, tail_s, wires)
        width = self.end - self.start
        source, sink = width, width + 1
        network = FlowNetwork(width + 2 + len(wires))
        for node in range(width):
            # What both sides cost alike does not decide: the difference is the capacity.
            network.add(source, group[node], max(tail_s[node] - head_s[node], 0.0))
            network.add(group[node], sink, max(head_s[node] - tail_s[node], 0.0))
            for needed in bits_of(self.before[node]):
                if group[needed] != group[node]:
                    network.add(group[node], group[needed], inf)
        for auxiliary, (wire, capacity) in enumerate(wires, start=width + 2):
            maker = source if wire.made_by < 0 else group[wire.made_by]
            users = {group[user] for user in wire.users} - {maker}
            if wire.outlives:
                users = {sink}
            if len(users) == 1:
                network.add(maker, users.pop(), capacity)
            elif users:
                network.add(maker, auxiliary, capacity)
                for user in users:
                    network.add(auxiliary, user, inf)
        value, side = network.min_cut(source, sink)
        if value == inf:
            return None
        return sum(1 << node for node in range(width) if side[group[node]])

    def _contract(
        self,
        head_s: Sequence[float],
        tail_s: Sequence[float],
        wires: Sequence[tuple[Wire, float]],
    ) -> list[int]:
        """Merge nodes behind which no best cut need lie into their only user.

        A node no faster in the head, whose one output has one user and takes at least as long
        to send as its inputs together: cutting before it is never worse than behind it. Maps
        every node to the one it is merged into.
        """
        width = self.end - self.start
        inputs_s = [0.0] * width
        outputs: list[list[tuple[Wire, float]]] = [[] for _ in range(width)]
        for wire, seconds in wires:
            for user in wire.users:
                inputs_s[user] += seconds
            if wire.made_by >= 0:
                outputs[wire.made_by].append((wire, seconds))
        group = list(range(width))
        for node in range(width - 1, -1, -1):
            if len(outputs[node]) != 1 or head_s[node] < tail_s[node]:
                continue
            wire, seconds = outputs[node][0]
            if len(wire.users) == 1 and not wire.outlives and inputs_s[node] <= seconds:
                group[node] = group[wire.users[0]]
        return group
