"""How fast simulations are, and how their cost grows.

    python benchmarks/simulation.py               # a pair under policies, and small fleets
    python benchmarks/simulation.py --hour        # 1,000 edges, an hour: 3.6 million requests

Prints a table; times are the processor's, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import resource
import time

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_lab.conditions import condition
from midstream_lab.simulation.arrivals import Closed, Every, Poisson
from midstream_lab.simulation.cloud import Replicas
from midstream_lab.simulation.fleet import Fleet, Group, simulate_fleet
from midstream_lab.simulation.network import Network
from midstream_lab.simulation.operating import Prices, operation
from midstream_lab.simulation.pair import Setting, simulate_pair
from midstream_lab.traces import generate
from midstream_partitioner.device import Device

WHOLE_S = 0.25
DEVICE = Device("edge", 1)


def option(cut: str, codec: str, k: int, *times_s: float, payload_nbytes: int) -> Option:
    head_s, encode_s, decode_s, tail_s = times_s
    return Option(
        cut, codec, k, f"{cut} {codec}", cut != "edge-only",
        head_s, encode_s, decode_s, tail_s, payload_nbytes, 4000, WHOLE_S - head_s,
    )  # fmt: skip


#: Like ResNet-18 on an edge eight times slower than the machine this was written on.
MENU = Menu(
    (
        option("cloud-only", "raw", 0, 0.0, 0.0005, 0.0003, 0.03, payload_nbytes=602_112),
        option("cloud-only", "jpeg:90", 0, 0.0, 0.004, 0.003, 0.03, payload_nbytes=40_000),
        option("c10", "half", 1, 0.08, 0.002, 0.001, 0.02, payload_nbytes=60_000),
        option("c20", "int8", 2, 0.15, 0.002, 0.001, 0.01, payload_nbytes=15_000),
        option("edge-only", "raw", 3, WHOLE_S, 0.0, 0.0, 0.0, payload_nbytes=0),
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


def fleet(edges: int, duration_s: float, policy: str) -> None:
    """One line: a request a second and edge, sixteen replicas of four workers."""
    group = Group(
        "cameras", edges, MENU, DEVICE, NETWORK, Poisson(1.0), policy=policy, deadline_s=0.5
    )
    replicas = Replicas(16, workers=4, balancing="least-outstanding")
    began_s, wall_s = time.process_time(), time.perf_counter()
    outcome = simulate_fleet(Fleet((group,), replicas, duration_s))
    took_s, wall_s = time.process_time() - began_s, time.perf_counter() - wall_s
    count = len(outcome.table)
    operation(outcome, Prices())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{edges:6} {policy:9} {duration_s:7.0f} {count:9} {took_s:8.1f} {wall_s:8.1f} "
        f"{took_s / count * 1e6:8.1f} {outcome.events / count:7.1f} {most:8.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hour", action="store_true", help="The large fleet, and nothing else."
    )
    hour = parser.parse_args().hour
    if not hour:
        pairs()
    print(" edges policy     seconds  requests    cpu s   wall s  us each  events   MB most")
    if hour:
        fleet(1000, 3600.0, "plan")
        return
    for edges, duration_s in ((100, 100.0), (300, 100.0), (1000, 100.0), (1000, 300.0)):
        fleet(edges, duration_s, "plan")
    fleet(300, 60.0, "adaptive")


if __name__ == "__main__":
    main()
