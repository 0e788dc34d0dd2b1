"""What changing one's mind costs: other plans between requests, other partitions under load.

    python benchmarks/switching.py [--model mobilenetv2] [--switches 1000] [--swaps 20]
                                   [--link loopback,wifi] [--json]

The cloud is the command itself, a process of its own; the edge is this process. Requests come
on a schedule, at twice the time for which one of them keeps processors or the uplink busy, so
that they may overlap but do not queue up behind one another: then a request's latency does not
depend on what plan its neighbours have, and what a switch adds can be seen.

Switches: every third request, a coin decides whether the session goes over to the other one of
two cuts or stays (both by calling `use`). The first request after a switch is held against the
nearest first request after staying with that plan. `noise` is the same between one stay and
the next, which holds no switch at all.

Swaps: both sides make a partition with other cuts, the session goes over to it, and what was
held for the old one is freed, while requests go on at the same cut with the same codec. The
eight requests that follow the swap are held against the median of those before the making
began; `making` are those that came while it lasted.

`lost` and `doubled` count requests without an answer, or with more than one; answers are
compared with the unsplit network's. Memory is resident memory over that after the first
hundred requests of one plan.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from midstream.loaders import open_inputs, open_partition
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.repartition.prepare import prepare
from midstream_edge.session.session import Answer, EdgeSession
from midstream_lab.emulation.emulate import emulate
from midstream_lab.emulation.model.spec import LinkSpec
from midstream_lab.processes.process import Process
from midstream_lab.traces.conditions import condition
from midstream_partitioner.compare import relative_error
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import network_of
from midstream_wire.allocator import keep_freed_memory

#: Requests from one throw of the coin to the next.
STRIDE = 3
#: Requests after a swap that may feel it.
WAKE = 8
WARM_UP = 100
CODEC = "half"
#: Largest difference from the unsplit network's answer: half precision crossed the cut.
CLOSE = 0.02


@dataclass
class Request:
    """One request: when it was due and submitted, and what came of it."""

    submitted_s: float
    plan: int
    first: str = ""  # "switch" or "stay" for the first one after the coin
    answered_s: float = 0.0
    answers: int = 0
    error: str = ""
    where: str = ""

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.submitted_s


@dataclass
class Load:
    """Requests on a schedule, and their answers."""

    session: EdgeSession
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    every_s: float
    requests: list[Request] = field(default_factory=list)

    def submit(self, plan: int, first: str = "") -> None:
        if self.requests:
            time.sleep(max(0.0, self.requests[-1].submitted_s + self.every_s - monotonic()))
        request = Request(monotonic(), plan, first)
        self.requests.append(request)
        self.session.submit(self.inputs).add_done_callback(
            lambda future: self._note(request, future)
        )

    def _note(self, request: Request, future: Any) -> None:
        request.answered_s = monotonic()
        request.answers += 1
        error = future.exception()
        if error is not None:
            request.error = str(error)
            return
        answer: Answer = future.result()
        request.where = answer.where
        apart = relative_error(self.expected, answer.outputs)
        if not apart < CLOSE:
            request.error = f"the answer is {apart} off"

    def wait(self) -> None:
        """Until all are answered."""
        until_s = monotonic() + 30
        while monotonic() < until_s and not all(each.answers for each in self.requests):
            time.sleep(0.05)

    def outcome(self) -> dict[str, Any]:
        wrong = Counter(each.error for each in self.requests if each.error)
        return {
            "requests": len(self.requests),
            "lost": sum(each.answers == 0 for each in self.requests),
            "doubled": sum(each.answers > 1 for each in self.requests),
            "failed": dict(wrong),
            "where": dict(Counter(each.where for each in self.requests)),
        }


monotonic = time.monotonic


@dataclass
class Memory:
    """Resident memory of both sides, as multiples of what one plan takes."""

    processes: Mapping[str, psutil.Process]
    one_plan: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    def look(self) -> dict[str, int]:
        found = {side: p.memory_info().rss for side, p in self.processes.items()}
        self.most = {side: max(n, self.most.get(side, 0)) for side, n in found.items()}
        return found

    def begin(self) -> None:
        self.most = {}
        self.one_plan = self.look()

    def outcome(self) -> dict[str, Any]:
        last = self.look()
        return {
            f"{side}_{what}": round(found[side] / self.one_plan[side], 3)
            for side in self.processes
            for what, found in (("at_most", self.most), ("at_the_end", last))
        } | {f"{side}_one_plan_mb": round(n / 1e6) for side, n in self.one_plan.items()}


@contextlib.contextmanager
def cloud(folder: Path, repartition: int) -> Iterator[tuple[str, int]]:
    flags = ["cloud", "serve", str(folder), "--listen", "127.0.0.1:0", "--runs", "0"]
    flags += ["--workers", "1", "--repartition", str(repartition), "--json"]
    with Process("cloud", "midstream", flags) as process:
        yield process.document(120.0)["listening"], process.pid


@contextlib.contextmanager
def linked(name: str, address: str) -> Iterator[str]:
    """The address behind an emulated link, or the address itself."""
    if name == "loopback":
        yield address
        return
    spec = LinkSpec.of(condition(name))
    with emulate(spec, backend="proxy", calibrated=False) as link:
        yield link.reach(address)


def pace_s(session: EdgeSession, inputs: Mapping[str, Any], plans: Sequence[int]) -> float:
    """Twice what a request of any of the plans keeps processors or uplink busy."""
    slowest = 0.0
    for k in plans:
        session.use(k, CODEC)
        answers = [session.infer(inputs).timings for _ in range(20)]
        busy = [t.head_s + t.encode_s + t.decode_s + t.tail_s for t in answers]
        uplink = [t.uplink_s for t in answers]
        slowest = max(slowest, float(np.median(busy)), float(np.median(uplink)))
    return 2.0 * slowest


def switch(
    load: Load, plans: tuple[int, int], switches: int, memory: Memory
) -> dict[str, Any]:
    """`switches` real ones among about as many that stay."""
    coin, plan, done = random.Random(0), 0, 0
    load.session.use(plans[plan], CODEC)
    for _ in range(WARM_UP):
        load.submit(plan)
    memory.begin()
    while done < switches:
        switching = coin.random() < 0.5
        plan = 1 - plan if switching else plan
        load.session.use(plans[plan], CODEC)
        done += switching
        load.submit(plan, "switch" if switching else "stay")
        for _ in range(STRIDE - 1):
            load.submit(plan)
        if done % 50 == 0:
            memory.look()
    load.wait()
    return {"switches": done, **load.outcome(), **added(load.requests), **memory.outcome()}


def added(requests: Sequence[Request]) -> dict[str, float]:
    """Milliseconds that the first request after a switch took longer than one without."""
    stall: list[float] = []
    noise: list[float] = []
    for plan in (0, 1):
        firsts = [r for r in requests if r.plan == plan and r.first and r.answers]
        stays = [r for r in firsts if r.first == "stay"]
        times = np.array([r.submitted_s for r in stays])
        for request in firsts:
            apart = np.abs(times - request.submitted_s)
            apart[apart == 0.0] = np.inf  # itself
            nearest = stays[int(apart.argmin())]
            gap_s = request.latency_s - nearest.latency_s
            (stall if request.first == "switch" else noise).append(gap_s)
    quantiles = {"p50": 50, "p99": 99}
    found = {f"added_{n}_ms": percentile_ms(stall, q) for n, q in quantiles.items()}
    found |= {f"noise_{n}_ms": percentile_ms(noise, q) for n, q in quantiles.items()}
    by_kind = {
        kind: [r.latency_s for r in requests if r.first == kind] for kind in ("switch", "stay")
    }
    found["p99_of_switches_less_p99_of_stays_ms"] = round(
        percentile_ms(by_kind["switch"], 99) - percentile_ms(by_kind["stay"], 99), 2
    )
    return found


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    return round(1e3 * float(np.percentile(seconds, percent)), 2) if len(seconds) else 0.0


def heads_for(part: Partition, k: int, count: int) -> list[list[tuple[int, ...]]]:
    """`count` choices of cuts, each the k-th one of `part` and another, from all positions."""
    network = network_of(part)
    kept = part.cuts[k].runs
    sizes = range(1, len(network.graph.nodes))
    inside = [(0, n) for n in sizes if (0, n) != kept and nests((0, n), kept)]
    dice = random.Random(0)
    dice.shuffle(inside)
    return [[kept, other] for other in inside[:count]]


def nests(runs: tuple[int, ...], others: tuple[int, ...]) -> bool:
    one = {n for a, b in zip(runs[::2], runs[1::2], strict=True) for n in range(a, b)}
    two = {n for a, b in zip(others[::2], others[1::2], strict=True) for n in range(a, b)}
    return one < two or two < one


def swap(
    load: Load, base: Partition, cut: str, swaps: int, endpoint: Endpoint, memory: Memory
) -> dict[str, Any]:
    """`swaps` of them while requests go on; when each phase of each was."""
    load.session.use(base.index_of(cut), CODEC)
    phases: list[tuple[float, float, float, float]] = []
    failures: list[str] = []
    over = threading.Event()

    def work() -> None:
        try:
            for heads in heads_for(base, base.index_of(cut), swaps):
                time.sleep(1.0)
                began_s = monotonic()
                fresh = prepare(
                    base, heads, like=load.session.chain, endpoint=endpoint, model=base.name
                )
                fresh.chain.run(load.inputs, 0, fresh.chain.last)  # the first one is slow
                swapping_s = monotonic()
                k = fresh.chain.partition.index_of(cut)
                load.session.swap(fresh.chain, plan=(k, CODEC))
                swapped_s = monotonic()
                del fresh
                load.session.wait_swapped(10.0)
                phases.append((began_s, swapping_s, swapped_s, monotonic()))
                memory.look()
        except Exception as error:
            failures.append(str(error))
        finally:
            over.set()

    for _ in range(WARM_UP):
        load.submit(0)
    memory.begin()
    thread = threading.Thread(target=work)
    thread.start()
    while not over.is_set():
        load.submit(0)
    thread.join()
    load.wait()
    return {
        "swaps": len(phases),
        "errors": failures,
        **load.outcome(),
        **felt(load.requests, phases),
        **memory.outcome(),
    }


def felt(
    requests: Sequence[Request], phases: Sequence[tuple[float, float, float, float]]
) -> dict[str, Any]:
    """What the requests of each phase took beyond the median of those before it."""
    steady: list[float] = []
    making: list[float] = []
    wake: list[float] = []
    for began_s, swapping_s, swapped_s, _ in phases:
        before = [r.latency_s for r in requests if began_s - 0.9 < r.submitted_s < began_s]
        usual_s = float(np.median(before))
        steady += [each - usual_s for each in before]
        making += [
            r.latency_s - usual_s for r in requests if began_s <= r.submitted_s < swapping_s
        ]
        after = [r for r in requests if r.submitted_s >= swapping_s]
        last = sum(r.submitted_s < swapped_s for r in after) + WAKE
        wake += [r.latency_s - usual_s for r in after[:last]]
    taken = [b - a for a, b, _, _ in phases]
    return {
        "making_s": round(float(np.median(taken)), 2) if taken else None,
        "swapping_ms": percentile_ms([c - b for _, b, c, _ in phases], 50),
        "added_p50_ms": percentile_ms(wake, 50),
        "added_p99_ms": percentile_ms(wake, 99),
        "making_p50_ms": percentile_ms(making, 50),
        "making_p99_ms": percentile_ms(making, 99),
        "noise_p99_ms": percentile_ms(steady, 99),
    }


def run(network: str, link: str, switches: int, swaps: int) -> Iterator[dict[str, Any]]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"{network}.midstream"
        save_partition(open_partition(network), folder)
        part = load_partition(folder)
        inputs = open_inputs(part, None, count=1)[0]
        inner = sorted(part.cuts[1:-1], key=lambda cut: cut.nbytes)[:2]
        first, second = sorted(part.index_of(cut.id) for cut in inner)
        plans = first, second

        def session_of(
            work: Callable[[Load, Endpoint, Memory], dict[str, Any]], repartition: int
        ) -> dict[str, Any]:
            with (
                cloud(folder, repartition) as (address, pid),
                linked(link, address) as reached,
            ):
                processes = {"edge": psutil.Process(), "cloud": psutil.Process(pid)}
                endpoint = Endpoint.of(reached)
                chain = Chain(part)
                expected = chain.run(inputs, 0, chain.last)
                with EdgeSession(chain, endpoint, plan=(plans[0], CODEC)) as session:
                    del chain
                    load = Load(session, inputs, expected, pace_s(session, inputs, plans))
                    found = work(load, endpoint, Memory(processes))
            return {
                "network": network,
                "link": link,
                "every_ms": round(1e3 * load.every_s, 1),
            } | found

        if switches:
            yield session_of(lambda load, _, memory: switch(load, plans, switches, memory), 0)
        if swaps:
            yield session_of(
                lambda load, endpoint, memory: swap(
                    load, part, part.cuts[plans[0]].id, swaps, endpoint, memory
                ),
                2,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--link", default="loopback,wifi")
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    keep_freed_memory()
    for link in asked.link.split(","):
        for row in run(asked.model, link, asked.switches, asked.swaps):
            print(json.dumps(row) if asked.json else table(row), flush=True)
    return 0


def table(row: Mapping[str, Any]) -> str:
    what = "switches" if "switches" in row else "swaps"
    lines = [f"{row[what]} {what} · {row['network']} · {row['link']}"]
    lines += [f"  {name:40s} {value}" for name, value in row.items() if name != what]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
