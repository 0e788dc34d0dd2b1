"""The best closed set of nodes over the whole graph, as a minimum cut.

A graph whose branches run side by side has exponentially many closed sets. Which of them is
the best head is a minimum cut (C. Hu, W. Bao, D. Wang, F. Liu, "Dynamic adaptive DNN surgery
for inference acceleration on the edge", INFOCOM 2019): a node in the head costs its edge time,
one in the tail its cloud time (and its share of the reply), and a tensor made in the head that
the tail reads costs its bytes on the uplink, once, however many nodes read it.

Three exact reductions come first, and leave a flow to compute only where one is needed:

- Nodes that every other node comes before or after split the graph into blocks (`blocks`).
- The closed sets of a block that has few are listed once per graph and priced as rows of a
  table, like the prefixes of the execution order.
- A larger block has a lower bound (each node on its cheaper side, and the least bytes that any
  cut through the block carries), and is skipped while that is no better than the best so far.

A limit on the head's weights makes the problem NP-hard in general (a knapsack over parallel
branches). Rows of the table are filtered exactly; in the blocks that need a flow, the limit is
priced by a Lagrange multiplier on the weights, found by bisection: always a valid answer,
never worse than the best prefix, not always the optimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import final

import numpy as np

from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.search.blocks import WideBlock, bits_of, blocks_of, closed_sets
from midstream_partitioner.search.cost_table import (
    Bools,
    Costs,
    Floats,
    join,
    position_table,
    set_table,
)
from midstream_wire.errors import PlanError

#: Blocks of up to this many closed sets are listed. A row costs about 10 ns to price; a flow
#: over a block of this size takes 100 times as long as pricing its rows.
LISTED_SETS = 4096

#: Bisection steps of the Lagrange multiplier, over 40 binary orders of magnitude: it is then
#: known to a few parts in a million.
MULTIPLIER_STEPS = 24


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a head: bytes of weights, and the least depth of what crosses.

    `secret` are the indices of the inputs whose depth counts; None for every input.
    """

    max_edge_nbytes: float = inf
    min_depth: int = 0
    secret: tuple[int, ...] | None = None


UNLIMITED = Limits()


@final
@dataclass(frozen=True, slots=True)
class Best:
    """The best closed set found, and the latency it was found for."""

    head: frozenset[int]
    latency_s: float


@final
@dataclass(frozen=True, slots=True)
class Scale:
    """Factors that turn costs into seconds: slowdowns, seconds per byte either way."""

    edge: float
    cloud: float
    up_s: float
    down_s: float
    fixed_s: float

    @classmethod
    def of(cls, link: Link, edge: float, cloud: float) -> Scale:
        up_s, down_s = 8 / link.uplink_bps, 8 / link.downlink_bps
        return cls(edge, cloud, up_s, down_s, 2 * link.one_way_s)


