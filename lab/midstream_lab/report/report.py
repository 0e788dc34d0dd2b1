"""One HTML file that holds all of an experiment: pictures, tables, data, no network.

The charts are drawn here, the timeline by the page's own script from data inside the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midstream_lab.report.page import REPORT, SUMMARY, Page, footer, write_summary
from midstream_lab.report.sections import Story
from midstream_lab.report.timelines import WHERE, timelines
from midstream_lab.report.wording import (
    ANSWERS,
    chief_of,
    counted,
    percent,
    span,
    verdict,
)
from midstream_lab.results.comparison import BEST_FIXED
from midstream_lab.results.rows import RunResult
from midstream_lab.results.run_files import write_table
from midstream_lab.results.summary import Summary, summarise
from midstream_partitioner.units import format_duration

#: Every request of every run, beside the report.
TABLE = "results.csv.gz"

__all__ = ["REPORT", "SUMMARY", "TABLE", "render_report", "write_outcome", "write_page"]


def write_outcome(
    results: Sequence[RunResult],
    folder: Path,
    *,
    title: str,
    scenario: str,
    page: Path | None = None,
) -> Summary:
    """Summary, table and report of `results` into `folder`, each whole or not at all.

    The report is `page` instead, where that is given.
    """
    summary = summarise(results)
    write_summary(summary.to_dict(), folder)
    write_table(results, folder / TABLE)
    _page(results, summary, title, scenario).write(page or folder)
    return summary


def write_page(results: Sequence[RunResult], path: Path, *, title: str, scenario: str) -> None:
    """The report alone, as the file `path`, whole or not at all."""
    _page(results, summarise(results), title, scenario, alone=True).write(path)


def render_report(
    results: Sequence[RunResult], summary: Summary, *, title: str, scenario: str
) -> str:
    """The page. `scenario` is shown as it is: what somebody needs to run it again."""
    return _page(results, summary, title, scenario).render()


def _page(
    results: Sequence[RunResult],
    summary: Summary,
    title: str,
    scenario: str,
    *,
    alone: bool = False,
) -> Page:
    story = Story(results, summary, scenario)
    return Page(
        title=title,
        kicker=_kicker(story),
        verdict=verdict(summary, story.labels),
        tiles=_tiles(summary),
        sections=list(story.sections()),
        footer=_footer(story, alone=alone),
        data=_data(story),
        remarks=_remarks(story),
        warnings=_warnings(story),
    )


def _kicker(story: Story) -> str:
    backends = dict.fromkeys(
        str(each.facts.link["backend"])
        for each in story.results
        if "backend" in each.facts.link
    )
    simulated = story.summary.kind == "simulated"
    how = "Simulated" if simulated else "Measured on real processes"
    over = f" over an emulated link ({', '.join(backends)})" if backends else ""
    runs = counted(story.summary.runs, "run")
    return f"{how}{over} · {runs}, {counted(story.summary.requests, 'request')}"


def _remarks(story: Story) -> list[str]:
    slowed = [float(str(each.facts.edge.get("slowdown", 1.0))) for each in story.results]
    slowdown = max(slowed, default=1.0)
    if slowdown <= 1:
        return []
    simulated = story.summary.kind == "simulated"
    machine = "the machine that was measured" if simulated else "this machine"
    return [f"The edge is emulated, {slowdown:g} times slower than {machine}."]


def _warnings(story: Story) -> list[str]:
    """Return what must not be overlooked."""
    warnings = []
    if story.summary.void:
        void = counted(len(story.summary.void), "run")
        warnings.append(f"{void} did not keep to the configured link and count for nothing.")
    versions = {each.facts.versions.get("midstream") for each in story.results}
    if len(versions) > 1:
        warnings.append(
            f"Runs of several versions are mixed: {', '.join(map(str, versions))}."
        )
    return warnings


def _tiles(summary: Summary) -> list[tuple[str, str]]:
    chief = chief_of(summary)
    if chief is None:
        return []
    interval = span(chief.regret_mean_low, chief.regret_mean_high)
    tiles = [
        (
            percent(chief.regret_mean),
            f"mean regret of {chief.policy}"
            + (f"; 95 %: {interval}" if chief.regret_mean_low is not None else ""),
        ),
        (percent(chief.regret_worst), f"worst trace: {chief.regret_worst_at}"),
        (f"{(chief.p99_s or 0) * 1e3:,.0f} ms", "99th percentile of its latencies"),
        (f"{chief.lost + chief.duplicated:,}",
         f"lost or answered twice, of {counted(chief.requests, 'request')}"),
        (percent(chief.probe_share), "of what it sent were probes"),
    ]  # fmt: skip
    if chief.missed is not None and summary.deadline_s is not None:
        deadline = format_duration(summary.deadline_s)
        tiles.insert(3, (percent(chief.missed), f"over the deadline of {deadline}"))
    best = summary.find(BEST_FIXED)
    if best is not None and best.regret_mean is not None:
        tiles.insert(2, (percent(best.regret_mean), "mean regret of the best fixed placement"))
    return tiles


def _footer(story: Story, *, alone: bool) -> str:
    versions = dict.fromkeys(
        f"midstream {each.facts.versions.get('midstream', '')}" for each in story.results
    )
    return footer(
        ", ".join(versions) or "midstream",
        "" if alone else f"All requests are in {TABLE}, all figures in {SUMMARY}.",
    )


def _data(story: Story) -> dict[str, Any]:
    """Return what the page's script draws from."""
    chief = chief_of(story.summary)
    colours = {model: story.colours(model) for model in story.models}
    return {
        "chief": chief.policy if chief else "",
        "names": story.names,
        "seeds": len({each.key.seed for each in story.counted}),
        "where": WHERE,
        "answers": [ANSWERS[each] for each in WHERE],
        "placements": {
            model: [
                {"label": story.placement_words(each), "colour": colours[model][each]}
                for each in story.placements[model]
            ]
            for model in story.models
        },
        "runs": timelines(story.counted, story.placements),
        "best_fixed": [asdict(each) for each in story.summary.best_fixed],
    }
