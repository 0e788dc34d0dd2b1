"""A published choice and the planner's, side by side.

The planner is the one that searches networks for cuts (`CutSearch`). As in the papers, what
crosses is raw, a transfer takes bytes over rate and nothing else, and the answer is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal, final

import numpy as np

from midstream_lab.papers.devices import Declared
from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.search.cost_table import Floats, Table, costs_of, position_table
from midstream_partitioner.search.min_cut import CutSearch
from midstream_wire.errors import UsageError

#: What a paper reports when it names no layer, but an answer faster than both trivial cuts.
SPLIT = "a split"

#: Figures read off a chart carry some 2 % each: cuts this close are as good as each other.
LEVEL = 0.03

#: A speedup this close to the published one is the same: papers round, and charts are read.
SAME_GAIN = 0.1

Verdict = Literal["agrees", "level", "differs", "not known"]


@final
@dataclass(frozen=True, slots=True)
class Reported:
    """A paper's report of a case: the cut, and its gain over either trivial one.

    `cut` is the name of the last layer on the edge, or cloud-only, edge-only, or `SPLIT`, None
    where nothing is known of it. `source` tells where the paper says so.
    """

    cut: str | None = None
    over_edge: float | None = None
    over_cloud: float | None = None
    source: str = ""


NOTHING = Reported()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network between two declared devices, over a link of `uplink_bps`."""

    paper: str
    graph: Graph
    edge: Declared
    cloud: Declared
    link: str
    uplink_bps: float
    reported: Reported = NOTHING


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The planner's pick in a case, beside the paper's report.

    `reported_s` is the planner's price of the paper's cut, None where it names none.
    """

    case: Case
    choice: str
    latency_s: float
    edge_only_s: float
    cloud_only_s: float
    reported_s: float | None

    @property
    def over_edge(self) -> float:
        """Return how many times faster than edge-only."""
        return self.edge_only_s / self.latency_s

    @property
    def over_cloud(self) -> float:
        """Return how many times faster than cloud-only."""
        return self.cloud_only_s / self.latency_s

    @property
    def verdict(self) -> Verdict:
        """Return whether the planner would have cut as the paper did, or hardly lost by it."""
        if self.reported_s is None:
            return "not known"
        if self.choice == self.case.reported.cut or self.reported_s == self.latency_s:
            return "agrees"
        return "level" if self.reported_s <= self.latency_s * (1 + LEVEL) else "differs"

    @property
    def gain(self) -> float | None:
        """The speedup over a trivial cut in parts of the published one, of two published ones
        the one that is further off; None where none was published."""
        reported = self.case.reported
        shares = [
            ours / theirs
            for ours, theirs in (
                (self.over_edge, reported.over_edge),
                (self.over_cloud, reported.over_cloud),
            )
            if theirs is not None
        ]
        return max(shares, key=lambda share: abs(log(share)), default=None)

    @property
    def told(self) -> str:
        """Both verdicts in words: that on the cut, and that on the speedups."""
        if self.gain is None:
            return "nothing to compare" if self.verdict == "not known" else self.verdict
        same = abs(log(self.gain)) <= log(1 + SAME_GAIN)
        gain = "gain agrees" if same else f"gain {self.gain:.0%} of the paper's"
        return f"cut {self.verdict}, {gain}"


def decide(case: Case) -> Outcome:
    """The planner's choice; `UsageError` if the case reports a cut that the network lacks."""
    graph = case.graph
    edge_s, cloud_s = case.edge.seconds(graph), case.cloud.seconds(graph)
    search = CutSearch(graph, costs_of(graph, edge_s, cloud_s))
    link = link_of(case)
    best = search.best(link)
    price_s = search.table.price_s(link)
    last = len(graph.nodes)
    return Outcome(
        case,
        choice=name_of(graph, best.head),
        latency_s=best.latency_s,
        edge_only_s=float(price_s[last]),
        cloud_only_s=float(price_s[0]),
        reported_s=_reported_s(case, price_s),
    )


def link_of(case: Case) -> Link:
    """A link as the papers have it: bytes over rate, and an answer that costs nothing."""
    return Link(case.uplink_bps, inf, rtt_s=0.0, fixed_s=0.0)


def positions_of(case: Case) -> Table:
    """Return what cutting behind the first n layers costs, a row for each n."""
    graph = case.graph
    costs = costs_of(graph, case.edge.seconds(graph), case.cloud.seconds(graph))
    return position_table(graph, costs)


def decide_all(cases: Sequence[Case]) -> tuple[Outcome, ...]:
    """The planner's choice in each case."""
    return tuple(map(decide, cases))


def name_of(graph: Graph, head: frozenset[int]) -> str:
    """A cut by the layers it comes after, as papers name it; once for two equal towers."""
    if not head:
        return CLOUD_ONLY
    if len(head) == len(graph.nodes):
        return EDGE_ONLY
    layers = dict.fromkeys(name.rpartition("/")[2] for name in graph.crossing(head))
    return " and ".join(layers)


def _reported_s(case: Case, price_s: Floats) -> float | None:
    cut, last = case.reported.cut, len(case.graph.nodes)
    if cut is None:
        return None
    if cut == SPLIT:
        return float(np.delete(price_s, [0, last]).min())
    places = {CLOUD_ONLY: 0, EDGE_ONLY: last}
    places |= {node.name: node.index + 1 for node in case.graph.nodes}
    if cut not in places:
        raise UsageError(
            f"a reported cut must be one of {', '.join(places)} of {case.graph.name} "
            f"(not {cut!r}): name the last layer on the edge"
        )
    return float(price_s[places[cut]])
