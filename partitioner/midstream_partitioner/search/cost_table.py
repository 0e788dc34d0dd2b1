"""Costs of every closed set of a family, as arrays: one expression prices all.

All costs of a closed set are linear: seconds on the edge and in the cloud, bytes up and down.
They do not depend on the link or on how much slower a device gets, so they are summed once per
graph, and pricing a new link is a handful of vector operations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.graph import INPUT, Graph
from midstream_wire.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Prices of one graph's parts.

    By node index: `edge_s` and `cloud_s` (seconds on either device), `weight_nbytes`, and
    `reply_nbytes`, what graph outputs made by that node add to the reply. By tensor name:
    `wire_nbytes`, what it takes on the uplink. What is `barred` may not cross at all.
    """

    edge_s: Floats
    cloud_s: Floats
    weight_nbytes: Floats
    reply_nbytes: Floats
    wire_nbytes: Mapping[str, float]
    barred: frozenset[str]


def costs_of(
    graph: Graph,
    edge_s: Sequence[float],
    cloud_s: Sequence[float],
    *,
    wire_nbytes: Mapping[str, float] | None = None,
    forbidden: Collection[str] = (),
) -> Costs:
    """Costs from seconds by node index; `wire_nbytes` defaults to the raw size.

    The tensors named in `forbidden`, and those that may not cross, are barred from crossing.
    Raises `UsageError` unless there is one time for each node.
    """
    for seconds in (edge_s, cloud_s):
        if len(seconds) != len(graph.nodes):
            raise UsageError(
                f"a layer profile must have one time for each of the {len(graph.nodes)} nodes "
                f"of {graph.name} (not {len(seconds)}): profile this model"
            )
    wire = {name: float(tensor.nbytes) for name, tensor in graph.tensors.items()}
    reply = np.zeros(len(graph.nodes))
    for name in graph.outputs:
        if graph.producer[name] != INPUT:
            reply[graph.producer[name]] += graph.tensors[name].nbytes
    return Costs(
        edge_s=np.asarray(edge_s, dtype=np.float64),
        cloud_s=np.asarray(cloud_s, dtype=np.float64),
        weight_nbytes=np.array([node.weight_nbytes for node in graph.nodes], dtype=np.float64),
        reply_nbytes=reply,
        wire_nbytes=wire | dict(wire_nbytes or {}),
        barred=frozenset(forbidden).union(
            name for name in graph.tensors if not graph.may_cross(name)
        ),
    )


