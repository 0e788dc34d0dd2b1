"""The search for the best closed set, against every closed set there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from math import inf

import numpy as np
import pytest

from midstream_partitioner.costs.link import Link
from midstream_partitioner.graph.graph import INPUT, Graph
from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.search.cost_table import costs_of
from midstream_partitioner.search.min_cut import CutSearch, Limits
from midstream_wire.errors import PlanError, UsageError

RandomGraph = Callable[..., Graph]
ClosedSets = Callable[[Graph], Iterator[frozenset[int]]]


def latency_s(
    graph: Graph, head: frozenset[int], times: Sequence[Sequence[float]], link: Link
) -> float:
    """What a head costs, written down as plainly as possible."""
    edge_s, cloud_s = times
    total = sum(edge_s[i] if i in head else cloud_s[i] for i in range(len(graph.nodes)))
    if len(head) == len(graph.nodes):
        return total
    up = sum(graph.tensors[name].nbytes for name in graph.crossing(head))
    made_there = [
        name
        for name in graph.outputs
        if graph.producer[name] != INPUT and graph.producer[name] not in head
    ]
    down = sum(graph.tensors[name].nbytes for name in made_there)
    return (
        total
        + up * 8 / link.uplink_bps
        + down * 8 / link.downlink_bps
        + link.rtt_s
        + link.fixed_s
    )


def allowed(graph: Graph, head: frozenset[int], limits: Limits) -> bool:
    weights = sum(graph.nodes[index].weight_nbytes for index in head)
    depth = min(graph.veils.depths(graph.crossing(head)), default=inf)
    return weights <= limits.max_edge_nbytes and depth >= limits.min_depth


def conditions(seed: int, count: int) -> tuple[list[list[float]], Link]:
    choose = random.Random(seed)
    cloud_s = [choose.expovariate(1000) for _ in range(count)]
    # Not always slower on the edge: small operators can be faster there than on a busy GPU.
    edge_s = [seconds * choose.uniform(0.7, 20) for seconds in cloud_s]
    link = Link(
        10 ** choose.uniform(5, 8.5), 10 ** choose.uniform(5, 8.5), choose.random() / 50
    )
    return [edge_s, cloud_s], link


@pytest.mark.parametrize("listed_sets", [4096, 0], ids=["listed", "flow"])
def test_the_search_equals_brute_force_on_1000_random_networks(
    random_graph: RandomGraph, closed_sets: ClosedSets, listed_sets: int
) -> None:
    for seed in range(1000):
        graph = random_graph(seed)
        times, link = conditions(seed, len(graph.nodes))
        search = CutSearch(graph, costs_of(graph, *times), listed_sets=listed_sets)
        limits = Limits(min_depth=seed % 3)
        best = search.best(link, limits=limits)
        least = min(
            latency_s(graph, head, times, link)
            for head in closed_sets(graph)
            if allowed(graph, head, limits)
        )
        assert best.latency_s == pytest.approx(least, rel=1e-9), seed
        assert latency_s(graph, best.head, times, link) == pytest.approx(least, rel=1e-9), seed
        assert graph.is_closed(best.head)
        assert allowed(graph, best.head, limits)


def test_a_memory_limit_is_exact_where_sets_are_listed(
    random_graph: RandomGraph, closed_sets: ClosedSets
) -> None:
    for seed in range(300):
        graph = random_graph(seed)
        times, link = conditions(seed, len(graph.nodes))
        limits = Limits(max_edge_nbytes=random.Random(seed).choice([0, 200, 1200]))
        best = CutSearch(graph, costs_of(graph, *times)).best(link, limits=limits)
        least = min(
            latency_s(graph, head, times, link)
            for head in closed_sets(graph)
            if allowed(graph, head, limits)
        )
        assert best.latency_s == pytest.approx(least, rel=1e-9), seed


def test_a_memory_limit_is_kept_and_no_prefix_is_better_where_flows_run(
    random_graph: RandomGraph, closed_sets: ClosedSets
) -> None:
    exact = 0
    for seed in range(300):
        graph = random_graph(seed)
        times, link = conditions(seed, len(graph.nodes))
        limits = Limits(max_edge_nbytes=random.Random(seed).choice([0, 200, 1200]))
        search = CutSearch(graph, costs_of(graph, *times), listed_sets=0)
        best = search.best(link, limits=limits)
        assert allowed(graph, best.head, limits)
        prefixes = [frozenset(range(size)) for size in range(len(graph.nodes) + 1)]
        fitting = [head for head in prefixes if allowed(graph, head, limits)]
        assert (
            best.latency_s
            <= min(latency_s(graph, head, times, link) for head in fitting) + 1e-12
        )
        least = min(
            latency_s(graph, head, times, link)
            for head in closed_sets(graph)
            if allowed(graph, head, limits)
        )
        exact += best.latency_s <= least * (1 + 1e-9)
    assert exact >= 290  # the multiplier finds the optimum nearly always, and need not


def test_forbidden_tensors_never_cross(
    random_graph: RandomGraph, closed_sets: ClosedSets
) -> None:
    for listed_sets in (4096, 0):
        for seed in range(200):
            graph = random_graph(seed)
            times, link = conditions(seed, len(graph.nodes))
            names = sorted(graph.tensors)
            forbidden = frozenset(random.Random(seed).sample(names, len(names) // 3))
            costs = costs_of(graph, *times, forbidden=forbidden)
            best = CutSearch(graph, costs, listed_sets=listed_sets).best(link)
            least = min(
                latency_s(graph, head, times, link)
                for head in closed_sets(graph)
                if not forbidden & set(graph.crossing(head))
            )
            assert best.latency_s == pytest.approx(least, rel=1e-9), seed


def test_slower_devices_scale_the_times(random_graph: RandomGraph) -> None:
    graph = random_graph(7, least_nodes=9)
    times, link = conditions(7, len(graph.nodes))
    slower = [[4 * s for s in times[0]], [2 * s for s in times[1]]]
    scaled = CutSearch(graph, costs_of(graph, *times)).best(
        link, edge_slowdown=4, cloud_slowdown=2
    )
    assert scaled == CutSearch(graph, costs_of(graph, *slower)).best(link)


def test_every_row_of_the_table_is_priced_as_its_head_costs(random_graph: RandomGraph) -> None:
    for seed in range(60):
        graph = random_graph(seed)
        times, link = conditions(seed, len(graph.nodes))
        search = CutSearch(graph, costs_of(graph, *times))
        priced = search.table.price_s(link)
        heads = [search.head_of(row) for row in range(len(search.table))]
        assert len(set(heads)) == len(heads)
        expected = [latency_s(graph, head, times, link) for head in heads]
        np.testing.assert_allclose(priced, expected, rtol=1e-9)


def test_a_tensor_that_many_nodes_read_is_sent_once() -> None:
    """Four readers of one tensor of 1 kB: cutting behind its maker sends 1 kB, not 4."""
    shape = (1000,)
    names = ["x", "shared", *(f"y{i}" for i in range(4))]
    tensors = {name: Tensor(name, "uint8", shape, shape) for name in names}
    tensors["x"] = Tensor("x", "uint8", (4000,), (4000,))
    reads = [("x", "shared"), *(("shared", f"y{i}") for i in range(4))]
    nodes = tuple(
        Node(i, f"n{i}", "Op", (read,), (made,), 0, 0, layer=True)
        for i, (read, made) in enumerate(reads)
    )
    graph = Graph("fan", nodes, tensors, ("x",), tuple(names[2:]), "0" * 64)
    edge_s, cloud_s = [0.001, 1, 1, 1, 1], [0.0005] * 5
    for listed_sets in (4096, 0):
        search = CutSearch(graph, costs_of(graph, edge_s, cloud_s), listed_sets=listed_sets)
        best = search.best(Link(8000, 8e6, 0.0, fixed_s=0.0))
        assert best.head == {0}
        assert best.latency_s == pytest.approx(0.001 + 4 * 0.0005 + 1.0 + 0.004)


def test_wide_branches_are_cut_where_enumeration_cannot_go() -> None:
    """Six branches of six nodes have 117,649 closed sets; each is best cut at its waist."""
    tensors = {"x": Tensor("x", "uint8", (10_000,), (10_000,))}
    nodes: list[Node] = []
    ends: list[str] = []
    for branch in range(6):
        source = "x"
        for step in range(6):
            made = f"b{branch}.{step}"
            size = 10 if step == branch % 5 else 5000
            tensors[made] = Tensor(made, "uint8", (size,), (size,))
            nodes.append(Node(len(nodes), made, "Op", (source,), (made,), 0, 0, layer=True))
            source = made
        ends.append(source)
    tensors["y"] = Tensor("y", "uint8", (1,), (1,))
    nodes.append(Node(len(nodes), "join", "Concat", tuple(ends), ("y",), 0, 0, layer=False))
    graph = Graph("wide", tuple(nodes), tensors, ("x",), ("y",), "0" * 64)
    count = len(nodes)
    search = CutSearch(graph, costs_of(graph, [0.01] * count, [0.0] * count))
    best = search.best(Link(80_000, 8e6, 0.001))
    waists = {branch * 6 + step for branch in range(6) for step in range(branch % 5 + 1)}
    assert best.head == waists


def test_limits_that_no_head_keeps_are_a_plan_error(random_graph: RandomGraph) -> None:
    graph = random_graph(3, least_nodes=9)
    times, link = conditions(3, len(graph.nodes))
    search = CutSearch(graph, costs_of(graph, *times, forbidden=frozenset(graph.tensors)))
    assert search.best(link).head == frozenset(range(len(graph.nodes)))
    with pytest.raises(PlanError, match="loosen one of the limits"):
        search.best(link, limits=Limits(max_edge_nbytes=1))


def test_a_profile_of_another_network_is_refused(random_graph: RandomGraph) -> None:
    graph = random_graph(1)
    with pytest.raises(UsageError, match="one time for each of the"):
        costs_of(graph, [0.0] * 99, [0.0] * 99)
