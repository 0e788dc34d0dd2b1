"""`midstream simulate SCENARIO.toml`: many edges that share a cloud."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from midstream.cli.output import console
from midstream.cli.output.simulated import ANSWERED, LEGEND, chosen_most, remarks, who_answered
from midstream_lab.report.page import SUMMARY, is_page
from midstream_lab.report.wording import counted
from midstream_lab.simulation.fleet.fleet import Fleet, FleetOutcome, simulate_fleet
from midstream_lab.simulation.fleet.report import fleet_document, write_fleet_report
from midstream_lab.simulation.fleet.scenario import read_fleet
from midstream_lab.simulation.fleet.statistics import Energy, Operation, operation
from midstream_lab.simulation.output.request_table import Table, rows
from midstream_lab.simulation.output.statistics import Figures
from midstream_partitioner.units import format_nbytes
from midstream_wire.text import read_text


def run_scenario(path: Path, *, log: Path | None, report: Path | None, as_json: bool) -> None:
    """Run the fleet described in `path` and tell what an operator asks."""
    scenario, fleet = read_fleet(path)
    with console.progress(f"simulating {path.name}") as tick:
        outcome = simulate_fleet(fleet, progress=lambda share: tick(round(share * 100), 100))
    found = operation(outcome, scenario.prices)
    if log is not None:
        _write_log(log, outcome)
    if report is not None:
        page = write_fleet_report(
            outcome, found, place=report, title=f"{path.stem}, simulated",
            scenario=read_text(path, "a scenario"),
        )  # fmt: skip
    if as_json:
        console.print_json(fleet_document(fleet, found))
        return
    _print(path, fleet, found)
    for sentence in remarks(_tables(outcome)):
        console.say(sentence)
    if report is not None:
        console.say(f"{page}" if is_page(report) else f"{page}, {report / SUMMARY}")


def _write_log(path: Path, outcome: FleetOutcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = _tables(outcome)
    with path.open("w", encoding="utf-8") as file:
        for group in outcome.fleet.groups:
            for row in rows(tables[group.name], group.menu.placements):
                file.write(json.dumps({"group": group.name, **row}) + "\n")


def _tables(outcome: FleetOutcome) -> dict[str, Table]:
    """The rows of each group."""
    edge, bounds = outcome.table.edge, pairwise(outcome.starts)
    return {
        group.name: outcome.table.where((edge >= first) & (edge < end))
        for group, (first, end) in zip(outcome.fleet.groups, bounds, strict=True)
    }


def _print(path: Path, fleet: Fleet, found: Operation) -> None:
    edges = sum(group.count for group in fleet.groups)
    table = console.table(
        f"{path.name}: {edges} edges, simulated for {fleet.duration_s:g} s",
        *("edges", "requests", "mean ms", "p50", "p95", "p99", "missed"),
        *(*ANSWERED, "wait ms", "payloads", "W an edge", "J a request", "chosen most"),
        left=("edges", "chosen most"),
    )
    for name, each in found.groups.items():
        table.add_row(name, *_cells(each, found.energies[name]))
    if len(found.groups) > 1:
        table.add_row("all", *_cells(found.total, found.energy))
    console.show(table)
    console.say(
        f"{LEGEND}; wait: in the cloud's queue; W an edge: in the mean, idling included; "
        "J a request: on top of idling"
    )
    cloud = found.cloud
    console.say(
        f"cloud: {cloud.utilisation:.0%} busy, "
        f"{counted(cloud.most_replicas, 'replica')} at most, "
        f"{cloud.replica_hours:.3g} replica hours, {cloud.refused:,} refused or lost, "
        f"{format_nbytes(cloud.uplink_nbytes)} up "
        f"({format_nbytes(found.probe_nbytes)} of it probes), "
        f"{format_nbytes(cloud.downlink_nbytes)} down, cost {cloud.cost:.4g}"
    )


def _cells(found: Figures, energy: Energy) -> list[str]:
    times = (found.mean_s, found.p50_s, found.p95_s, found.p99_s)
    return [
        str(found.requests),
        *("" if each is None else console.ms(each) for each in times),
        "" if found.missed is None else f"{found.missed:.1%}",
        *who_answered(found),
        "" if found.wait_mean_s is None else console.ms(found.wait_mean_s),
        format_nbytes(found.uplink_nbytes),
        f"{energy.mean_w:.3g}",
        "" if energy.request_j is None else f"{energy.request_j:.3g}",
        chosen_most(found),
    ]
