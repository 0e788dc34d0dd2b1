"""`midstream experiment`: policies against traces, models and seeds, and their report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from midstream.cli.flags.common import Json
from midstream.cli.flags.destinations import page as checked_page
from midstream.cli.output import console
from midstream_lab.experiment import runner
from midstream_lab.experiment.scenario import Experiment, load_experiment
from midstream_lab.processes.folder_lock import locked
from midstream_lab.report.report import REPORT, SUMMARY, TABLE, write_outcome
from midstream_lab.report.wording import (
    joules,
    labels_of,
    milliseconds,
    percent,
    policy_words,
    span,
    verdict,
)
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import Summary
from midstream_partitioner.machine import usable_cores
from midstream_partitioner.places import check_folder
from midstream_wire.errors import MidstreamError, UsageError

#: What an experiment's folder holds.
_OWN = (runner.MODELS, runner.RUNS, REPORT, SUMMARY, TABLE, ".")


def experiment(
    scenario: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.toml", help="The scenario (docs/reference/experiments.md)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for runs and report. Default: out/NAME."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            callback=checked_page, help="File for the report (.html), instead of the folder."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of runs at a time. Default: the scenario's."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Replace runs that another scenario left in the folder."),
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Only report on the runs that have finished.")
    ] = False,
    json: Json = False,
) -> None:
    """Run policies over traces, models and seeds with real processes; write a report.

    What has finished is kept: after an interruption the same command goes on where it was.
    The folder then holds a report in one HTML file, all figures, and a row per request.
    """
    found = load_experiment(scenario)
    folder = output or Path("out") / scenario.stem
    check_folder(folder, "an experiment", _OWN)
    page = folder / REPORT if report is None else report
    with locked(folder):
        if report_only:
            results = runner.stored_runs(folder)
            if not results:
                raise UsageError(
                    f"{folder} must hold finished runs to report on, and holds none: run the "
                    "experiment without --report-only"
                )
            outcome = runner.Outcome(tuple(results), len(results))
        else:
            outcome = _run(found, folder, jobs=jobs or found.scenario.jobs, fresh=fresh)
        title = found.scenario.title
        summary = write_outcome(
            outcome.results, folder, title=title, scenario=found.text, page=page
        )
    if json:
        console.print_json(_document(title, folder, page, outcome, summary))
    else:
        _print(title, folder, page, outcome.results, summary)
    if outcome.failures:
        key, why = outcome.failures[0]
        raise MidstreamError(
            f"every run must end with its figures, and {len(outcome.failures)} did not; the "
            f"first was {key}: {why}: give the command again to repeat them"
        )


def _run(found: Experiment, folder: Path, *, jobs: int, fresh: bool) -> runner.Outcome:
    cores = usable_cores()
    if jobs > 1 and 2 * jobs > cores:
        _tell(
            f"{jobs} runs at a time on {cores} cores disturb each other: the latencies are "
            "those of busy devices"
        )
    try:
        with _told() as tell:
            return runner.run_experiment(
                found, folder, jobs=jobs, fresh=fresh, say=_tell, tell=tell
            )
    except KeyboardInterrupt:
        _tell(
            "interrupted; what has finished is kept, and the same command goes on from there"
        )
        raise


def _tell(what: str) -> None:
    console.say(what, to=console.err, style="dim")


@contextmanager
def _told() -> Iterator[Callable[[runner.Progress], None]]:
    """A bar with the time that is left on the terminal; a line per finished run elsewhere."""
    if not console.err.is_terminal:
        said = -1

        def line(state: runner.Progress) -> None:
            nonlocal said
            if state.done > max(said, state.resumed):
                _tell(_progress_words(state))
            said = state.done

        yield line
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
        MofNCompleteColumn(), TextColumn("{task.fields[left]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")

        def draw(state: runner.Progress) -> None:
            bar.update(
                task,
                completed=state.done,
                total=state.total,
                description=", ".join(map(str, state.active[:2])) or "finishing",
                left=_left(state),
            )

        yield draw


def _left(state: runner.Progress) -> str:
    words = [f"about {_rounded(state.remaining_s)} left"]
    words += [f"{state.failed} failed"] if state.failed else []
    words += [f"{state.void} void"] if state.void else []
    return ", ".join(words)


def _rounded(seconds: float) -> str:
    """To five seconds, or to minutes where there are many."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _progress_words(state: runner.Progress) -> str:
    return f"{state.done} of {state.total} runs done, {_left(state)}"


def _document(
    title: str, folder: Path, page: Path, outcome: runner.Outcome, summary: Summary
) -> dict[str, Any]:
    return {
        "title": title,
        "folder": str(folder),
        "report": str(page),
        "table": str(folder / TABLE),
        "resumed": outcome.resumed,
        "failures": [{"run": str(key), "reason": why} for key, why in outcome.failures],
        **summary.to_dict(),
    }


def _print(
    title: str, folder: Path, page: Path, results: tuple[RunResult, ...], summary: Summary
) -> None:
    labels = labels_of(results)
    rows = console.table(
        title, "policy", "regret", "95 %", "worst", "mean ms", "p50", "p95", "p99", "J",
        "hedges", "switches", "lost", left=("policy",),
    )  # fmt: skip
    for each in summary.policies:
        rows.add_row(
            console.elided(policy_words(each.policy, labels)),
            percent(each.regret_mean),
            span(each.regret_mean_low, each.regret_mean_high),
            percent(each.regret_worst),
            *(
                milliseconds(time)
                for time in (each.mean_s, each.p50_s, each.p95_s, each.p99_s)
            ),
            joules(each.energy_j),
            str(each.hedges),
            str(each.switches),
            str(each.lost + each.duplicated),
        )
    console.show(rows)
    for sentence in verdict(summary, labels):
        console.say(sentence)
    if summary.void:
        first = summary.void[0]
        console.say(
            f"{len(summary.void)} runs are void and count for nothing; {first.run}: "
            f"{first.reason}. The same command repeats them.",
            style="yellow",
        )
    console.say(f"report: {page}; figures: {folder / SUMMARY}; rows: {folder / TABLE}")
