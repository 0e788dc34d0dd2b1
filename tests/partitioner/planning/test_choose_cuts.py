"""Choosing the cuts of a partition, and the times and sizes that the choice rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.cuts import Cut, cut_of
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.planning.choose_cuts import (
    RANGES,
    choose_cuts,
    static_profile,
    wire_nbytes,
)
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.search.cost_table import costs_of
from midstream_partitioner.search.min_cut import CutSearch, Limits
from midstream_wire.errors import PlanError

RandomGraph = Callable[..., Graph]

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def chain(steps: Sequence[tuple[str, int, float]]) -> tuple[Graph, list[float]]:
    """A straight network on a picture of 224 x 224: (op_type, floats it makes, seconds)."""
    tensors = {"x": Tensor("x", "uint8", (1, 224, 224, 3), (1, 224, 224, 3))}
    nodes = []
    for index, (op_type, size, _) in enumerate(steps):
        tensors[f"t{index}"] = Tensor(f"t{index}", "float32", (size,), (size,))
        nodes.append(
            Node(
                index=index,
                name=f"n{index}",
                op_type=op_type,
                inputs=(f"t{index - 1}" if index else "x",),
                outputs=(f"t{index}",),
                weight_nbytes=1000,
                flops=1000,
                layer=op_type == "Conv",
            )
        )
    last = f"t{len(steps) - 1}"
    graph = Graph("chain", tuple(nodes), tensors, ("x",), (last,), "0" * 64)
    return graph, [seconds for *_, seconds in steps]


def regrets(graph: Graph, layer_s: Sequence[float], cuts: Sequence[Cut]) -> list[float]:
    """How much slower than the best closed set the best of `cuts` is, scenario by scenario."""
    costs = costs_of(graph, layer_s, layer_s, wire_nbytes=wire_nbytes(graph))
    search = CutSearch(graph, costs)
    total = float(np.cumsum(layer_s)[-1]) if layer_s else 0.0
    found = []
    for uplink_bps in RANGES.uplinks_bps:
        for ratio in RANGES.ratios:
            link = Link(uplink_bps, 2 * uplink_bps, 0.001)
            for depth in (0, 1):
                limits = Limits(min_depth=depth)
                best = search.best(link, edge_slowdown=ratio, limits=limits)
                held = [total * ratio]
                for head in [frozenset(range(0)), *(cut.head for cut in cuts)]:
                    cut = cut_of(graph, head)
                    up = sum(wire_nbytes(graph)[name] for name in cut.tensors)
                    down = sum(
                        graph.tensors[name].nbytes
                        for name in graph.outputs
                        if graph.producer[name] not in head
                    )
                    compute = sum(
                        s * (ratio if i in head else 1) for i, s in enumerate(layer_s)
                    )
                    sent = up * 8 / uplink_bps + down * 4 / uplink_bps
                    if cut.depth_of(graph.inputs) >= depth:
                        held.append(compute + sent + link.rtt_s + link.fixed_s)
                found.append(min(held) / best.latency_s - 1)
    return found


def test_chosen_cuts_lie_within_one_another_on_random_networks(
    random_graph: RandomGraph,
) -> None:
    chosen = 0
    for seed in range(40):
        graph = random_graph(seed, least_nodes=5, most_nodes=14)
        cuts = choose_cuts(graph, static_profile(graph))
        assert all(one.head < other.head for one, other in pairwise(cuts))
        assert all(0 < len(cut.head) < len(graph.nodes) for cut in cuts)
        chosen += len(cuts)
    assert chosen > 15


def test_the_chosen_cuts_leave_almost_no_regret_on_a_straight_network() -> None:
    steps = [
        ("Conv", 400_000, 0.010),
        ("Relu", 400_000, 0.0),
        ("Conv", 40_000, 0.015),
        ("Conv", 60_000, 0.015),
        ("Conv", 5_000, 0.015),
        ("Conv", 50_000, 0.02),
        ("Gemm", 1000, 0.005),
    ]
    graph, layer_s = chain(steps)
    cuts = choose_cuts(graph, layer_s)
    assert max(regrets(graph, layer_s, cuts)) < 0.01
    assert max(regrets(graph, layer_s, ())) > 0.5


def test_the_cut_lies_behind_the_rectifier_and_not_between() -> None:
    steps = [("Conv", 2000, 0.01), ("Relu", 2000, 0.0), ("Conv", 400_000, 0.05)]
    graph, layer_s = chain(steps)
    (cut,) = choose_cuts(graph, layer_s)
    assert cut.label == "after n1"


def test_where_no_cut_ever_wins_none_is_chosen() -> None:
    """Activations far larger than the picture: send the picture, or stay at home."""
    graph, layer_s = chain([("Add", 10**8, 0.01), ("Mul", 10**8, 0.01), ("Add", 10, 0.001)])
    assert choose_cuts(graph, layer_s) == ()


def test_the_number_of_cuts_is_bounded() -> None:
    steps = [("Conv", 10 ** (6 - step // 2), 0.02) for step in range(8)]
    graph, layer_s = chain([*steps, ("Conv", 10, 0.01)])
    every = choose_cuts(graph, layer_s, max_cuts=9)
    assert len(every) > 2
    assert len(choose_cuts(graph, layer_s, max_cuts=2)) == 2
    assert choose_cuts(graph, layer_s, max_cuts=0) == ()


def test_constraints_bind_the_choice() -> None:
    steps = [("Conv", 10 ** (6 - step // 2), 0.02) for step in range(8)]
    graph, layer_s = chain([*steps, ("Conv", 10, 0.01)])
    free = choose_cuts(graph, layer_s)
    for constraints in (
        Constraints(forbidden=frozenset({free[0].id})),
        Constraints(forbidden=frozenset(free[0].tensors)),
        Constraints(max_edge_nbytes=1000 * (len(free[0].head) - 1)),
        Constraints(min_depth=free[0].depth_of(graph.inputs) + 1),
    ):
        cuts = choose_cuts(graph, layer_s, constraints=constraints)
        assert free[0].id not in {cut.id for cut in cuts}
    held = choose_cuts(graph, layer_s, constraints=Constraints(max_edge_nbytes=3000))
    assert all(len(cut.head) <= 3 for cut in held)


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "inception_v1"])
def test_a_bare_model_is_cut_at_the_same_few_places_every_time(name: str) -> None:
    model = (LIGHT / f"light_{name}.onnx").read_bytes()
    first = load_network(model).graph
    cuts = choose_cuts(first, static_profile(first))
    again = load_network(model).graph
    assert cuts == choose_cuts(again, static_profile(again))
    assert 1 <= len(cuts) <= 5
    assert all(one.head < other.head for one, other in pairwise(cuts))
    assert all(cut.depth_of(first.inputs) >= 1 for cut in cuts)


def test_a_static_profile_gives_time_to_all_but_what_is_fused() -> None:
    graph, _ = chain([("Conv", 10, 0), ("Relu", 10, 0), ("MaxPool", 10, 0), ("Relu", 10, 0)])
    times = static_profile(graph)
    assert [seconds > 0 for seconds in times] == [True, False, True, True]


def test_tensors_are_estimated_as_their_codecs_would_send_them() -> None:
    graph, _ = chain([("Conv", 1000, 0), ("Relu", 1000, 0)])
    wire = wire_nbytes(graph)
    assert wire["x"] == pytest.approx(224 * 224 * 3 * 0.12)
    assert wire["t0"] == pytest.approx(4000 * 0.5)
    assert wire["t1"] == pytest.approx(4000 * 0.4)


def test_a_flow_agrees_with_the_table_on_a_network_of_branches() -> None:
    graph = load_network(LIGHT / "light_squeezenet.onnx").graph
    layer_s = static_profile(graph)
    costs = costs_of(graph, layer_s, layer_s, wire_nbytes=wire_nbytes(graph))
    listed, flows = CutSearch(graph, costs), CutSearch(graph, costs, listed_sets=0)
    for uplink_bps in RANGES.uplinks_bps:
        for ratio in RANGES.ratios:
            link = Link(uplink_bps, uplink_bps, 0.01)
            one = listed.best(link, edge_slowdown=ratio)
            other = flows.best(link, edge_slowdown=ratio)
            assert one.latency_s == pytest.approx(other.latency_s, rel=1e-9)


def test_a_limit_that_rules_all_out_leaves_no_cut(random_graph: RandomGraph) -> None:
    graph = random_graph(3, least_nodes=9)
    none = Constraints(max_edge_nbytes=0, forbidden=frozenset({"*"}))
    assert choose_cuts(graph, static_profile(graph), constraints=none) == ()
    search = CutSearch(graph, costs_of(graph, *[static_profile(graph)] * 2))
    with pytest.raises(PlanError):
        search.best(Link(1e6, 1e6, 0.0), limits=Limits(max_edge_nbytes=-1.0))
