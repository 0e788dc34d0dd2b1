"""Policies against each other and the oracle, over real traces, in virtual time.

    python benchmarks/policies.py [--traces FOLDER] [--policies adaptive,race] [--seconds 300]
    python benchmarks/policies.py --decisions        # microseconds per decision
    python benchmarks/policies.py --measure FOLDER.midstream:SLOWDOWN[:private|lossless] ...

A fluid model: the uplink carries bits at the trace's rate, first come first served; one
request after the other, back to back or at a fixed period. What the model holds: bytes of a
request that the edge has answered itself stay ahead of the next one, as far as buffers had
them (`STUCK_NBYTES`), a hedge that comes to nothing keeps the processor until its node is
through, delays jitter, and times scatter around their profile. What it lacks: TCP's slow
start, losses, other traffic.

Regret is the mean latency over that of the oracle in a run of its own, minus one. "best
static" is the fixed placement with the least mean latency, chosen in hindsight per trace.
"busy" is what the edge computed per request, hedges that came to nothing included.

The menus come from profiles of real networks (`benchmarks/menus.json`; `--measure` makes them
from partitions with profiles, as `midstream partition` writes them).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from midstream_edge.link.observations import LinkState, Transfer
from midstream_edge.policies.interface import Decision, Evidence, Policy, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.oracle import Curve
from midstream_edge.policies.probe_budget import (
    DAY_NBYTES,
    ProbeBudget,
    parse_budget,
    probe_due,
)
from midstream_edge.policies.registry import policy
from midstream_lab.traces.parsing import load_trace
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.machine import usable_cores
from midstream_partitioner.partition.folder import load_partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.planning.planner import Planner

HERE = Path(__file__).resolve().parent
MENUS = HERE / "menus.json"
DATA = Path(os.environ.get("MIDSTREAM_DATA", HERE.parent.parent / "shared" / "data"))

POLICIES = (
    "adaptive",
    "adaptive-nohedge",
    "adaptive-race",
    "race",
    "periodic:5s",
    "ewma",
    "harmonic",
    "linucb",
    "edge-only",
)
CONSTRAINTS = {
    "": Constraints(),
    "private": Constraints(min_depth=1),
    "lossless": Constraints(lossless=True),
    "int8": Constraints(codecs=("raw", "half", "int8", "int8c")),
}

RTT_S, DOWNLINK_BPS = 0.03, 50e6
#: Mean of the exponential jitter on every exchange, and the scatter of times of computing.
JITTER_S, SCATTER = 0.001, 0.03
#: Of a request given up, what still leaves: one message, of 16 KiB or of 20 ms.
STUCK_NBYTES, STUCK_S = 16 * 1024, 0.02
#: A hedge that comes to nothing ends with the node that it is in: one of so many.
NODES = 30
#: An idle connection is pinged so often, which tells the delay.
PING_S = 1.0
#: A session gives a reply up after so long, whatever the policy.
TIMEOUT_S = 5.0
#: No byte carried for so long, with bytes waiting, makes the link suspect, then down: then the
#: edge finishes the requests on it.
SUSPECT_S, DOWN_S = 0.3, 1.0


@dataclass
class Run:
    """What one policy did over one trace."""

    latencies_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    elapsed_s: float = 0.0
    sent_nbytes: int = 0
    hedged: int = 0
    switches: int = 0
    budget: ProbeBudget = field(default_factory=lambda: ProbeBudget(0.0))

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.latencies_s)

    @property
    def p99_s(self) -> float:
        return float(np.quantile(self.latencies_s, 0.99))

    @property
    def worst_s(self) -> float:
        return max(self.latencies_s)

    @property
    def busy_per_request_s(self) -> float:
        return self.busy_s / len(self.latencies_s)


@dataclass
class World:
    """The link, the devices and the policy on them, at moment `now_s`."""

    trace: Trace
    menu: Menu
    policy: Policy
    seed: int
    scatter: float = SCATTER
    jitter_s: float = JITTER_S
    now_s: float = 0.0
    link_free_s: float = 0.0
    pinged_s: float = 0.0
    current: int | None = None
    run: Run = field(default_factory=Run)
    pending: list[Evidence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draws = random.Random(self.seed)

    def play(self, seconds: float, period_s: float | None) -> Run:
        submitted_s = 0.0
        while submitted_s < seconds:
            self.now_s = max(self.now_s, submitted_s)
            answered_s = self._request()
            self.run.latencies_s.append(answered_s - submitted_s)
            submitted_s = answered_s if period_s is None else submitted_s + period_s
        self.run.elapsed_s = max(self.now_s, submitted_s)
        return self.run

    def _request(self) -> float:
        """One request from its head on; `now_s` becomes when the processor is free again."""
        self._deliver(self.now_s)
        start_s = self.now_s
        backlog_nbytes = self._backlog_nbytes(start_s)
        decision = self.policy.decide(
            Situation(start_s, self._state(), self.current, backlog_nbytes=backlog_nbytes)
        )
        self.run.switches += self.current not in (None, decision.placement)
        self.current = decision.placement
        placement = self.menu.placements[decision.placement]
        head_s = placement.head_s * self._scattered()
        self.run.busy_s += head_s
        ready_s = start_s + head_s
        if placement.remote:
            return self._cross(decision, start_s, ready_s)
        self._probe(start_s, ready_s)
        self._deliver(ready_s)
        self._learn(Evidence(ready_s, None, decision.placement, head_s, head_s=head_s))
        self.now_s = ready_s
        return ready_s

    def _cross(self, decision: Decision, start_s: float, ready_s: float) -> float:
        """The rest of a request whose activation stands ready, in the cloud or hedged."""
        placement = self.menu.placements[decision.placement]
        rest_s = (placement.rest_s or 0.0) * self._scattered()
        serve_s = (placement.decode_s + placement.tail_s) * self._scattered()
        handed_s = ready_s + placement.encode_s
        ahead_nbytes = self._backlog_nbytes(handed_s)
        sent_s = self.trace.finish_s(max(handed_s, self.link_free_s), placement.payload_nbytes)
        down_s = 8 * placement.reply_nbytes / DOWNLINK_BPS
        cloud_s = sent_s + serve_s + down_s + self._delay_s()
        hedge_s = TIMEOUT_S if decision.hedge_after_s is None else decision.hedge_after_s
        began_s = min(ready_s + hedge_s, self._lost_s(handed_s, sent_s))
        answered_s = min(cloud_s, began_s + rest_s)
        hedged = cloud_s > began_s
        self._work(placement, began_s, began_s + rest_s, answered_s)
        if cloud_s <= answered_s:
            self.link_free_s = sent_s
            took_s, nbytes = cloud_s - handed_s - serve_s, placement.payload_nbytes
            transfer = Transfer(nbytes, placement.reply_nbytes, took_s, True, ahead_nbytes)
        else:
            nbytes = self._carried_nbytes(handed_s, answered_s, ahead_nbytes, placement)
            self._withdraw(answered_s, placement.payload_nbytes - nbytes)
            transfer = Transfer(nbytes, 0, answered_s - handed_s, False, ahead_nbytes)
        self.run.hedged += hedged
        self.run.sent_nbytes += nbytes
        self.run.budget = self.run.budget.heard(answered_s, nbytes)
        latency_s, head_s = answered_s - start_s, ready_s - start_s
        tail_s = serve_s - placement.decode_s if transfer.complete else None
        queue_s = 0.0 if transfer.complete else None
        self._learn(
            Evidence(
                answered_s,
                transfer,
                decision.placement,
                latency_s,
                hedged,
                head_s=head_s,
                queue_s=queue_s,
                tail_s=tail_s,
            )
        )
        return answered_s

    def _work(
        self, placement: Placement, began_s: float, ended_s: float, answered_s: float
    ) -> None:
        """What the edge computes after the head; sets when its processor is free again."""
        self.now_s = answered_s
        self.run.busy_s += placement.encode_s
        if answered_s > began_s:
            node_s = (placement.head_s + ended_s - began_s) / NODES * self.draws.random()
            self.now_s = min(answered_s + node_s, ended_s)
            self.run.busy_s += self.now_s - began_s

    def _lost_s(self, handed_s: float, sent_s: float) -> float:
        """When the session would take the link for lost, with this request on it."""
        at_s = handed_s
        while at_s + DOWN_S < sent_s:
            next_s = self.trace.finish_s(at_s, 1)
            if next_s > at_s + DOWN_S:
                return at_s + DOWN_S
            at_s = max(next_s, at_s + 0.1)
        return math.inf

    def _withdraw(self, at_s: float, nbytes: int) -> None:
        """Give up what is left of a request; what buffers hold of it leaves all the same."""
        stuck_nbytes = max(STUCK_NBYTES, self.trace.rate_at(at_s) * STUCK_S / 8)
        self.link_free_s = self.trace.finish_s(
            max(at_s, self.link_free_s), min(nbytes, stuck_nbytes)
        )

    def _carried_nbytes(
        self, handed_s: float, until_s: float, ahead_nbytes: int, placement: Placement
    ) -> int:
        bits = self.trace.nbits_by(until_s) - self.trace.nbits_by(min(handed_s, until_s))
        return int(min(max(0.0, bits / 8 - ahead_nbytes), placement.payload_nbytes))

    def _backlog_nbytes(self, at_s: float) -> int:
        if at_s >= self.link_free_s:
            return 0
        return int((self.trace.nbits_by(self.link_free_s) - self.trace.nbits_by(at_s)) / 8)

    def _state(self) -> LinkState:
        since_s = max(0.0, self.now_s - SUSPECT_S)
        still = self.trace.nbits_by(self.now_s) - self.trace.nbits_by(since_s) < 8
        return "suspect" if still and self._backlog_nbytes(self.now_s) else "connected"

    def _probe(self, from_s: float, to_s: float) -> None:
        """Probes while the edge computes; their evidence comes when they are through."""
        belief = getattr(self.policy, "belief", None)
        if not isinstance(belief, LinkBelief):
            return
        at_s = max(from_s, self.link_free_s)
        while at_s < to_s:
            nbytes = probe_due(self.run.budget, at_s, uplink_bps=belief.uplink_bps)
            if nbytes and at_s >= self.link_free_s:
                self.link_free_s = self.trace.finish_s(at_s, nbytes)
                answered_s = self.link_free_s + self._delay_s()
                self.run.budget = self.run.budget.probed(at_s, nbytes)
                self.pending.append(
                    Evidence(answered_s, Transfer(nbytes, 0, answered_s - at_s))
                )
            at_s += 0.05

    def _ping(self, until_s: float) -> None:
        """Exchanges without payload, such as keep the connection alive."""
        while self.pinged_s + PING_S <= until_s:
            self.pinged_s += PING_S
            if self.pinged_s >= self.link_free_s:
                delay_s = self._delay_s()
                self.pending.append(Evidence(self.pinged_s + delay_s, Transfer(0, 0, delay_s)))

    def _deliver(self, until_s: float) -> None:
        self._ping(until_s)
        due = [evidence for evidence in self.pending if evidence.at_s <= until_s]
        self.pending = [evidence for evidence in self.pending if evidence.at_s > until_s]
        for evidence in sorted(due, key=lambda evidence: evidence.at_s):
            self._learn(evidence)

    def _learn(self, evidence: Evidence) -> None:
        self.policy = self.policy.learn(evidence)

    def _delay_s(self) -> float:
        jitter_s = self.draws.expovariate(1 / self.jitter_s) if self.jitter_s else 0.0
        return RTT_S + 0.0005 + jitter_s

    def _scattered(self) -> float:
        return self.draws.lognormvariate(0.0, self.scatter) if self.scatter else 1.0


@dataclass(frozen=True)
class Setting:
    """One network on one trace, with how requests come."""

    menu_name: str
    trace_path: str
    seconds: float
    period_s: float | None
    seed: int
    probes_day_nbytes: float = DAY_NBYTES


def load_menus(path: Path = MENUS) -> dict[str, tuple[Menu, Device]]:
    """The menus by name, with the edge device of each."""
    document = json.loads(path.read_text())
    return {
        name: (
            Menu(tuple(Placement(**placement) for placement in entry["placements"])),
            Device(**entry["device"]),
        )
        for name, entry in document.items()
    }


def play(setting: Setting, name: str, menu: Menu, device: Device) -> Run:
    """`name` is a policy's, or "fixed:" and the index of a placement."""
    trace = load_trace(setting.trace_path)
    first_bps = max(1e5, float(trace.nbits_by(1.0)))
    link = Link(first_bps, DOWNLINK_BPS, RTT_S)
    curve = Curve(trace.times_s, trace.rates_bps, 0.0)
    chosen = policy(name, menu, link=link, device=device, curve=curve)
    run = Run(budget=ProbeBudget(0.0, setting.probes_day_nbytes))
    world = World(trace, menu, chosen, setting.seed, run=run)
    return world.play(setting.seconds, setting.period_s)


