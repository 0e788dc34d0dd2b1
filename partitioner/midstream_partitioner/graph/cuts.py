"""Cuts of a model's graph.

A cut is a closed set of nodes (the head: with each node all it depends on) and the tensors
that cross from it to the rest. The prefixes of the execution order are cuts; where branches
run side by side there are exponentially many more (see `mincut`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from midstream_partitioner.graph.graph import INPUT, Graph
from midstream_partitioner.graph.veils import SEALED
from midstream_wire.errors import ModelError

CLOUD_ONLY = "cloud-only"
EDGE_ONLY = "edge-only"

#: More nodes than any network has; bounds what a manifest or a peer may claim.
MAX_NODES = 1_000_000


@final
@dataclass(frozen=True, slots=True)
class Cut:
    """A closed set of nodes and what crosses it.

    `runs` are the head's nodes as runs of indices (`runs_of`). `tensors` come in production
    order. `nbytes` is the raw size of the tensors at their nominal shapes. `depths` are, by
    input, the layers that lose information before all of them together (`veils`): 0 when
    nothing hides a form of that input.
    """

    id: str
    runs: tuple[int, ...]
    tensors: tuple[str, ...]
    label: str
    nbytes: int
    depths: tuple[tuple[str, int], ...]

    @property
    def head(self) -> frozenset[int]:
        """Indices of the nodes that run on the edge."""
        return _expand(self.runs)

    def depth_of(self, secret: Iterable[str]) -> int:
        """Return the least depth of the inputs named."""
        known = dict(self.depths)
        return min((known[name] for name in secret), default=SEALED)

    @property
    def depth(self) -> int:
        """The least depth of all inputs."""
        return self.depth_of(name for name, _ in self.depths)

    @property
    def is_cloud_only(self) -> bool:
        """Return True if the edge runs nothing: the input itself crosses."""
        return self.id == CLOUD_ONLY

    @property
    def is_edge_only(self) -> bool:
        """Return True if the edge runs everything: nothing crosses."""
        return self.id == EDGE_ONLY


def cut_of(graph: Graph, head: Iterable[int]) -> Cut:
    """The cut behind `head`; `ModelError` unless it is closed and all that crosses can be."""
    nodes = frozenset(head)
    if not graph.is_closed(nodes):
        raise ModelError(
            f"the head of a cut must hold every node it depends on; a set of {len(nodes)} "
            f"nodes of {graph.name} does not: add the producers it lacks"
        )
    tensors = graph.crossing(nodes)
    for name in tensors:
        if name in graph.fused:
            raise ModelError(
                f"a quantized operator must stay whole; {name!r} of {graph.name} lies between "
                "it and its 8-bit tensors: cut behind the QuantizeLinear or before the "
                "DequantizeLinear"
            )
        if not graph.tensors[name].carriable:
            raise ModelError(
                f"only dense tensors can cross a cut; {name!r} of {graph.name} is a "
                f"{graph.tensors[name].dtype}: cut before or after its users"
            )
    return _make(graph, runs_of(nodes), tensors)


def position_cuts(graph: Graph) -> tuple[Cut, ...]:
    """The cut at every position of the execution order, cloud-only first, edge-only last.

    Positions that a string, sequence or optional would cross are left out, and those inside
    a quantized operator.
    """
    crossing: list[list[str]] = [[] for _ in range(len(graph.nodes) + 1)]
    for name, made_by in graph.producer.items():
        for position in range(made_by + 1, max(graph.consumers[name], default=made_by) + 1):
            crossing[position].append(name)
    return tuple(
        _make(graph, (0, position) if position else (), tuple(tensors))
        for position, tensors in enumerate(crossing)
        if all(map(graph.may_cross, tensors))
    )


def runs_of(head: Iterable[int]) -> tuple[int, ...]:
    """Node indices as runs: start, end (exclusive), start, end, ..."""
    runs: list[int] = []
    for index in sorted(head):
        if runs and runs[-1] == index:
            runs[-1] = index + 1
        else:
            runs += [index, index + 1]
    return tuple(runs)


def head_of(runs: Sequence[int], *, node_count: int) -> frozenset[int]:
    """Inverse of `runs_of`; `ModelError` unless the runs ascend within `node_count`."""
    check_runs(runs, node_count=node_count)
    return _expand(runs)


def check_runs(runs: Sequence[int], *, node_count: int) -> None:
    """Raise `ModelError` unless `runs` are ascending pairs within `node_count` nodes."""
    ascending = all(a < b for a, b in zip(runs, runs[1:], strict=False))
    if len(runs) % 2 or not ascending or (runs and not 0 <= runs[0] < runs[-1] <= node_count):
        raise ModelError(
            f"runs of nodes must be ascending pairs within {node_count} nodes, "
            f"not {list(runs)[:8]}: both sides must hold the same model"
        )


def _expand(runs: Sequence[int]) -> frozenset[int]:
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return frozenset(index for start, end in pairs for index in range(start, end))


def _make(graph: Graph, runs: tuple[int, ...], tensors: tuple[str, ...]) -> Cut:
    size = sum(runs[1::2]) - sum(runs[::2])
    return Cut(
        id=_identify(graph, runs, size),
        runs=runs,
        tensors=tensors,
        label=_label(graph, size, tensors),
        nbytes=sum(graph.tensors[name].nbytes for name in tensors),
        depths=tuple(zip(graph.inputs, graph.veils.depths(tensors), strict=True)),
    )


def _identify(graph: Graph, runs: tuple[int, ...], size: int) -> str:
    if size == 0:
        return CLOUD_ONLY
    if size == len(graph.nodes):
        return EDGE_ONLY
    text = ",".join(map(str, runs))
    return f"c{size}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _label(graph: Graph, size: int, tensors: Sequence[str]) -> str:
    if size == 0:
        return "the input"
    if size == len(graph.nodes):
        return "the output"
    makers = sorted({graph.producer[name] for name in tensors})
    names = ["the input" if index == INPUT else graph.nodes[index].name for index in makers]
    shown = names[-2:]
    more = f" (+{len(names) - 2})" if len(names) > 2 else ""
    return f"after {' and '.join(shown)}{more}"