@final
@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Closed sets as rows: seconds of head and tail, bytes up and down, weights, depths.

    `depths` are [rows, inputs], as in `Cut`. `complete` marks rows without a tail: edge-only,
    which needs no link. `barred` marks rows where something crosses that may not.
    """

    head_s: Floats
    tail_s: Floats
    up_nbytes: Floats
    down_nbytes: Floats
    weight_nbytes: Floats
    depths: Ints
    complete: Bools
    barred: Bools

    def __len__(self) -> int:
        return len(self.head_s)

    def price_s(
        self, link: Link, *, edge_slowdown: float = 1.0, cloud_slowdown: float = 1.0
    ) -> Floats:
        """Latency of every row, infinite where something crosses that may not."""
        fixed_s = 2 * link.one_way_s
        latency_s: Floats = (
            self.head_s * edge_slowdown
            + self.tail_s * cloud_slowdown
            + self.up_nbytes * (8 / link.uplink_bps)
            + self.down_nbytes * (8 / link.downlink_bps)
            + fixed_s
        )
        latency_s[self.complete] -= fixed_s
        latency_s[self.barred] = inf
        return latency_s

    def hides(self, secret: Sequence[int] | None, min_depth: int) -> Bools:
        """Return a mask of rows with `min_depth` for these inputs, by index (None: all)."""
        depths = self.depths if secret is None else self.depths[:, list(secret)]
        hidden: Bools = np.all(depths >= min_depth, axis=1)
        return hidden


def join(tables: Sequence[Table]) -> Table:
    """The rows of all tables, in order."""
    return Table(*(
        np.concatenate([getattr(table, name) for table in tables]) for name in Table.__slots__
    ))  # fmt: skip


def position_table(graph: Graph, costs: Costs) -> Table:
    """The prefixes of the execution order: row p is the head of the first p nodes."""
    count = len(graph.nodes)
    # Each tensor crosses an interval of positions: sum by differences.
    steps = np.zeros(count + 2)
    crossing: list[list[str]] = [[] for _ in range(count + 1)]
    for name, made_by in graph.producer.items():
        first, last = made_by + 1, max(graph.consumers[name], default=made_by)
        if first > last:
            continue
        for names in crossing[first : last + 1]:
            names.append(name)
        steps[first] += costs.wire_nbytes[name]
        steps[last + 1] -= costs.wire_nbytes[name]
    return Table(
        head_s=_before(costs.edge_s),
        tail_s=_after(costs.cloud_s),
        up_nbytes=np.cumsum(steps)[: count + 1],
        down_nbytes=_after(costs.reply_nbytes),
        weight_nbytes=_before(costs.weight_nbytes),
        depths=_depths(graph, crossing),
        complete=np.arange(count + 1) == count,
        barred=_barred(costs, crossing),
    )


def set_table(graph: Graph, costs: Costs, heads: Bools, *, start: int) -> Table:
    """Closed sets that hold all nodes before `start` and none from `start + width` on.

    `heads` is [sets, width]: whether node start + j is in the head.
    """
    count, width = heads.shape
    end = start + width
    member = heads.astype(np.float64)
    up = np.zeros(count)
    crossing: list[list[str]] = [[] for _ in range(count)]
    for name, made_by in graph.producer.items():
        users = graph.consumers[name]
        if not users or made_by >= end or max(users) < start:
            continue
        crosses = _crosses(heads, made_by - start, [user - start for user in users])
        up[crosses] += costs.wire_nbytes[name]
        for row in np.flatnonzero(crosses):
            crossing[row].append(name)

    def head_sum(values: Floats) -> Floats:
        # One node after the other, like the positions' cumulative sums: a matrix product or a
        # pairwise sum would round differently from one processor to the next, and with it cuts
        # that must be the same on every machine.
        total = np.full(count, _before(values)[start])
        for offset in range(width):
            total += member[:, offset] * values[start + offset]
        return total

    return Table(
        head_s=head_sum(costs.edge_s),
        tail_s=_before(costs.cloud_s)[-1] - head_sum(costs.cloud_s),
        up_nbytes=up,
        down_nbytes=_before(costs.reply_nbytes)[-1] - head_sum(costs.reply_nbytes),
        weight_nbytes=head_sum(costs.weight_nbytes),
        depths=_depths(graph, crossing),
        complete=member.sum(axis=1) == len(graph.nodes) - start,
        barred=_barred(costs, crossing),
    )


def _depths(graph: Graph, crossing: Sequence[Sequence[str]]) -> Ints:
    shape = len(crossing), len(graph.inputs)
    return np.array([graph.veils.depths(names) for names in crossing], np.int64).reshape(shape)


def _barred(costs: Costs, crossing: Sequence[Sequence[str]]) -> Bools:
    return np.array([not costs.barred.isdisjoint(names) for names in crossing])


def _crosses(heads: Bools, made_by: int, users: Sequence[int]) -> Bools:
    """In which sets a tensor crosses; indices are relative to the columns of `heads`."""
    count, width = heads.shape
    made: Bools = np.ones(count, dtype=bool) if made_by < 0 else heads[:, made_by]
    if any(user >= width for user in users):
        return made
    within = [user for user in users if user >= 0]
    crosses: Bools = np.logical_and(made, ~np.all(heads[:, within], axis=1))
    return crosses


def _before(values: NDArray[Any]) -> Floats:
    """Sum of the first p values, for p in 0..n."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _after(values: NDArray[Any]) -> Floats:
    """Sum of the values from p on, for p in 0..n."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
