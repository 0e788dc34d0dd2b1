"""What simulations say beside real runs over an emulated link: same menu, trace, policy.

    python benchmarks/simulated.py [--model resnet18] [--edge-slowdown 8] [--seconds 40]
        [--traces lte:1,3g:1] [--policies adaptive,race,edge-only] [-o FILE.json]
    python benchmarks/simulated.py --experiment out/private [--draw FILE.png]
    python benchmarks/simulated.py --experiment out/private --lines

The second form simulates the runs of an experiment that has been run for real. In the first,
each cell runs `midstream pair` (real processes, the best backend there is) and then the
simulator on the menu that the run reports. A cell is a policy over a trace: the mean over its
seeds, simulated over measured, is its error. Simulations are repeated with times that scatter
by a hundredth: where an outage falls decides much, and is chance. Targets: at most 5 % in the
mean of all cells, 15 % in the worst, and policies ranked alike (Kendall's tau of their means,
over the traces, at least 0.9). Wants an idle machine. Left out and counted are runs that the
emulator calls void; cells whose devices did not keep the pace of their profiles, so that
computing alone makes the latency differ by `PACE`; and cells in which requests fill `FULL` of
a direction of the link or more: there a queue grows as long as the run, and its mean says how
long that was.

The third form looks at the line alone: each payload leaves when it did for real, and what the
simulated line makes of it is held against how long it took.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from midstream_edge.policies.menu import Menu
from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.results.rows import Rows, RunResult
from midstream_lab.results.run_files import load_runs
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import Arrivals, Every
from midstream_lab.simulation.model.duplex_link import Way
from midstream_lab.simulation.model.link_spec import HEADER_SHARE, Network, steady
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.output.request_table import Table
from midstream_lab.simulation.pair.pair import BACK_TO_BACK, Setting, simulate_pair
from midstream_lab.traces.parsing import open_trace
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.planning.placements import Placement

#: The first requests find cold caches and a first measurement of the link; both are left out.
WARM_S = 3.0
#: Simulations of a cell, and how much their times scatter (deviation of the logarithm): as
#: those of an emulated device that keeps its profile's pace.
SEEDS, SCATTER = 20, 0.01

#: Share of a latency by which computing may be off, and of a link that is as good as full.
PACE, FULL = 0.03, 0.8

_PLACEMENT, _DEVICE, _NUMBER = TypeAdapter(Placement), TypeAdapter(Device), TypeAdapter(float)
_WHOLE = TypeAdapter(int)

#: What is the devices' doing, and not the link's, and where they stand in `stages_s`.
_COMPUTING = ("head_s", "encode_s", "queue_s", "decode_s", "tail_s")
_AT = [FIELDS.index(name) for name in _COMPUTING]
#: What passes between a payload's leaving and its reply's.
_UNTIL_REPLY = ("uplink_s", "queue_s", "decode_s", "tail_s")

Floats = NDArray[np.float64]


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
    """A real pair, and the same in virtual time, from the moment the first request met."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        line = [
            sys.executable, "-m", "midstream", "pair", given.model, "--trace", trace,
            "--policy", policy, "--link", given.link, "--duration", f"{given.seconds}s",
            "--edge-slowdown", str(given.edge_slowdown), "--log", str(log), "--json",
        ]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        records = [json.loads(each) for each in log.read_text().splitlines()]
    document = json.loads(done.stdout)
    spec, validity = document["emulation"]["spec"], document["emulation"]["validity"]
    uplink, downlink = open_trace(trace), spec["downlink"]
    network = Network(
        uplink,
        steady(downlink) if isinstance(downlink, float | int) else uplink,
        2 * spec["delay_s"],
        share=HEADER_SHARE,
        queue_nbytes=spec["queue_nbytes"],
    )
    answered = [record for record in records if record["failed"] is None]
    measured = np.array([record["latency_s"] for record in answered])
    at_s = np.array([record["at_s"] for record in answered])
    device = document["edge_profile"]["device"]
    tables = _simulated(document["menu"], policy, network, device, given.seconds)
    return cell_of(
        trace,
        policy,
        [measured[at_s >= WARM_S]],
        [table.latency_s for table in tables],
        None if validity["valid"] else "; ".join(validity["why"]),
    )


