"""Choice of cuts before anything is known of link and devices.

A plan chooses among the cuts of a partition; here the partition's cuts are chosen, from the
time of each layer and an estimate of what each tensor takes on the wire, over ranges of
conditions. Everything is deterministic to the last bit: two machines with the same network
and the same times cut it at the same places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from math import inf
from typing import final

import numpy as np

from midstream_partitioner.codec_spec import is_lossless
from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.cuts import Cut, cut_of
from midstream_partitioner.graph.graph import INPUT, Graph
from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.graph.veils import secret_inputs
from midstream_partitioner.planning.constraints import UNCONSTRAINED, Constraints
from midstream_partitioner.search.blocks import bits_of
from midstream_partitioner.search.cost_table import Floats, Table, costs_of, join, set_table
from midstream_partitioner.search.min_cut import CutSearch, Limits, unpack
from midstream_wire.codecs import codec
from midstream_wire.errors import PlanError

# A static profile's device: one core of a recent processor under onnxruntime. Only the ratio
# of the two rates matters, and it little: tensor sizes decide which cuts can win.
FLOPS_PER_S = 5e10
BYTES_PER_S = 1e10
#: Dispatch of one operator.
NODE_S = 2e-6

#: Operators of one activation that a runtime computes along with the layer before them, at
#: no time of their own. A cut belongs behind them, not between.
FUSED = frozenset({"Add", "BatchNormalization", "Clip", "LeakyRelu", "Mul", "Relu", "Sigmoid"})

#: Estimated share of a tensor's raw bytes on the wire: floats in half precision, packed where
#: rectifiers leave zeros, pictures as JPEG of quality 90 (about 3 of 24 bits per pixel). Only
#: for choosing cuts: plans rest on payloads measured with the real codecs.
FLOAT_SHARE = 0.5
RECTIFIED_SHARE = 0.4
PICTURE_SHARE = 0.12
#: Without loss activations and pictures alike shrink little (0.6 to 0.85 was measured).
LOSSLESS_SHARE = 0.8
#: Two bytes are packed without loss: 0.51 in float16, 0.41 in bfloat16 (measured, medians over
#: four trained networks), and 0.80 and 0.63 where nothing rectifies.
RECTIFIED_HALF_SHARE = 0.5
RECTIFIERS = frozenset({"Relu", "Clip"})

#: Five leave no scenario of any reference network 1 % from the best; four leave MobileNetV2
#: 12 % from it in one (docs/explanation/planning.md has the table).
MOST_CUTS = 5

#: A cut joins only if it makes some scenario this much faster: handing a tensor from one
#: segment to the next costs every placement 1-5 % (benchmarks/chain.py).
MIN_GAIN = 0.05

#: Inputs of which each is secret by itself in scenarios of its own.
MOST_SECRETS = 4

#: Regret counts up to here: a placement ten times too slow is as useless as one 100 times.
MOST_REGRET = 10.0

#: Latency of what is not allowed: longer than anything, and finite, so that scenarios in which
#: nothing is allowed come out level.
NEVER_S = 1e12


@final
@dataclass(frozen=True, slots=True)
class Ranges:
    """The conditions under which cuts compete: every combination is one scenario.

    The cloud runs at the layer times as given, the edge `ratios` times slower. All costs grow
    alike when both sides are slower and the link is too, so the range of bandwidths covers the
    absolute speed of the devices as well. The downlink is twice the uplink, as on LTE.
    Written out, not computed by powers, which round differently from one libm to the next.
    """

    uplinks_bps: tuple[float, ...] = (
        *(1e5, 1.8e5, 3.2e5, 5.6e5, 1e6, 1.8e6, 3.2e6, 5.6e6),
        *(1e7, 1.8e7, 3.2e7, 5.6e7, 1e8, 1.8e8, 3.2e8, 5.6e8, 1e9),
    )
    ratios: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    rtts_s: tuple[float, ...] = (0.001, 0.04)


RANGES = Ranges()


@final
@dataclass(frozen=True, slots=True)
class _Scenario:
    link: Link
    ratio: float
    limits: Limits


def static_profile(graph: Graph) -> tuple[float, ...]:
    """Seconds by node index from arithmetic and bytes alone: nothing is measured.

    The larger of the time to compute and the time to move inputs, outputs and weights, plus
    the dispatch (the roofline of Williams, Waterman and Patterson, CACM 2009).
    """
    return tuple(
        0.0 if _is_fused(graph, node) else NODE_S + _roofline_s(graph, node)
        for node in graph.nodes
    )


def wire_nbytes(graph: Graph, constraints: Constraints = UNCONSTRAINED) -> Mapping[str, float]:
    """Return what each tensor is estimated to take on the uplink, by name, with codecs
    allowed.
    """
    named = constraints.codecs or ()
    if named and all(name == "raw" for name in named):
        return {name: float(tensor.nbytes) for name, tensor in graph.tensors.items()}
    exact = constraints.lossless or (bool(named) and all(map(is_lossless, named)))
    return {
        name: tensor.nbytes * _share(graph, tensor, exact=exact)
        for name, tensor in graph.tensors.items()
    }


def barred_tensors(graph: Graph, constraints: Constraints) -> tuple[str, ...]:
    """Names of the tensors that `constraints` forbid to cross."""
    return tuple(name for name in graph.tensors if _matches(constraints.forbidden, [name]))


def permits(constraints: Constraints, cut: Cut) -> bool:
    """Return True if no pattern forbids `cut` by its id or label."""
    return not _matches(constraints.forbidden, [cut.id, cut.label])


def choose_cuts(
    graph: Graph,
    layer_s: Sequence[float],
    *,
    others: Sequence[tuple[Graph, Sequence[float]]] = (),
    ranges: Ranges = RANGES,
    max_cuts: int = MOST_CUTS,
    min_gain: float = MIN_GAIN,
    constraints: Constraints = UNCONSTRAINED,
) -> tuple[Cut, ...]:
    """The few cuts inside the network that can ever win, each within the next.

    `layer_s` are seconds by node index. `others` are the same graph at other sizes of its open
    dimensions, with its times there: every scenario is then one at each size. Candidates are
    all positions of the execution order and the minimum cuts of every scenario, with the
    inputs free to leave the device, none of them (but those that are public), and all but one.
    Greedily, the cut that is nested with those chosen and lowers the mean regret over all
    scenarios most joins, until no cut makes any scenario `min_gain` faster. Edge-only and
    cloud-only always exist and are what the cuts are held against.

    Raises `UsageError` unless there is one time for each node, and for public inputs that
    `graph` does not have.
    """
    barred = barred_tensors(graph, constraints)
    searches = [
        CutSearch(
            each,
            costs_of(
                each,
                seconds,
                seconds,
                wire_nbytes=wire_nbytes(each, constraints),
                forbidden=barred,
            ),
        )
        for each, seconds in ((graph, layer_s), *others)
    ]
    most = inf if constraints.max_edge_nbytes is None else constraints.max_edge_nbytes
    secret = _indices(graph, secret_inputs(graph.inputs, constraints.public))
    scenarios = _scenarios(ranges, Limits(most, constraints.min_depth, secret))
    heads = _heads(searches, scenarios)
    tables = [_rows(search, heads) for search in searches]
    latency_s = np.stack([_price(table, each) for table in tables for each in scenarios])
    table = tables[0]
    inner = [
        row
        for row, head in enumerate(heads)
        if 0 < head.bit_count() < len(graph.nodes)
        and not table.barred[row]
        and _is_permitted(constraints, graph, head)
    ]
    if not inner:
        return ()
    trivial_s = latency_s[:, [0, len(graph.nodes)]].min(axis=1)
    race = _Race(heads, inner, latency_s, trivial_s)
    chosen = race.choose(max_cuts, min_gain)
    return tuple(cut_of(graph, bits_of(head)) for head in sorted(chosen, key=int.bit_count))


def _is_fused(graph: Graph, node: Node) -> bool:
    """Return True if a runtime computes `node` as part of the one layer it follows."""
    makers = [graph.producer[name] for name in node.inputs]
    if node.op_type not in FUSED or len(makers) != 1 or INPUT in makers:
        return False
    before = graph.nodes[makers[0]]
    alone = len(graph.consumers[node.inputs[0]]) == 1
    return alone and (before.layer or _is_fused(graph, before))


def _roofline_s(graph: Graph, node: Node) -> float:
    moved = sum(graph.tensors[name].nbytes for name in (*node.inputs, *node.outputs))
    return max(node.flops / FLOPS_PER_S, (moved + node.weight_nbytes) / BYTES_PER_S)


def _share(graph: Graph, tensor: Tensor, *, exact: bool) -> float:
    made_by = graph.producer[tensor.name]
    if exact:
        return LOSSLESS_SHARE
    rectified = made_by != INPUT and graph.nodes[made_by].op_type in RECTIFIERS
    if tensor.dtype in ("float32", "float64"):
        return RECTIFIED_SHARE if rectified else FLOAT_SHARE
    if tensor.dtype in ("float16", "bfloat16"):
        return RECTIFIED_HALF_SHARE if rectified else LOSSLESS_SHARE
    if (
        tensor.dtype == "uint8"
        and made_by == INPUT
        and codec("jpeg").accepts(tensor.dtype, tensor.nominal)
    ):
        return PICTURE_SHARE
    return 1.0


def _matches(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _is_permitted(constraints: Constraints, graph: Graph, head: int) -> bool:
    return not constraints.forbidden or permits(constraints, cut_of(graph, bits_of(head)))


def _scenarios(ranges: Ranges, limits: Limits) -> tuple[_Scenario, ...]:
    private = [
        replace(limits, min_depth=max(limits.min_depth, 1), secret=secret)
        for secret in _secrets(limits.secret or ())
    ]
    return tuple(
        _Scenario(Link(uplink_bps, 2 * uplink_bps, rtt_s), ratio, kept)
        for uplink_bps, ratio, rtt_s, kept in product(
            ranges.uplinks_bps, ranges.ratios, ranges.rtts_s, dict.fromkeys((limits, *private))
        )
    )


def _secrets(secret: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    """Return what may turn out to be secret: all of it, or one input and the others public."""
    return (secret, *((each,) for each in secret[:MOST_SECRETS] if len(secret) > 1))


def _indices(graph: Graph, names: Iterable[str]) -> tuple[int, ...]:
    return tuple(map(graph.inputs.index, names))


def _heads(searches: Sequence[CutSearch], scenarios: Sequence[_Scenario]) -> list[int]:
    """All positions, then the winners that are none, as bits of nodes."""
    count = len(searches[0].graph.nodes)
    heads = dict.fromkeys((1 << position) - 1 for position in range(count + 1))
    for search, scenario in product(searches, scenarios):
        try:
            best = search.best(
                scenario.link, edge_slowdown=scenario.ratio, limits=scenario.limits
            )
        except PlanError:
            continue
        heads.setdefault(sum(1 << index for index in best.head))
    return list(heads)


def _rows(search: CutSearch, heads: Sequence[int]) -> Table:
    """A row for each of `heads`, which begin with all positions."""
    count = len(search.graph.nodes)
    beyond = heads[count + 1 :]
    if not beyond:
        return search.positions
    rows = set_table(search.graph, search.costs, unpack(beyond, count), start=0)
    return join([search.positions, rows])


def _price(table: Table, scenario: _Scenario) -> Floats:
    """Latency of every row; what the limits rule out takes `NEVER_S`."""
    latency_s = table.price_s(scenario.link, edge_slowdown=scenario.ratio)
    kept = table.weight_nbytes <= scenario.limits.max_edge_nbytes
    kept &= table.hides(scenario.limits.secret, scenario.limits.min_depth)
    latency_s[~kept] = NEVER_S
    return latency_s


@final
class _Race:
    """The greedy choice among rows of a pool; latencies are [scenarios, rows]."""

    def __init__(
        self, heads: Sequence[int], inner: Sequence[int], latency_s: Floats, trivial_s: Floats
    ) -> None:
        self._heads = heads
        self._inner = inner
        self._latency_s = latency_s
        self._held_s = trivial_s
        self._best_s = np.minimum(trivial_s, latency_s[:, inner].min(axis=1))

    def choose(self, max_cuts: int, min_gain: float) -> list[int]:
        """Heads in the order in which they were chosen."""
        chosen: list[int] = []
        while len(chosen) < max_cuts:
            open_rows = [row for row in self._inner if self._nests(row, chosen)]
            if not open_rows:
                break
            improved_s = np.minimum(self._held_s[:, None], self._latency_s[:, open_rows])
            useful = (self._held_s[:, None] > improved_s * (1 + min_gain)).any(axis=0)
            if not useful.any():
                break
            # Rounded, so that rows level but for rounding go to the first of them.
            regret = np.round(self._regret(improved_s), 9)
            pick = int(np.where(useful, regret, inf).argmin())
            self._held_s = improved_s[:, pick]
            chosen.append(self._heads[open_rows[pick]])
        return chosen

    def _regret(self, latency_s: Floats) -> Floats:
        """Sum over scenarios of how much slower than the best of all rows, by column."""
        total = np.zeros(latency_s.shape[1])
        for best_s, row_s in zip(self._best_s, latency_s, strict=True):
            total += np.minimum(row_s / best_s - 1, MOST_REGRET)
        return total

    def _nests(self, row: int, chosen: Sequence[int]) -> bool:
        head = self._heads[row]
        return all(head != other and head & other in (head, other) for other in chosen)
