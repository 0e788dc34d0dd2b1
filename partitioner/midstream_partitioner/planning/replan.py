"""Replanning: the gain of other cuts than the present ones, now that more is known.

A partition is made for ranges of conditions. When link and devices have left them, or the
measured times differ from those that the cuts were chosen by, some other cut may be better
than all of the partition's. This prices both on one scale, and says when it is worth it.

Pure: belief and times come in as values, and so does the time of day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import final

import numpy as np

from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Bucket, Profile, Stat
from midstream_partitioner.graph.cuts import Cut, cut_of
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.partition.memory_estimate import expected_memory, most_weights
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import (
    MOST_CUTS,
    Ranges,
    barred_tensors,
    choose_cuts,
    permits,
    static_profile,
    wire_nbytes,
)
from midstream_partitioner.planning.constraints import UNCONSTRAINED, Constraints
from midstream_partitioner.search.cost_table import Table, costs_of, set_table
from midstream_partitioner.search.min_cut import CutSearch, Limits, unpack

#: What another partition must promise over the best plan of the present one: its times and
#: payloads are estimates, and making it takes a second of a processor on either side, and
#: twice the memory for a while.
MIN_GAIN = 0.15
#: Seconds for which it must go on promising that: a dip of the link is over sooner.
HOLD_S = 10.0
#: Seconds from one partition to the next.
EVERY_S = 60.0

#: The conditions around the present ones over which the new cuts are chosen: the link moves
#: on, and a partition for this very moment would soon be the wrong one again.
_AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)
_RATIOS_AROUND = (0.5, 1.0, 2.0)


@final
@dataclass(frozen=True, slots=True)
class Better:
    """Cuts that promise `promised_s`, where the best plan of the present ones takes
    `present_s`, by the same estimates."""

    cuts: tuple[Cut, ...]
    present_s: float
    promised_s: float

    @property
    def gain(self) -> float:
        """Return how much longer the present one takes; 0.2 = a fifth."""
        return self.present_s / self.promised_s - 1


@final
class Replanner:
    """A search for cuts of `graph` better than those of `part`, by the profiles given.

    `known_nbytes` is what crosses the partition's cuts with the best codec allowed, by the
    cut's id; a cut that is missing there allows none. `elsewhere_nbytes` is the same with the
    codecs that would be allowed where nothing is calibrated (without it, the former): what is
    estimated of other cuts is corrected by it. Making one takes some 10 ms, asking it 1 ms.
    """

    def __init__(
        self,
        graph: Graph,
        part: Partition,
        *,
        edge_s: Sequence[float],
        cloud_s: Sequence[float],
        known_nbytes: Mapping[str, float] | None = None,
        elsewhere_nbytes: Mapping[str, float] | None = None,
        constraints: Constraints = UNCONSTRAINED,
        edge: Profile | None = None,
    ) -> None:
        """`edge_s` and `cloud_s` are seconds by node index (`node_seconds`).

        By the profile `edge`, limits of memory are understood as limits of weights.
        """
        self._graph = graph
        self._constraints = constraints
        self._cloud_s = tuple(cloud_s)
        self._ratio = max(sum(edge_s) / max(sum(cloud_s), 1e-9), 1e-3)
        barred = barred_tensors(graph, constraints)
        known = known_nbytes or {}
        wire = _estimates(graph, part, constraints, known, elsewhere_nbytes or known)
        self._search = CutSearch(
            graph, costs_of(graph, edge_s, cloud_s, wire_nbytes=wire, forbidden=barred)
        )
        most = float("inf")
        if constraints.max_edge_nbytes is not None:
            most = float(constraints.max_edge_nbytes)
            most = most if edge is None else most_weights(part, edge, most)
        self._limits = Limits(
            most,
            constraints.min_depth,
            tuple(map(graph.inputs.index, constraints.secret_of(part))),
        )
        self._held = frozenset(cut.head for cut in part.cuts)
        self._present = self._rows(part.cuts, known if known_nbytes else None)

    def better(
        self, link: Link, *, edge_scale: float = 1.0, cloud_scale: float = 1.0
    ) -> Better | None:
        """The cuts to go over to on this link, if they promise `MIN_GAIN` or more.

        The scales are how much slower the devices are than their profiles say. Raises
        `PlanError` where no placement keeps to the constraints.
        """
        scales = {"edge_slowdown": edge_scale, "cloud_slowdown": cloud_scale}
        present_s = self._least(self._present, link, scales)
        best = self._search.best(link, limits=self._limits, **scales)
        if present_s <= best.latency_s * (1 + MIN_GAIN) or not self._is_news(best.head):
            return None
        cuts = self._around(link, best.head, edge_scale / cloud_scale)
        return Better(cuts, present_s, best.latency_s)

    def _is_news(self, head: frozenset[int]) -> bool:
        """Return True if `head` may be cut off, and is not already."""
        cut, most = cut_of(self._graph, head), self._constraints.max_payload_nbytes
        sent_nbytes = float(self._rows([cut], None).up_nbytes[0])
        fits = cut.is_edge_only or most is None or sent_nbytes <= most
        return head not in self._held and fits and permits(self._constraints, cut)

    def _around(self, link: Link, head: frozenset[int], slower: float) -> tuple[Cut, ...]:
        """The best cut, and those that win nearby and are nested with it."""
        near = choose_cuts(
            self._graph,
            self._cloud_s,
            ranges=Ranges(
                tuple(factor * link.uplink_bps for factor in _AROUND),
                tuple(factor * self._ratio * slower for factor in _RATIOS_AROUND),
                (link.rtt_s,),
            ),
            max_cuts=MOST_CUTS - 1,
            constraints=self._constraints,
        )
        best = cut_of(self._graph, head)
        others = [cut for cut in near if cut.head < best.head or cut.head > best.head]
        return tuple(sorted((best, *others), key=lambda cut: len(cut.head)))

    def _rows(self, cuts: Sequence[Cut], known_nbytes: Mapping[str, float] | None) -> Table:
        bits = [sum(1 << index for index in cut.head) for cut in cuts]
        heads = unpack(bits, len(self._graph.nodes))
        rows = set_table(self._graph, self._search.costs, heads, start=0)
        if known_nbytes is None:
            return rows
        sent = [0.0 if c.is_edge_only else known_nbytes.get(c.id, np.inf) for c in cuts]
        return replace(rows, up_nbytes=np.array(sent))

    def _least(self, rows: Table, link: Link, scales: Mapping[str, float]) -> float:
        latency_s = rows.price_s(link, **scales)
        kept = rows.weight_nbytes <= self._limits.max_edge_nbytes
        kept &= rows.hides(self._limits.secret, self._limits.min_depth)
        return float(latency_s[kept].min(initial=float("inf")))


@final
@dataclass(frozen=True, slots=True)
class Watch:
    """The rule for acting on a gain: it must hold for a while, and not too often.

    `since_s` is since when something better was promised without a break, `last_s` when a
    partition was last asked for.
    """

    since_s: float | None = None
    last_s: float = float("-inf")

    def look(self, now_s: float, *, better: bool) -> tuple[Watch, bool]:
        """The watch after a look, and whether to make a partition now."""
        if not better:
            return replace(self, since_s=None), False
        since_s = now_s if self.since_s is None else self.since_s
        if now_s - since_s < HOLD_S or now_s - self.last_s < EVERY_S:
            return replace(self, since_s=since_s), False
        return Watch(None, now_s), True


def _estimates(
    graph: Graph,
    part: Partition,
    constraints: Constraints,
    known_nbytes: Mapping[str, float],
    elsewhere_nbytes: Mapping[str, float],
) -> dict[str, float]:
    """Return what each tensor may take on the uplink, by what is known at the cuts of `part`.

    What crosses one of them takes what was measured there. What crosses elsewhere takes as
    much more than its estimate as those did on the whole: their median.
    """
    wire = dict(wire_nbytes(graph, constraints))
    inner = [(cut, sum(wire[name] for name in cut.tensors)) for cut in part.cuts[1:-1]]
    ratios = [
        elsewhere_nbytes[cut.id] / estimated
        for cut, estimated in inner
        if cut.id in elsewhere_nbytes and estimated > 0
    ]
    factor = median(ratios) if ratios else 1.0
    inputs = set(graph.inputs)
    wire = {name: size if name in inputs else factor * size for name, size in wire.items()}
    for cut in part.cuts[:-1]:
        raw = sum(graph.tensors[name].nbytes for name in cut.tensors)
        for name in cut.tensors if cut.id in known_nbytes and raw else ():
            wire[name] = known_nbytes[cut.id] * graph.tensors[name].nbytes / raw
    return wire


def node_seconds(graph: Graph, part: Partition, profile: Profile) -> tuple[float, ...]:
    """Seconds by node index: each segment's measured time, shared out as arithmetic says.

    What the profile does not cover takes as much longer as all it does cover.
    """
    static_s = static_profile(graph)
    shares = [sum(static_s[node] for node in segment.nodes) for segment in part.segments]
    covered = len(profile.segments)
    usual = profile.segments_s(0, covered) / max(sum(shares[:covered]), 1e-12)
    seconds = [0.0] * len(graph.nodes)
    for segment, share_s in zip(part.segments, shares, strict=True):
        scale = usual
        if segment.index < covered and share_s > 0:
            scale = profile.segments[segment.index].median_s / share_s
        for node in segment.nodes:
            seconds[node] = scale * static_s[node]
    return tuple(seconds)


def estimated_profile(graph: Graph, old: Partition, part: Partition, like: Profile) -> Profile:
    """Return what `like`, of `old`, lets expect of another partition of `graph`, at all its
    sizes.

    Segments take the sum of their nodes; codecs are those known at cuts that both have.
    Replies shrink on the wire as that of the whole network does.
    """
    first, *others = (
        _estimated(part, node_seconds(graph, old, like.holding(bucket)), bucket)
        for bucket in like.buckets
    )
    memory = expected_memory(old, like, part)
    found = like.holding(first, others)
    return replace(found, partition_digest=part.digest, memory_nbytes=memory)


def _estimated(part: Partition, node_s: Sequence[float], like: Bucket) -> Bucket:
    whole = sum(spec.nominal_nbytes for spec in part.outputs_from(0))
    shrunk = like.replies_nbytes[0] / whole if whole else 1.0
    ids = {cut.id for cut in part.cuts}
    sums = [sum(node_s[node] for node in segment.nodes) for segment in part.segments]
    return replace(
        like,
        segments=tuple(Stat(seconds, seconds, seconds, 0) for seconds in sums),
        codecs=tuple(cost for cost in like.codecs if cost.cut in ids),
        crossings_nbytes=(),
        replies_nbytes=tuple(
            round(shrunk * sum(spec.nominal_nbytes for spec in part.outputs_from(k)))
            for k in range(len(part.cuts))
        ),
    )