def stored_cell(runs: Sequence[RunResult]) -> Cell:
    """The runs of an experiment that differ in their seeds, and the same in virtual time."""
    first = runs[0]
    facts, network = first.facts, network_of(first)
    kept = [run.rows.where(run.rows["at_s"] >= WARM_S) for run in runs]
    tables = _simulated(
        facts.menu,
        first.key.policy,
        network,
        facts.edge,
        facts.duration_s,
        arrivals_of(first),
    )
    void = "; ".join(run.facts.void for run in runs if run.facts.void)
    return cell_of(
        first.key.trace,
        first.key.policy,
        [rows["latency_s"] for rows in kept],
        [table.latency_s for table in tables],
        void or _full(first) or _late(kept, tables),
    )


def _full(run: RunResult) -> str | None:
    """Why the cell does not count: its requests fill the link."""
    every_s = run.facts.settings.get("load.every")
    if every_s is None:
        return None
    network = network_of(run)
    loads = [
        8 * float(run.rows[name].mean()) / trace.mean_bps / _NUMBER.validate_python(every_s)
        for name, trace in (
            ("payload_nbytes", network.payload_up),
            ("reply_nbytes", network.payload_down),
        )
    ]
    return f"fills {max(loads):.0%} of a link" if max(loads) >= FULL else None


def _late(rows: Sequence[Rows], tables: Sequence[Table]) -> str | None:
    """Why the cell does not count: its devices did not keep their profiles' pace."""
    measured_s = mean(
        float(sum(np.nan_to_num(each[name]) for name in _COMPUTING).mean()) for each in rows
    )
    simulated_s = mean(
        float(np.nansum(table.stages_s[:, _AT], axis=1).mean()) for table in tables
    )
    latency_s = mean(float(np.nanmean(each["latency_s"])) for each in rows)
    off = (measured_s - simulated_s) / latency_s
    return f"computing makes {off:+.0%} of it" if abs(off) > PACE else None


def arrivals_of(run: RunResult) -> Arrivals:
    """When the requests of an experiment's run came."""
    every_s = run.facts.settings.get("load.every")
    return BACK_TO_BACK if every_s is None else Every(_NUMBER.validate_python(every_s))


def network_of(run: RunResult) -> Network:
    """The network that a run of an experiment met."""
    facts, link = run.facts, run.facts.link
    edges_s = [at_s for at_s, _ in facts.bandwidth]
    rates_bps = [rate for _, rate in facts.bandwidth]
    return Network(
        Trace(run.key.trace, [*edges_s, 2 * edges_s[-1] - edges_s[-2]], rates_bps),
        steady(_NUMBER.validate_python(link["downlink_bps"])),
        _NUMBER.validate_python(link["rtt_s"]),
        share=HEADER_SHARE,
        queue_nbytes=_WHOLE.validate_python(link["queue_nbytes"]),
    )


def lines(runs: Sequence[RunResult]) -> None:
    """Print, run by run, how long payloads took up the link, and what a line makes of them."""
    print("trace                     policy               payloads  measured      line  apart")
    for run in runs:
        network, rows = network_of(run), run.rows
        way = Way(network, Draws(0))
        by_cloud = (rows["where"] == "cloud") & np.isfinite(rows["uplink_s"])
        rows = rows.where(by_cloud)
        left_s = rows["trace_s"] + rows["head_s"] + rows["encode_s"]
        sizes = rows["payload_nbytes"]
        replied_s = left_s + sum(rows[name] for name in _UNTIL_REPLY)
        arrived_s = []
        for at_s, nbytes, reply_s, reply_nbytes in zip(
            left_s, sizes, replied_s, rows["reply_nbytes"], strict=True
        ):
            arrived_s.append(way.send_up(at_s, nbytes))
            way.send_down(reply_s, reply_nbytes)
        kept = rows["at_s"] >= WARM_S
        if kept.any():
            measured_s = rows["uplink_s"][kept]
            replayed_s = (np.array(arrived_s) - left_s)[kept]
            apart_s = float(np.median(replayed_s - measured_s))
            print(
                f"{run.key.trace:25.25} {run.key.policy:20.20} {int(kept.sum()):8} "
                f"{measured_s.mean() * 1e3:6.1f} ms {replayed_s.mean() * 1e3:6.1f} ms "
                f"{apart_s * 1e3:+6.2f} ms in the median"
            )


