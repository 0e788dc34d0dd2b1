"""How long it takes to plan again when the link has changed.

    python benchmarks/planning.py [--json] [--plans 2000]

Two kinds of plan. "search": the best closed set over the whole graph, from times per layer:
the table of positions and of listed sets, and minimum cuts where branches are too wide to list
("listed off" leaves all branches to minimum cuts). "plan": the best candidate of a partition
that is cut already, from profiles of its segments; what a running session does.

Each plan is for other conditions: uplinks from 100 kbit/s to 1 Gbit/s, an edge 1 to 100 times
slower, every other time with the input kept private, and for one in ten a limit on the edge's
weights. Layer times are computed, not measured (`static_profile`): they decide what is found,
and hardly how long it takes. "build" is what is done once per graph.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import CodecCost, Profile, Stat
from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import Node, Tensor
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import choose_cuts, static_profile, wire_nbytes
from midstream_partitioner.planning.envelope import envelope_of
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.search.cost_table import costs_of
from midstream_partitioner.search.min_cut import LISTED_SETS, CutSearch, Limits
from midstream_wire.errors import PlanError

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
NETWORKS = ("squeezenet", "resnet50", "inception_v1", "inception_v2", "densenet121")
CODECS = ("raw", "lossless", "half", "int8", "int8c", "png", "jpeg:90", "webp:80")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of plan on one graph, over many conditions; milliseconds."""

    name: str
    nodes: int
    candidates: int
    wide_blocks: int
    build_ms: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plans", type=int, default=2000, help="plans per graph")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    rows = list(measure(options.plans))
    if options.json:
        machine = {"python": platform.python_version(), "numpy": np.__version__}
        machine["cpu"] = this_device().cpu
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}))
        return 0
    print(f"{'':34} {'nodes':>6} {'rows':>6} {'wide':>5} {'build':>9} "
          f"{'p50':>8} {'p99':>8} {'worst':>8}  ms")  # fmt: skip
    for row in rows:
        print(
            f"{row.name:34} {row.nodes:6} {row.candidates:6} {row.wide_blocks:5} "
            f"{row.build_ms:9.1f} {row.p50_ms:8.3f} {row.p99_ms:8.3f} {row.worst_ms:8.3f}"
        )
    return 0


