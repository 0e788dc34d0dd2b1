"""How fast simulations are, and how their cost grows.

    python benchmarks/simulation.py               # a pair under policies, and small fleets
    python benchmarks/simulation.py --hour        # 1,000 edges, an hour: 3.6 million requests
    python benchmarks/simulation.py --curve --draw curve.png    # cost against requests

Prints a table; times are the processor's, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midstream_edge.policies.menu import Menu
from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.simulation.fleet.fleet import Fleet, Group, simulate_fleet
from midstream_lab.simulation.fleet.statistics import Prices, operation
from midstream_lab.simulation.model.arrivals import Closed, Every, Poisson
from midstream_lab.simulation.model.cloud import Replicas
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.pair.pair import Setting, simulate_pair
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.generators import generate
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement

WHOLE_S = 0.25
#: How long the curve's fleet runs: from ten thousand requests to three hundred thousand.
DURATIONS_S = (10.0, 30.0, 100.0, 200.0, 300.0)
HEADS = " edges policy     seconds  requests    cpu s   wall s  us each  events   MB most"
DEVICE = Device("edge", 1)


def placement(cut: str, codec: str, k: int, *times_s: float, payload_nbytes: int) -> Placement:
    head_s, encode_s, decode_s, tail_s = times_s
    return Placement(
        cut, codec, k, f"{cut} {codec}", cut != "edge-only",
        head_s, encode_s, decode_s, tail_s, payload_nbytes, 4000, WHOLE_S - head_s,
    )  # fmt: skip


#: Like ResNet-18 on an edge eight times slower than the machine this was written on.
MENU = Menu(
    (
        placement("cloud-only", "raw", 0, 0.0, 0.0005, 0.0003, 0.03, payload_nbytes=602_112),
        placement("cloud-only", "jpeg:90", 0, 0.0, 0.004, 0.003, 0.03, payload_nbytes=40_000),
        placement("c10", "half", 1, 0.08, 0.002, 0.001, 0.02, payload_nbytes=60_000),
        placement("c20", "int8", 2, 0.15, 0.002, 0.001, 0.01, payload_nbytes=15_000),
        placement("edge-only", "raw", 3, WHOLE_S, 0.0, 0.0, 0.0, payload_nbytes=0),
    )
)
NETWORK = Network.of(condition("lte"), uplink=generate("lte", seed=1))


def pairs() -> None:
    print("policy             requests come  requests  us each  x real time")
    for name in ("adaptive", "race", "ewma", "cloud-only:jpeg", "edge-only"):
        for words, arrivals in (("back to back", Closed()), ("every 200 ms", Every(0.2))):
            setting = Setting(NETWORK, DEVICE, arrivals=arrivals, duration_s=300.0)
            began_s = time.process_time()
            count = len(simulate_pair(MENU, name, setting).table)
            took_s = time.process_time() - began_s
            each_us, speed = took_s / count * 1e6, setting.duration_s / took_s
            print(f"{name:18} {words:14} {count:8} {each_us:8.0f} {speed:12.0f}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a fleet's simulation took; `cpu_s` is the processor's time."""

    edges: int
    policy: str
    duration_s: float
    requests: int
    events: int
    cpu_s: float
    wall_s: float

    def row(self) -> str:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return (
            f"{self.edges:6} {self.policy:9} {self.duration_s:7.0f} {self.requests:9} "
            f"{self.cpu_s:8.2f} {self.wall_s:8.2f} {self.cpu_s / self.requests * 1e6:8.1f} "
            f"{self.events / self.requests:7.1f} {most:8.0f}"
        )


def fleet(edges: int, duration_s: float, policy: str) -> Cost:
    """A request a second and edge, sixteen replicas of four workers; prints a line."""
    group = Group(
        "cameras", edges, MENU, DEVICE, NETWORK, Poisson(1.0), policy=policy, deadline_s=0.5
    )
    replicas = Replicas(16, workers=4, balancing="least-outstanding")
    began_s, wall_s = time.process_time(), time.perf_counter()
    outcome = simulate_fleet(Fleet((group,), replicas, duration_s))
    took_s, wall_s = time.process_time() - began_s, time.perf_counter() - wall_s
    operation(outcome, Prices())
    cost = Cost(edges, policy, duration_s, len(outcome.table), outcome.events, took_s, wall_s)
    print(cost.row(), flush=True)
    return cost


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of processor time over requests, by least squares; `r2` is the share of the
    variance that the line explains."""

    fixed_s: float
    each_s: float
    r2: float

    @classmethod
    def through(cls, costs: Sequence[Cost]) -> Line:
        requests = np.array([cost.requests for cost in costs], dtype=np.float64)
        cpu_s = np.array([cost.cpu_s for cost in costs])
        each_s, fixed_s = np.polyfit(requests, cpu_s, 1)
        left_s = cpu_s - (fixed_s + each_s * requests)
        r2 = 1 - float(left_s @ left_s) / float(np.sum((cpu_s - cpu_s.mean()) ** 2))
        return cls(float(fixed_s), float(each_s), r2)

    def __str__(self) -> str:
        return (
            f"{self.fixed_s:+.2f} s and {self.each_s * 1e6:.1f} us a request, "
            f"R2 = {self.r2:.5f}"
        )


def curve(edges: int, durations_s: Sequence[float], picture: Path | None) -> None:
    """How cost grows with requests: the same fleet for longer and longer."""
    if picture is not None:
        check_picture(picture)
    print(HEADS)
    costs = [fleet(edges, duration_s, "plan") for duration_s in durations_s]
    line = Line.through(costs)
    print(f"cost of {edges} edges: {line}")
    if picture is not None:
        draw(costs, line, picture)
        print(picture)


def draw(costs: Sequence[Cost], line: Line, path: Path) -> None:
    """Points as measured, the line through them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    requests = np.array([cost.requests for cost in costs])
    ends = np.array([0, requests.max() * 1.04])
    axes.plot(ends / 1e3, line.fixed_s + line.each_s * ends, color="#4477aa", label=str(line))
    axes.plot(requests / 1e3, [cost.cpu_s for cost in costs], "o", color="black")
    axes.set(xlabel="requests, thousands", ylabel="processor time, s", xlim=(0, None))
    axes.set_ylim(0, None)
    axes.set_title(f"A fleet of {costs[0].edges:,} edges under plans that stay", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--hour", action="store_true", help="The large fleet, and nothing else."
    )
    parser.add_argument(
        "--curve", action="store_true", help="Cost against requests, and nothing else."
    )
    parser.add_argument("--edges", type=int, default=1000, help="Of the curve.")
    parser.add_argument(
        "--durations", type=float, nargs="+", default=DURATIONS_S, help="Of the curve, in s."
    )
    parser.add_argument("--draw", type=Path, help="A picture of the curve.")
    options = parser.parse_args()
    if options.draw is not None and not options.curve:
        parser.error("--draw draws the --curve: give both")
    if options.curve:
        if len(set(options.durations)) < 3:
            parser.error("a line needs three durations that differ, or more")
        curve(options.edges, options.durations, options.draw)
        return
    if not options.hour:
        pairs()
    print(HEADS)
    if options.hour:
        fleet(1000, 3600.0, "plan")
        return
    for edges, duration_s in ((100, 100.0), (300, 100.0), (1000, 100.0), (1000, 300.0)):
        fleet(edges, duration_s, "plan")
    fleet(300, 60.0, "adaptive")


if __name__ == "__main__":
    main()