@final
class CutSearch:
    """Everything about one graph that does not depend on link and load, and the search itself.

    Building it takes O(nodes x edges) bit operations and a listing of the small blocks;
    `best` is then a few vector operations, and a flow for each block that the bound leaves.
    """

    def __init__(self, graph: Graph, costs: Costs, *, listed_sets: int = LISTED_SETS) -> None:
        self.graph = graph
        self.costs = costs
        self.positions = position_table(graph, costs)
        self._wide: list[tuple[WideBlock, float]] = []  # with the least bytes each sends up
        self._listed: list[tuple[int, int]] = []  # beyond the positions: start and node bits
        tables = [self.positions]
        for start, end in blocks_of(graph):
            sets = closed_sets(graph, start, end, limit=listed_sets)
            if sets is None:
                block = WideBlock.of(graph, costs, start, end)
                least = block.least_up_nbytes()
                self._wide += [(block, least)] if least < inf else []
                continue
            inner = [bits for bits in sets if bits & (bits + 1)]  # 0..01..1 is a position
            if inner:
                self._listed += [(start, bits) for bits in inner]
                heads = unpack(inner, end - start)
                tables.append(set_table(graph, costs, heads, start=start))
        self.table = join(tables)
        self.wide_blocks: tuple[WideBlock, ...] = tuple(block for block, _ in self._wide)

    def best(
        self,
        link: Link,
        *,
        edge_slowdown: float = 1.0,
        cloud_slowdown: float = 1.0,
        limits: Limits = UNLIMITED,
    ) -> Best:
        """The closed set of least latency; `PlanError` if none keeps to the limits.

        Of several equally fast ones the first of: positions in order, listed sets, flows.
        """
        scale = Scale.of(link, edge_slowdown, cloud_slowdown)
        latency_s = self.table.price_s(
            link, edge_slowdown=edge_slowdown, cloud_slowdown=cloud_slowdown
        )
        kept = self.table.weight_nbytes <= limits.max_edge_nbytes
        kept &= self.table.hides(limits.secret, limits.min_depth)
        latency_s[~kept] = inf
        row = int(latency_s.argmin())
        best = Best(self.head_of(row), float(latency_s[row]))
        bounded = [(self._bound_s(block, least, scale), block) for block, least in self._wide]
        for bound_s, block in sorted(bounded, key=lambda pair: pair[0]):
            if bound_s >= best.latency_s:
                break
            found = self._through(block, scale, limits)
            best = found if found.latency_s < best.latency_s else best
        if best.latency_s == inf:
            raise PlanError(
                f"a head of {self.graph.name} must hold at most {limits.max_edge_nbytes:g} "
                f"bytes of weights and send nothing with fewer than {limits.min_depth} layers "
                "behind it, and no head does: loosen one of the limits"
            )
        return best

    def head_of(self, row: int) -> frozenset[int]:
        """The nodes of a row of `table`."""
        if row < len(self.positions):
            return frozenset(range(row))
        return _nodes(*self._listed[row - len(self.positions)])

    def _bound_s(self, block: WideBlock, least_up_nbytes: float, scale: Scale) -> float:
        """No closed set that ends in the block is faster."""
        head_s, tail_s = self._node_times(block, scale)
        positions = self.positions
        return float(
            positions.head_s[block.start] * scale.edge
            + positions.tail_s[block.end] * scale.cloud
            + positions.down_nbytes[block.end] * scale.down_s
            + np.minimum(head_s, tail_s).sum()
            + least_up_nbytes * scale.up_s
            + scale.fixed_s
        )

    def _node_times(self, block: WideBlock, scale: Scale) -> tuple[Floats, Floats]:
        """Return what each node of the block costs in the head, and in the tail."""
        inside = slice(block.start, block.end)
        costs = self.costs
        reply_s = costs.reply_nbytes[inside] * scale.down_s
        return costs.edge_s[inside] * scale.edge, costs.cloud_s[inside] * scale.cloud + reply_s

    def _through(self, block: WideBlock, scale: Scale, limits: Limits) -> Best:
        """The best closed set that ends in the block, infinite if none keeps to the limits."""
        head_s, tail_s = self._node_times(block, scale)
        weights = self.costs.weight_nbytes[block.start : block.end]
        room = limits.max_edge_nbytes - self.positions.weight_nbytes[block.start]
        best = Best(frozenset(), inf)
        # What shows the input by itself may not cross. What does so only together with other
        # tensors is found out once the cut is known, and costs the cut.
        barred = frozenset(
            wire.name for wire in block.wires if not self._hides([wire.name], limits)
        )

        def fits(multiplier_s: float) -> bool:
            """Cut with a price on every byte of weights; keep the result if there is room."""
            nonlocal best
            bits = block.best(
                (head_s + multiplier_s * weights).tolist(),
                tail_s.tolist(),
                byte_s=scale.up_s,
                barred=barred,
            )
            if bits is None:
                return True
            head = _nodes(block.start, bits)
            if sum(weights[offset] for offset in bits_of(bits)) > room:
                return False
            latency_s = self._latency_s(block, bits, scale)
            if latency_s < best.latency_s and self._hides(self.graph.crossing(head), limits):
                best = Best(head, latency_s)
            return True

        if room < 0 or fits(0.0):
            return best
        # At `dear` even the lightest node costs more in the head than anything else can save.
        dear = self._all_s(block, scale) / float(weights[weights > 0].min())
        cheap = dear * 2.0**-40
        for _ in range(MULTIPLIER_STEPS):
            middle = (cheap * dear) ** 0.5
            cheap, dear = (cheap, middle) if fits(middle) else (middle, dear)
        return best

    def _hides(self, names: Iterable[str], limits: Limits) -> bool:
        if limits.min_depth == 0:
            return True
        depths = self.graph.veils.depths(names)
        counted = range(len(depths)) if limits.secret is None else limits.secret
        return all(depths[each] >= limits.min_depth for each in counted)

    def _latency_s(self, block: WideBlock, bits: int, scale: Scale) -> float:
        head_s, tail_s = self._node_times(block, scale)
        positions = self.positions
        inside = sum(
            head_s[offset] if bits >> offset & 1 else tail_s[offset]
            for offset in range(block.end - block.start)
        )
        return float(
            positions.head_s[block.start] * scale.edge
            + positions.tail_s[block.end] * scale.cloud
            + positions.down_nbytes[block.end] * scale.down_s
            + inside
            + block.up_nbytes(bits) * scale.up_s
            + scale.fixed_s
        )

    def _all_s(self, block: WideBlock, scale: Scale) -> float:
        """More than any two cuts through the block can differ by."""
        head_s, tail_s = self._node_times(block, scale)
        sendable = [wire.nbytes for wire in block.wires if wire.nbytes < inf]
        bytes_s = sum(sendable) * scale.up_s
        return float(head_s.sum() + tail_s.sum() + bytes_s)


def unpack(sets: Sequence[int], width: int) -> Bools:
    """Sets of bits as rows of booleans, [sets, width]."""
    return np.array([[bits >> offset & 1 for offset in range(width)] for bits in sets]) > 0


def _nodes(start: int, bits: int) -> frozenset[int]:
    """All nodes before `start`, and those that the bits name from there on."""
    return frozenset((*range(start), *(start + offset for offset in bits_of(bits))))
