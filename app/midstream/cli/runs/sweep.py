"""`midstream simulate MODEL --sweep`: maps of what would win where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midstream.cli.flags.simulation import Sweep
from midstream.cli.output import console
from midstream_lab.processes.folder_lock import locked
from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.report.page import REPORT
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.sweep.checkpoint import POINTS, Store
from midstream_lab.simulation.sweep.executors import check_engine, run_all
from midstream_lab.simulation.sweep.map import PICTURE, TABLE, draw_map, write_table
from midstream_lab.simulation.sweep.report import sweep_document, write_sweep_report
from midstream_lab.simulation.sweep.sweep import Found, Grid, evaluate, parse_grid, tasks
from midstream_partitioner.places import check_folder

#: What a sweep's folder holds.
_OWN = (POINTS, TABLE, PICTURE, REPORT, ".")


def check_sweep(sweep: Sweep) -> None:
    """Raise `UsageError` where a sweep could not run, or be kept."""
    _grid(sweep)
    check_picture(sweep.folder / PICTURE)
    check_engine(sweep.engine, sweep.jobs, sweep.address)
    check_folder(sweep.folder, "a sweep", _OWN)


def _grid(sweep: Sweep) -> Grid:
    return parse_grid([each for each in sweep.axes or () if each != "default"])


def run_sweep(
    measured: MeasuredModel,
    machine: Machine,
    sweep: Sweep,
    *,
    page: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Every placement at every point of the grid; goes on where it was interrupted.

    The report is `page`, or lies in the sweep's folder with the rest.
    """
    grid, folder = _grid(sweep), sweep.folder
    asked = tasks(grid, measured.menu, measured.device, machine=machine, seed=seed)
    with locked(folder):
        store = Store(folder, asked)
        with console.progress(f"sweeping {len(asked)} points") as tick:
            missing = store.missing
            ran = run_all(
                evaluate,
                [asked[at] for at in missing],
                engine=sweep.engine,
                jobs=sweep.jobs,
                address=sweep.address,
            )
            for number, (at, found) in enumerate(ran, 1 + len(asked) - len(missing)):
                store.add(missing[at], found)
                tick(number, len(asked))
        results = store.results()
        write_table(results, folder / TABLE)
        title = f"{measured.name}: what wins, and by how much"
        draw_map(results, grid, folder / PICTURE, title=title)
        report = write_sweep_report(results, grid, measured, place=page or folder, seed=seed)
    document = _document(measured, results, folder, report, seed)
    if as_json:
        console.print_json(document)
        return
    _print(document, results)
    console.say(f"{folder / TABLE}, {folder / PICTURE}, {report}")


def _document(
    measured: MeasuredModel, results: Sequence[Found], folder: Path, report: Path, seed: int
) -> dict[str, Any]:
    return {
        **sweep_document(measured, results, seed),
        "table": str(folder / TABLE),
        "picture": str(folder / PICTURE),
        "report": str(report),
    }


def _print(document: dict[str, Any], results: Sequence[Found]) -> None:
    table = console.table(
        f"{document['model']}: what wins at {len(results)} points",
        *("wins", "points", "share", "gain, median", "gain, most"),
        left=("wins",),
    )
    for label, count in Counter(each.label for each in results).most_common():
        gains = sorted(each.gain or 0.0 for each in results if each.label == label)
        table.add_row(
            console.elided(label),
            str(count),
            f"{count / len(results):.0%}",
            f"{gains[len(gains) // 2]:.1%}",
            f"{gains[-1]:.1%}",
        )
    console.show(table)
    console.say("gain: how much longer the better of edge-only and cloud-only takes")