def _simulated(
    menu: Sequence[object],
    policy: str,
    network: Network,
    device: object,
    duration_s: float,
    arrivals: Arrivals = BACK_TO_BACK,
) -> list[Table]:
    """Requests after the first seconds, a table a seed."""
    placements = Menu(tuple(_PLACEMENT.validate_python(each) for each in menu))
    found = []
    for seed in range(SEEDS):
        setting = Setting(
            network,
            _DEVICE.validate_python(device),
            arrivals=arrivals,
            duration_s=duration_s,
            seed=seed,
            machine=Machine(sigma=SCATTER),
        )
        table = simulate_pair(placements, policy, setting).table
        found.append(table.where(table.due_s >= WARM_S))
    return found


def cell_of(
    trace: str,
    policy: str,
    measured: Sequence[Floats],
    simulated: Sequence[Floats],
    void: str | None,
) -> Cell:
    """Every run counts the same, however many requests it had room for."""

    def p95_s(runs: Sequence[Floats]) -> float:
        return mean(float(np.quantile(run, 0.95)) for run in runs)

    return Cell(
        Path(trace).name,
        policy,
        mean(float(run.mean()) for run in measured),
        mean(float(run.mean()) for run in simulated),
        p95_s(measured),
        p95_s(simulated),
        sum(map(len, measured)),
        void,
    )


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


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Simulated over measured, a point a cell, with what is asked as lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for policy in sorted({cell.policy for cell in cells}):
        mine = [cell for cell in cells if cell.policy == policy]
        axes.scatter(
            [cell.measured_s * 1e3 for cell in mine],
            [100 * cell.error for cell in mine],
            s=18,
            label=policy,
        )
    for error in (-15, 0, 15):
        axes.axhline(error, color="grey", linewidth=0.8, linestyle="-" if error == 0 else ":")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("mean latency measured with real processes, ms")
    axes.set_ylabel("simulated latency off by, %")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _cells(given: argparse.Namespace) -> Iterator[Cell]:
    if given.experiment is not None:
        found = sorted(load_runs(given.experiment / "runs"), key=_cell_key)
        runs = [run for run in found if (run.rows["at_s"] >= WARM_S).any()]
        if len(runs) < len(found):
            print(f"{len(found) - len(runs)} runs left out: no request after {WARM_S:g} s")
        for _, alike in itertools.groupby(runs, key=_cell_key):
            yield stored_cell(list(alike))
        return
    for trace in given.traces.split(","):
        for policy in given.policies.split(","):
            yield run_cell(given, trace, policy)


def _cell_key(run: RunResult) -> tuple[str, str, str]:
    return run.key.model, run.key.trace, run.key.policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--link", default="lte")
    parser.add_argument("--edge-slowdown", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--traces", default="lte:1,3g:1,wifi:1")
    parser.add_argument("--policies", default="adaptive,race,ewma,edge-only")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--draw", type=Path, help="a picture of all cells")
    parser.add_argument("--experiment", type=Path, help="folder of an experiment")
    parser.add_argument("--lines", action="store_true", help="of the line alone")
    given = parser.parse_args()
    if given.lines and given.experiment is None:
        parser.error("--lines needs runs that were recorded: give --experiment")
    if given.lines:
        lines(sorted(load_runs(given.experiment / "runs"), key=_cell_key))
        return
    if given.draw:
        check_picture(given.draw)
    cells = []
    print(
        "trace                     policy               measured  simulated   error requests"
    )
    for cell in _cells(given):
        cells.append(cell)
        print(
            f"{cell.trace:25.25} {cell.policy:20.20} "
            f"{cell.measured_s * 1e3:6.1f} ms {cell.simulated_s * 1e3:7.1f} ms "
            f"{cell.error:7.1%} {cell.requests:8} {cell.void or ''}",
            flush=True,
        )
    valid = [cell for cell in cells if cell.void is None]
    if valid:
        errors = [abs(cell.error) for cell in valid]
        print(
            f"mean error {mean(errors):.1%}, median {median(errors):.1%}, worst "
            f"{max(errors):.1%}, Kendall's tau {kendall_tau(valid):.2f}, "
            f"{len(cells) - len(valid)} of {len(cells)} left out"
        )
    if given.output:
        rows = [asdict(cell) | {"error": cell.error} for cell in cells]
        given.output.write_text(json.dumps(rows, indent=2) + "\n")
    if given.draw:
        draw(valid, given.draw)


if __name__ == "__main__":
    main()