def compare(job: tuple[Setting, Sequence[str]]) -> list[dict[str, Any]]:
    """One row per policy, and one each for the oracle and the best static."""
    setting, names = job
    menu, device = load_menus()[setting.menu_name]
    oracle = play(setting, "oracle", menu, device)
    statics = [f"fixed:{placement.cut}:{placement.codec}" for placement in menu.placements]
    runs = {name: play(setting, name, menu, device) for name in statics}
    best = min(runs, key=lambda name: runs[name].mean_s)
    race = play(setting, "race", menu, device)
    played = {name: play(setting, name, menu, device) for name in names}
    rows = []
    for name, run in {"oracle": oracle, "best static": runs[best], **played}.items():
        rows.append(
            {
                "network": setting.menu_name,
                "trace": Path(setting.trace_path).stem,
                "arrivals": "back to back" if setting.period_s is None else setting.period_s,
                "policy": name,
                "regret": run.mean_s / oracle.mean_s - 1,
                "behind_static": run.mean_s / runs[best].mean_s - 1,
                "behind_race": run.mean_s / race.mean_s - 1,
                "mean_s": run.mean_s,
                "p99_s": run.p99_s,
                "worst_s": run.worst_s,
                "requests": len(run.latencies_s),
                "busy_per_request_s": run.busy_per_request_s,
                "hedged": run.hedged / len(run.latencies_s),
                "switches": run.switches,
                "probe_bps": run.budget.probed_nbytes * 8 / run.elapsed_s,
                "probe_share": run.budget.share,
                "static": best if name == "best static" else None,
            }
        )
    return rows


