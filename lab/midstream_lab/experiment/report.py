"""One HTML file that holds all of an experiment: pictures, tables, data, no network.

Charts are SVG drawn here, the timeline is SVG drawn by the page's own script from data inside
the page, and colours are the style sheet's, so that one file serves screen, dark screen and
print. Why no library draws: docs/decisions/0013-reports-draw-their-own-pictures.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from midstream_lab.experiment.comparison import BEST_FIXED
from midstream_lab.experiment.results import RunResult, whole, write_table
from midstream_lab.experiment.sections import Story
from midstream_lab.experiment.summary import Summary, summarise
from midstream_lab.experiment.timelines import WHERE, timelines
from midstream_lab.experiment.words import chief_of, counted, percent, span, verdict

#: Names of the files that an experiment writes beside its runs.
REPORT, SUMMARY, TABLE = "report.html", "summary.json", "results.csv.gz"

_ANSWERS = {
    "cloud": "from the cloud",
    "edge": "edge-only",
    "edge-before-cloud": "the edge was first",
    "edge-after-cloud-failed": "finished on the edge",
}


def write_outcome(
    results: Sequence[RunResult], folder: Path, *, title: str, scenario: str
) -> Summary:
    """Summary, table and report of `results` into `folder`, each whole or not at all."""
    summary = summarise(results)
    with whole(folder / SUMMARY, "w") as file:
        json.dump(summary.to_dict(), file, indent=2, allow_nan=False)
    write_table(results, folder / TABLE)
    with whole(folder / REPORT, "w") as file:
        file.write(render_report(results, summary, title=title, scenario=scenario))
    return summary


def render_report(
    results: Sequence[RunResult], summary: Summary, *, title: str, scenario: str
) -> str:
    """The page. `scenario` is shown as it is: what somebody needs to run it again."""
    story = Story(results, summary, scenario)
    sections = list(story.sections())
    contents = "".join(f'<a href="#{e.id}">{escape(e.title)}</a>' for e in sections)
    sentences = verdict(summary, story.labels)
    page = files("midstream_lab.experiment").joinpath("page")
    return Template(page.joinpath("report.html").read_text("utf-8")).substitute(
        title=escape(title),
        kicker=escape(_kicker(story)),
        verdict="".join(f"<p>{escape(each)}</p>" for each in sentences),
        warnings=_warnings(story),
        tiles=_tiles(summary),
        contents=contents,
        sections="\n".join(map(str, sections)),
        footer=escape(_footer(story)),
        style=page.joinpath("report.css").read_text("utf-8"),
        script=page.joinpath("report.js").read_text("utf-8"),
        data=_embedded(_data(story)),
    )


def _kicker(story: Story) -> str:
    backends = dict.fromkeys(
        str(each.facts.link["backend"])
        for each in story.results
        if "backend" in each.facts.link
    )
    how = "Simulated" if story.summary.kind == "simulated" else "Measured on real processes"
    over = f" over an emulated link ({', '.join(backends)})" if backends else ""
    runs = counted(story.summary.runs, "run")
    return f"{how}{over} · {runs}, {counted(story.summary.requests, 'request')}"


def _warnings(story: Story) -> str:
    """What must not be overlooked, above everything else."""
    warnings, remarks = [], []
    if story.summary.void:
        void = counted(len(story.summary.void), "run")
        warnings.append(
            f"{void} did not keep to the configured network and count for nothing."
        )
    slowed = [float(str(each.facts.edge.get("slowdown", 1.0))) for each in story.results]
    if max(slowed, default=1.0) > 1:
        remarks.append(
            f"The edge is emulated, {max(slowed):g} times slower than this machine."
        )
    versions = {each.facts.versions.get("midstream") for each in story.results}
    if len(versions) > 1:
        warnings.append(
            f"Runs of several versions are mixed: {', '.join(map(str, versions))}."
        )
    return "".join(
        f'<p class="{kind}">{escape(each)}</p>'
        for kind, said in (("remark", remarks), ("warning", warnings))
        for each in said
    )


def _tiles(summary: Summary) -> str:
    chief = chief_of(summary)
    if chief is None:
        return ""
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
    best = summary.find(BEST_FIXED)
    if best is not None and best.regret_mean is not None:
        tiles.insert(2, (percent(best.regret_mean), "mean regret of the best fixed placement"))
    return "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span>{escape(words)}</span></div>'
        for figure, words in tiles
    )


def _footer(story: Story) -> str:
    versions = dict.fromkeys(
        f"midstream {each.facts.versions.get('midstream', '')}" for each in story.results
    )
    return (
        f"{', '.join(versions) or 'midstream'} · this file needs nothing else: data, pictures "
        f"and script are inside. All requests are in {TABLE}, all figures in {SUMMARY}."
    )


def _data(story: Story) -> dict[str, Any]:
    """What the page's script draws from."""
    chief = chief_of(story.summary)
    colours = {model: story.colours(model) for model in story.models}
    return {
        "chief": chief.policy if chief else "",
        "names": story.names,
        "seeds": len({each.key.seed for each in story.counted}),
        "where": WHERE,
        "answers": [_ANSWERS[each] for each in WHERE],
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


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")
