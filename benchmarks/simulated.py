"""What simulations say beside real runs over an emulated link: same menu, trace, policy.

    python benchmarks/simulated.py [--model resnet18] [--edge-slowdown 8] [--seconds 40]
        [--traces lte:1,3g:1] [--policies adaptive,race,edge-only] [-o FILE.json]
    python benchmarks/simulated.py --experiment out/private

The second form simulates the runs of an experiment that has been run for real. In the first,
each cell runs `midstream pair` (real processes, the best backend there is) and then the
simulator on the menu that the run reports. The error is of the mean latency, simulated over
measured. Targets: at most 5 % in the mean of all cells, 15 % in the worst, and policies ranked
alike (Kendall's tau of their means, over the traces, at least 0.9). Runs that the emulator
calls void are left out and counted. Wants an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_lab.experiment.results import RunResult, load_runs
from midstream_lab.simulation.network import HEADER_SHARE, Network, steady
from midstream_lab.simulation.pair import Setting, simulate_pair
from midstream_lab.traces import Trace, open_trace
from midstream_partitioner.device import Device

#: The first requests find cold caches and a first measurement of the link; both are left out.
WARM_S = 3.0

_OPTION, _DEVICE, _NUMBER = TypeAdapter(Option), TypeAdapter(Device), TypeAdapter(float)


@dataclass(frozen=True)
class Cell:
    """One policy over one trace; seconds."""

    trace: str
    policy: str
    measured_s: float
    simulated_s: float
    measured_p95_s: float
    simulated_p95_s: float
    requests: int
    void: str | None

    @property
    def error(self) -> float:
        return self.simulated_s / self.measured_s - 1


def run_cell(given: argparse.Namespace, trace: str, policy: str) -> Cell:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        line = [
            sys.executable, "-m", "midstream", "pair", given.model, "--trace", trace,
            "--policy", policy, "--network", given.network, "--duration", f"{given.seconds}s",
            "--edge-slowdown", str(given.edge_slowdown), "--log", str(log), "--json",
        ]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        records = [json.loads(each) for each in log.read_text().splitlines()]
    document = json.loads(done.stdout)
    latencies = latencies_of(records)
    simulated = simulate(document, trace, policy, given.seconds)
    validity = document["emulation"]["validity"]
    return Cell(
        trace,
        policy,
        float(latencies.mean()),
        float(simulated.mean()),
        float(np.quantile(latencies, 0.95)),
        float(np.quantile(simulated, 0.95)),
        len(latencies),
        None if validity["valid"] else "; ".join(validity["why"]),
    )


def cell_of(run: RunResult) -> Cell:
    """A run of an experiment, and the same in virtual time."""
    facts, link = run.facts, run.facts.link
    menu = Menu(tuple(_OPTION.validate_python(each) for each in facts.menu))
    edges_s = [at_s for at_s, _ in facts.bandwidth]
    rates_bps = [rate for _, rate in facts.bandwidth]
    uplink = Trace(run.key.trace, [*edges_s, 2 * edges_s[-1] - edges_s[-2]], rates_bps)
    downlink_bps = _NUMBER.validate_python(link["downlink_bps"])
    rtt_s = _NUMBER.validate_python(link["rtt_s"])
    network = Network(uplink, steady(downlink_bps), rtt_s, share=HEADER_SHARE)
    device = _DEVICE.validate_python(facts.edge)
    setting = Setting(network, device, duration_s=facts.duration_s)
    table = simulate_pair(menu, run.key.policy, setting).table
    simulated = table.latency_s[table.due_s >= WARM_S]
    measured = run.rows["latency_s"][run.rows["at_s"] >= WARM_S]
    return Cell(
        run.key.trace,
        run.key.policy,
        float(measured.mean()),
        float(simulated.mean()),
        float(np.quantile(measured, 0.95)),
        float(np.quantile(simulated, 0.95)),
        len(measured),
        facts.void,
    )


def latencies_of(records: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array(
        [
            each["latency_s"]
            for each in records
            if each["failed"] is None and each["at_s"] >= WARM_S
        ]
    )


def simulate(
    document: Mapping[str, Any], trace: str, policy: str, seconds: float
) -> np.ndarray[Any, Any]:
    """The same run in virtual time, from the moment on that the first request met."""
    spec = document["emulation"]["spec"]
    menu = Menu(tuple(Option(**each) for each in document["menu"]))
    device = Device(**document["edge_profile"]["device"])
    uplink = open_trace(trace)
    downlink = spec["downlink"]
    network = Network(
        uplink,
        steady(downlink) if isinstance(downlink, float | int) else uplink,
        2 * spec["delay_s"],
        share=HEADER_SHARE,
    )
    table = simulate_pair(menu, policy, Setting(network, device, duration_s=seconds)).table
    return np.asarray(table.latency_s[table.due_s >= WARM_S])


def kendall_tau(cells: Sequence[Cell]) -> float:
    """Of the policies' means over all traces: pairs ranked alike less those ranked not."""
    names = sorted({cell.policy for cell in cells})
    means = {
        name: tuple(
            mean(getattr(cell, field) for cell in cells if cell.policy == name)
            for field in ("measured_s", "simulated_s")
        )
        for name in names
    }
    pairs = list(itertools.combinations(names, 2))
    signs = [
        np.sign((means[a][0] - means[b][0]) * (means[a][1] - means[b][1])) for a, b in pairs
    ]
    return float(sum(signs)) / max(1, len(pairs))


def _cells(given: argparse.Namespace) -> Iterator[Cell]:
    if given.experiment is not None:
        yield from map(cell_of, load_runs(given.experiment / "runs"))
        return
    for trace in given.traces.split(","):
        for policy in given.policies.split(","):
            yield run_cell(given, trace, policy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--network", default="lte")
    parser.add_argument("--edge-slowdown", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--traces", default="lte:1,3g:1,wifi:1")
    parser.add_argument("--policies", default="adaptive,race,ewma,edge-only")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--experiment", type=Path, help="folder of an experiment")
    given = parser.parse_args()
    cells = []
    print(
        "trace                     policy               measured  simulated   error requests"
    )
    for cell in _cells(given):
        cells.append(cell)
        print(
            f"{Path(cell.trace).name:25.25} {cell.policy:20.20} "
            f"{cell.measured_s * 1e3:6.1f} ms {cell.simulated_s * 1e3:7.1f} ms "
            f"{cell.error:7.1%} {cell.requests:8} {cell.void or ''}",
            flush=True,
        )
    valid = [cell for cell in cells if cell.void is None]
    if valid:
        errors = [abs(cell.error) for cell in valid]
        print(
            f"mean error {mean(errors):.1%}, worst {max(errors):.1%}, Kendall's tau "
            f"{kendall_tau(valid):.2f}, {len(cells) - len(valid)} of {len(cells)} void"
        )
    if given.output:
        rows = [asdict(cell) | {"error": cell.error} for cell in cells]
        given.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