def traces_in(folder: Path) -> list[str]:
    """Every trace of rates under `folder` (files of delays left out), as used for uplinks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if "delay" not in path.name]


def summarise(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Per network and way of arriving: a line for each policy over all traces."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        key = row["network"], str(row["arrivals"])
        groups.setdefault(key, {}).setdefault(row["policy"], []).append(row)
    for (network, arrivals), policies in groups.items():
        yield f"\n{network}, {arrivals}"
        yield (
            f"{'policy':18s} {'regret':>7s} {'worst':>7s} {'on trace':28s} {'-static':>8s} "
            f"{'-race':>7s} {'p99 ms':>8s} {'busy ms':>8s} {'hedged':>7s} {'probes':>12s}"
        )
        for name, mine in policies.items():
            worst = max(mine, key=lambda row: row["regret"])
            behind_static = max(row["behind_static"] for row in mine)
            behind_race = max(row["behind_race"] for row in mine)
            mean = {
                key: statistics.fmean(row[key] for row in mine)
                for key in ("regret", "p99_s", "busy_per_request_s", "hedged")
            }
            probe_bps = max(row["probe_bps"] for row in mine)
            yield (
                f"{name:18s} {mean['regret']:7.1%} {worst['regret']:7.1%} "
                f"{worst['trace'][:28]:28s} {behind_static:8.1%} {behind_race:7.1%} "
                f"{mean['p99_s'] * 1e3:8.0f} "
                f"{mean['busy_per_request_s'] * 1e3:8.1f} {mean['hedged']:7.1%} "
                f"{probe_bps / 1e6:5.2f} Mbit/s"
            )


def measure(sources: Sequence[str]) -> dict[str, Any]:
    """Menus as a document, from partitions that carry a profile of this machine."""
    document = {}
    for source in sources:
        folder, slowdown, *rest = source.split(":")
        kind = rest[0] if rest else ""
        part = load_partition(Path(folder))
        profile = Profile.from_json(next(Path(folder).glob("profiles/*.json")).read_text())
        planner = Planner(
            part, profile.slowed(float(slowdown)), profile, constraints=CONSTRAINTS[kind]
        )
        menu = Menu.of(planner, complete=True)
        name = f"{part.name} x{slowdown} {kind}".strip()
        document[name] = {
            "device": planner.device.to_dict(),
            "placements": [asdict(placement) for placement in menu.placements],
        }
    return document


def time_decisions(count: int = 2000) -> Iterator[str]:
    """Median and 99th percentile microseconds of `decide` and `learn`, on the largest menu."""
    menu, device = max(load_menus().values(), key=lambda entry: len(entry[0]))
    link = Link(1e7, DOWNLINK_BPS, RTT_S)
    curve = Curve(np.linspace(0.0, 300.0, 3001), np.full(3000, 1e7), 0.0)
    yield f"{len(menu)} placements; microseconds: decide p50, p99; learn p50"
    for name in (*POLICIES, "oracle"):
        chosen = policy(name, menu, link=link, device=device, curve=curve)
        took: tuple[list[float], list[float]] = ([], [])
        for step in range(count):
            began_s = time.perf_counter()
            decision = chosen.decide(Situation(step * 0.1, current=0))
            took[0].append(time.perf_counter() - began_s)
            placement = menu.placements[decision.placement]
            transfer = Transfer(placement.payload_nbytes, placement.reply_nbytes, 0.1)
            evidence = Evidence(
                step * 0.1 + 0.1, transfer, decision.placement, 0.2, False, 0.1, 0
            )
            began_s = time.perf_counter()
            chosen = chosen.learn(evidence)
            took[1].append(time.perf_counter() - began_s)
        decide, learn = (np.array(samples) * 1e6 for samples in took)
        yield (
            f"{name:18s} {np.median(decide):6.1f} {np.quantile(decide, 0.99):6.1f} "
            f"{np.median(learn):6.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, default=DATA / "traces")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--models", default=None, help="parts of their names, by comma")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--probe-budget", default="50MB/day", help="most sent to ask the link")
    parser.add_argument("--periods", default="0", help="seconds between requests; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--each", action="store_true", help="a line per trace as well")
    parser.add_argument("--decisions", action="store_true")
    parser.add_argument("--measure", nargs="+", metavar="FOLDER:SLOWDOWN[:KIND]")
    options = parser.parse_args()
    if options.measure:
        MENUS.write_text(json.dumps(measure(options.measure), indent=1) + "\n")
        return
    if options.decisions:
        print("\n".join(time_decisions()))
        return
    if not options.traces.is_dir():
        sys.exit(f"skipped: the traces must lie in {options.traces} (see --traces)")
    wanted = options.models.split(",") if options.models else [""]
    jobs = [
        (
            Setting(
                name,
                path,
                options.seconds,
                float(period) or None,
                options.seed,
                parse_budget(options.probe_budget),
            ),
            options.policies.split(","),
        )
        for name in load_menus()
        if any(part in name for part in wanted)
        for period in options.periods.split(",")
        for path in traces_in(options.traces)
    ]
    with Pool(options.processes) as pool:
        rows = [row for found in pool.imap(compare, jobs) for row in found]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.each:
        for row in rows:
            print(
                f"{row['network']:28s} {row['trace'][:28]:28s} {row['policy']:18s} "
                f"{row['regret']:7.1%} {row['behind_static']:7.1%} {row['mean_s'] * 1e3:8.1f} "
                f"{row['busy_per_request_s'] * 1e3:8.1f} {row['hedged']:6.1%} "
                f"{row['static'] or ''}"
            )
    print("\n".join(summarise(rows)))


if __name__ == "__main__":
    main()