def measure(plans: int) -> Iterator[Row]:
    yield search_row("search: residual, 300 nodes", residual(300), plans)
    for name in NETWORKS:
        network = load_network(LIGHT / f"light_{name}.onnx", name=name)
        yield search_row(f"search: {name}", network.graph, plans)
        if name in ("inception_v1", "resnet50"):
            yield search_row(
                f"search: {name}, listed off", network.graph, plans, listed_sets=0
            )
        if name == "squeezenet":
            cuts = choose_cuts(network.graph, static_profile(network.graph))
            yield from plan_rows(partition(network, cuts), plans)
    yield search_row("search: 4 x 8 branches of 8 nodes", branching(4, 8, 8), plans // 20)


def search_row(name: str, graph: Graph, plans: int, *, listed_sets: int = LISTED_SETS) -> Row:
    layer_s = static_profile(graph)
    costs = costs_of(graph, layer_s, layer_s, wire_nbytes=wire_nbytes(graph))
    started = time.perf_counter()
    search = CutSearch(graph, costs, listed_sets=listed_sets)
    build_s = time.perf_counter() - started
    choose = random.Random(1)

    def once() -> Callable[[], object]:
        link, ratio = random_link(choose), 100 ** choose.random()
        most = graph.weight_nbytes * choose.random() if choose.random() < 0.1 else float("inf")
        limits = Limits(most, choose.randint(0, 1))
        return lambda: search.best(link, edge_slowdown=ratio, limits=limits)

    shape = (len(graph.nodes), len(search.table), len(search.wide_blocks))
    return timed(name, shape, build_s, [once() for _ in range(plans)])


def plan_rows(part: Partition, plans: int) -> Iterator[Row]:
    profile = made_up_profile(part)
    started = time.perf_counter()
    planner = Planner(part, profile, profile)
    build_s = time.perf_counter() - started
    choose = random.Random(2)
    links = [random_link(choose) for _ in range(plans)]
    shape = (len(part.segments), len(planner.allowed), 0)
    yield timed(
        "plan: squeezenet in segments",
        shape,
        build_s,
        [lambda link=link: planner.plan(link) for link in links],  # type: ignore[misc]
    )
    yield timed(
        "envelope: squeezenet in segments",
        shape,
        build_s,
        [lambda link=link: envelope_of(planner, link) for link in links[: plans // 10]],  # type: ignore[misc]
    )


def timed(
    name: str, shape: tuple[int, int, int], build_s: float, calls: list[Callable[[], object]]
) -> Row:
    """Wall time of each call, after a tenth of them for warming up."""
    times = []
    for call in [*calls[: len(calls) // 10], *calls]:
        started = time.perf_counter()
        try:
            call()
        except PlanError:  # limits that nothing keeps are an answer, too
            continue
        finally:
            times.append(time.perf_counter() - started)
    times = times[len(calls) // 10 :]
    p99_s = statistics.quantiles(times, n=100)[98]
    figures = (build_s, statistics.median(times), p99_s, max(times))
    return Row(name, *shape, *(seconds * 1e3 for seconds in figures))


def random_link(choose: random.Random) -> Link:
    uplink_bps = 10 ** choose.uniform(5, 9)
    return Link(uplink_bps, 2 * uplink_bps, choose.uniform(0.001, 0.2))


def made_up_profile(part: Partition) -> Profile:
    """Times and sizes of the right kind, so that no network has to run."""
    choose = random.Random(3)

    def cost(cut: Cut, codec: str) -> CodecCost:
        return CodecCost(
            cut.id, codec, choose.randint(10**3, 10**6), choose.random() / 1e3, 0.0
        )

    segments = [choose.random() / 100 for _ in part.segments]
    return Profile(
        device=this_device(),
        graph_digest=part.graph_digest,
        partition_digest=part.digest,
        segments=tuple(Stat(seconds, seconds, seconds, 20) for seconds in segments),
        codecs=tuple(cost(cut, codec) for cut in part.cuts[:-1] for codec in CODECS),
        replies_nbytes=(4000,) * len(part.cuts),
    )


class Sketch:
    """A graph drawn node by node; every tensor shrinks with its distance from the input."""

    def __init__(self) -> None:
        self.tensors = {"x": Tensor("x", "uint8", (1, 224, 224, 3), (1, 224, 224, 3))}
        self.nodes: list[Node] = []

    def node(self, op_type: str, *inputs: str) -> str:
        index = len(self.nodes)
        floats = (800_000 // (1 + index // 20),)
        made = f"t{index}"
        self.tensors[made] = Tensor(made, "float32", floats, floats)
        layer = op_type == "Conv"
        flops = 10**8 if layer else floats[0]
        weights = 200_000 if layer else 0
        self.nodes.append(
            Node(index, made, op_type, inputs, (made,), weights, flops, layer=layer)
        )
        return made

    def graph(self, name: str, output: str) -> Graph:
        return Graph(name, tuple(self.nodes), self.tensors, ("x",), (output,), "0" * 64)


def residual(count: int) -> Graph:
    """Bottleneck blocks as in ResNet; each fourth has a layer on its shortcut, too."""
    sketch = Sketch()
    last = sketch.node("Relu", sketch.node("Conv", "x"))
    block = 0
    while len(sketch.nodes) < count:
        shortcut = sketch.node("Conv", last) if block % 4 == 0 else last
        for _ in range(2):
            last = sketch.node("Relu", sketch.node("Conv", last))
        last = sketch.node("Relu", sketch.node("Add", sketch.node("Conv", last), shortcut))
        block += 1
    return sketch.graph("residual", last)


def branching(blocks: int, width: int, length: int) -> Graph:
    """Blocks of parallel branches, far beyond listing: (length + 1) ** width sets each."""
    sketch = Sketch()
    last = sketch.node("Conv", "x")
    for _ in range(blocks):
        ends = []
        for _ in range(width):
            step = last
            for _ in range(length):
                step = sketch.node("Conv", step)
            ends.append(step)
        last = sketch.node("Concat", *ends)
    return sketch.graph("branching", last)


if __name__ == "__main__":
    sys.exit(main())
