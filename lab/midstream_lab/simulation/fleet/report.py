"""A fleet's report: the page of experiments' reports, with what an operator asks in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.menu import Menu
from midstream_lab.report import charts, tables
from midstream_lab.report.page import (
    SUMMARY,
    Page,
    Section,
    card,
    footer,
    is_page,
    note,
    write_summary,
)
from midstream_lab.report.palette import looks, placement_colours
from midstream_lab.report.wording import (
    ANSWERS,
    counted,
    joules,
    milliseconds,
    percent,
)
from midstream_lab.results.bootstrap import Floats
from midstream_lab.simulation.fleet.charts import (
    QUANTILES,
    Failure,
    Row,
    history_chart,
    quantiles_chart,
)
from midstream_lab.simulation.fleet.fleet import Fleet, FleetOutcome, Group
from midstream_lab.simulation.fleet.statistics import Operation
from midstream_lab.simulation.fleet.tables import (
    ALL,
    MOMENT,
    clock,
    cloud_table,
    figures_tables,
    groups_table,
    intervals_table,
    lasting,
)
from midstream_lab.simulation.fleet.wording import (
    UNSENT,
    failures_told,
    hours_of,
    placement_told,
    placements_told,
    spared_told,
)
from midstream_lab.simulation.output.request_table import ENDS
from midstream_partitioner.units import format_duration, format_nbytes

Mask = NDArray[np.bool_]

#: Lines of more groups cannot be told apart: all requests become one.
MAX_CDFS = 8
#: Rows of a table that somebody reads; the page's data has every interval.
MAX_INTERVALS = 200

#: Who answered, from the edge's end to the cloud's, and how it is drawn.
_ENDS = {
    "failed": ("nobody", "var(--ink)"),
    "edge-after-cloud-failed": (ANSWERS["edge-after-cloud-failed"], "var(--bad)"),
    "edge": (ANSWERS["edge"], "var(--edge)"),
    "edge-before-cloud": (ANSWERS["edge-before-cloud"], "var(--race)"),
    "cloud": (ANSWERS["cloud"], "var(--chief)"),
}

_WHO = {
    "cloud": "the cloud",
    "edge-before-cloud": "the edge before the cloud",
    "edge-after-cloud-failed": "the edge after the cloud failed",
    "edge": "the edge alone",
}
_ALL_ANSWERED = "no request stayed without an answer"

_LATENCY = (
    "From when a request was due until its answer. Dot: the median; ring: 95 % took no "
    "longer; diamond: 99 %; red stroke: the deadline."
)
_HISTORY = (
    "Interval by interval. Shaded: what failed, by the numbers below. Where intervals are "
    "finer than the picture, the worst of neighbours is drawn."
)
_FIGURES = (
    "Power and energy are the edges', by what their devices declare, not measured. W an edge: "
    "what one draws in the mean, idling included. J a request: what a request takes on top of "
    "idling, for computing, sending and receiving. What waits is in the cloud's queue."
)


def fleet_document(fleet: Fleet, found: Operation) -> dict[str, Any]:
    """A run as plain values: `FleetRun` of docs/reference/json.md."""
    return {
        "duration_s": fleet.duration_s,
        "seed": fleet.seed,
        "edges": sum(group.count for group in fleet.groups),
        **found.to_dict(),
    }


def write_fleet_report(
    outcome: FleetOutcome, found: Operation, *, place: Path, title: str, scenario: str
) -> Path:
    """`report.html` and `summary.json` into `place`, or the report alone as this .html.

    Each is whole or not there at all. `scenario` is shown as it is: what somebody needs to
    run it again.
    """
    alone = is_page(place)
    if not alone:
        write_summary(fleet_document(outcome.fleet, found), place)
    page = fleet_page(outcome, found, title=title, scenario=scenario, alone=alone)
    return page.write(place)


def fleet_page(
    outcome: FleetOutcome, found: Operation, *, title: str, scenario: str, alone: bool = False
) -> Page:
    """The page, which depends on nothing but these; `alone` without `summary.json`."""
    story = _Story(outcome, found, scenario)
    fleet = outcome.fleet
    emulated = dict.fromkeys(
        group.device.label() for group in fleet.groups if group.device.emulated
    )
    return Page(
        title=title,
        kicker=(
            f"Simulated · {counted(story.edges, 'edge')}, "
            f"{counted(found.cloud.most_replicas, 'replica')} at most, "
            f"{counted(found.total.requests, 'request')}"
        ),
        verdict=list(story.verdict()),
        tiles=list(story.tiles()),
        sections=list(story.sections()),
        footer=footer(
            f"midstream {metadata.version('midstream')}",
            "" if alone else f"The figures stand in {SUMMARY} too.",
        ),
        data=fleet_document(fleet, found),
        remarks=[f"Edges are emulated devices: {each}." for each in emulated],
        warnings=[],
    )


@final
class _Story:
    """A run with the names and figures that all sections share."""

    def __init__(self, outcome: FleetOutcome, found: Operation, scenario: str) -> None:
        self.outcome = outcome
        self.fleet = outcome.fleet
        self.found = found
        self.scenario = scenario
        self.edges = sum(group.count for group in self.fleet.groups)
        self.names = {name: name for name in found.groups}
        self.deadlines_s = {group.name: group.deadline_s for group in self.fleet.groups}
        self.failures = sorted(failures_told(outcome), key=lambda each: each.at_s)

    def verdict(self) -> Iterator[str]:
        """Return what came out, the most important first."""
        yield self._promise()
        yield from self._worst_group()
        yield self._who_answered()
        yield self._the_cloud()
        yield from self._what_failures_did()

    def _promise(self) -> str:
        total = self.found.total
        asked = (
            f"{counted(self.edges, 'edge')} asked {counted(total.requests, 'time')} in "
            f"{lasting(self.fleet.duration_s)}"
        )
        if total.p50_s is None:
            return f"{asked}, and nothing was answered."
        missed = ""
        if total.missed is not None:
            missed = f"; {percent(total.missed)} missed their deadline"
        return (
            f"{asked}: half of the answers took {milliseconds(total.p50_s)} ms or less, "
            f"99 % took {milliseconds(total.p99_s)} ms or less{missed}."
        )

    def _worst_group(self) -> Iterator[str]:
        missed = {n: e.missed for n, e in self.found.groups.items() if e.missed is not None}
        if len(missed) > 1 and any(missed.values()):
            name = max(missed, key=lambda each: missed[each])
            deadline = format_duration(self.deadlines_s[name] or 0.0)
            yield (
                f"Of the groups, {name} missed most: {percent(missed[name])} over {deadline}."
            )

    def _who_answered(self) -> str:
        total = self.found.total
        count = max(1, total.requests)
        told = [
            f"{who} answered {percent(total.ends[end] / count)}"
            for end, who in _WHO.items()
            if total.ends[end]
        ]
        lost = total.ends["failed"]
        told.append(f"{counted(lost, 'request')} got no answer" if lost else _ALL_ANSWERED)
        said = "; ".join(told)
        return f"{said[0].upper()}{said[1:]}."

    def _the_cloud(self) -> str:
        cloud = self.found.cloud
        refused = counted(cloud.refused, "request")
        said = (
            f"The cloud computed for {percent(cloud.utilisation)} of its workers' time, with "
            f"{counted(cloud.most_replicas, 'replica')} at most; it turned away or lost "
            f"{refused if cloud.refused else 'no request'}"
        )
        cost = f", and cost {cloud.cost:.4g}" if cloud.cost else ""
        return f"{said}{cost}."

    def _what_failures_did(self) -> Iterator[str]:
        if not self.failures:
            return
        during = np.zeros(len(self.outcome.table), dtype=np.bool_)
        for each in self.failures:
            during |= self._due_in(each)
        inside, outside = self._p99_s(during), self._p99_s(~during)
        if inside is None or outside is None:
            return
        yield (
            f"Of the requests due during {counted(len(self.failures), 'failure')}, 99 % were "
            f"answered within {milliseconds(inside)} ms; of the others, within "
            f"{milliseconds(outside)} ms."
        )

    def _due_in(self, failure: Failure) -> Mask:
        due_s = self.outcome.table.due_s
        return (due_s >= failure.at_s) & (due_s < failure.at_s + failure.lasts_s)

    def _p99_s(self, chosen: Mask) -> float | None:
        latency_s = self._answered(chosen)
        return float(np.quantile(latency_s, 0.99)) if len(latency_s) else None

    def _answered(self, chosen: Mask) -> Floats:
        table = self.outcome.table
        return table.latency_s[chosen & (table.how < ENDS.index("failed"))].astype(np.float64)

    def tiles(self) -> Iterator[tuple[str, str]]:
        total, cloud = self.found.total, self.found.cloud
        yield f"{milliseconds(total.p50_s)} ms", "median latency"
        yield f"{milliseconds(total.p99_s)} ms", "99th percentile"
        if total.missed is not None:
            yield percent(total.missed), "of the requests with a deadline missed it"
        yield percent(cloud.utilisation), "of the workers' time was computing"
        yield hours_of(cloud.replica_hours), "of replicas were running"
        probes = self.found.probe_nbytes
        of_it = f", {format_nbytes(probes)} of it probes" if probes else ""
        yield (
            format_nbytes(cloud.uplink_nbytes),
            f"sent to the cloud{of_it}; {format_nbytes(cloud.downlink_nbytes)} came back",
        )
        energy = self.found.energy
        yield f"{energy.mean_w:.3g} W", "drawn by an edge in the mean, idling included"
        yield f"{joules(energy.request_j)} J", "taken by a request on top of idling"
        if cloud.cost:
            yield f"{cloud.cost:.4g}", "for replicas and bytes, by the scenario's prices"

    def sections(self) -> Iterator[Section]:
        """All of them, in the order of the page."""
        if self.found.total.requests:
            yield Section("latency", "Latency by group", self._latency())
            yield Section("placements", "What was chosen, and who answered", self._shares())
        yield Section("history", "Over time", self._history())
        yield Section("figures", "All figures", self._figures())
        yield Section("setting", "Setting", self._setting())

    def _latency(self) -> str:
        groups = self.found.groups
        rows = [Row(name, each, self.deadlines_s[name]) for name, each in groups.items()]
        if len(rows) > 1:
            rows.append(Row(ALL, self.found.total))
        return note(_LATENCY) + card(quantiles_chart(rows)) + self._distributions()

    def _distributions(self) -> str:
        """Latencies and waits side by side; of very many groups, all together."""
        table, starts = self.outcome.table, self.outcome.starts
        bounds = dict(zip(self.names, pairwise(starts), strict=True))
        if len(bounds) > MAX_CDFS:
            bounds = {ALL: (0, starts[-1])}
        drawn = looks(bounds)
        answered, waited = {}, {}
        for name, (first, end) in bounds.items():
            mine = (table.edge >= first) & (table.edge < end)
            answered[name] = self._answered(mine)
            waited[name] = table.wait_s[mine & (table.how == 0)].astype(np.float64)
        charted = []
        for title, what, pools in (
            ("Answered within a time", "latency", answered),
            ("Waited in the cloud no longer than", "wait", waited),
        ):
            kept = {name: times_s for name, times_s in pools.items() if len(times_s)}
            if any(times_s.max() > 0 for times_s in kept.values()):
                names = {name: name for name in kept}
                chart = charts.cdf_chart("by group", kept, names, drawn, what=what)
                charted.append(f"<div><h3>{title}</h3>{chart}</div>")
        if not charted:
            return ""
        keys = charts.legend(drawn.items())
        return card(keys, '<div class="grid-2">', *charted, "</div>")

    def _shares(self) -> str:
        chosen = {
            group.name: self._sent(group, first, end)
            for group, (first, end) in zip(
                self.fleet.groups, pairwise(self.outcome.starts), strict=True
            )
        }
        labels = placements_told(self.fleet.groups, chosen)
        colours = placement_colours(labels)
        if any(UNSENT in taken for taken in chosen.values()):
            labels = {UNSENT: "meant for the cloud, nothing was sent", **labels}
            colours = {UNSENT: "var(--bad)", **colours}
        ends = {
            name: {end: count / found.requests for end, count in found.ends.items()}
            for name, found in self.found.groups.items()
            if found.requests
        }
        answers = {end: words for end, (words, _) in _ENDS.items()}
        looks_of = {end: colour for end, (_, colour) in _ENDS.items()}
        return card(
            "<h3>Where requests were cut, from the edge's end to the cloud's</h3>",
            charts.colour_legend(colours, labels),
            charts.shares_chart("by group", chosen, self.names, colours, labels),
            "<h3>Who answered</h3>",
            charts.colour_legend(looks_of, answers),
            charts.shares_chart("who answered", ends, self.names, looks_of, answers),
        )

    def _sent(self, group: Group, first: int, end: int) -> dict[str, float]:
        """Shares of a group's requests by placement; those that should have crossed, and of
        which nothing left the edge, are none's."""
        table, placements = self.outcome.table, group.menu.placements
        mine = (table.edge >= first) & (table.edge < end)
        placement = table.placement[mine]
        crosses = np.array([each.remote and each.payload_nbytes > 0 for each in placements])
        unsent = crosses[placement] & (table.payload_nbytes[mine] == 0)
        counts = np.bincount(placement[~unsent], minlength=len(placements)).tolist()
        taken = {
            placement_told(o.cut, o.codec): n for o, n in zip(placements, counts, strict=True)
        }
        taken[UNSENT] = int(unsent.sum())
        return {name: count / len(placement) for name, count in taken.items() if count}

    def _history(self) -> str:
        chart = history_chart(self.found.timeline, self.fleet.duration_s, self.failures)
        keys = charts.legend((words, look) for _, words, look in QUANTILES)
        failed = f"<h3>What failed</h3>{self._failure_table()}" if self.failures else ""
        if spared := spared_told(self.outcome):
            failed += note(
                f"{counted(spared, 'failure')} of the scenario came to nothing: the replica "
                "was not there any more."
            )
        rows = intervals_table(self.found.timeline)
        known = f"<details><summary>Interval by interval</summary>{rows}</details>"
        return note(_HISTORY) + card(
            keys, chart, failed, known if len(self.found.timeline) <= MAX_INTERVALS else ""
        )

    def _failure_table(self) -> str:
        heads = ("what failed", MOMENT.format("from"), MOMENT.format("until"),
                 "requests due meanwhile", "99 % within, ms")  # fmt: skip
        rows = []
        for number, each in enumerate(self.failures, 1):
            during = self._due_in(each)
            rows.append(
                [
                    f"{number}. {escape(each.words)}",
                    clock(each.at_s),
                    clock(each.at_s + each.lasts_s),
                    f"{int(during.sum()):,}",
                    milliseconds(self._p99_s(during)),
                ]
            )
        return tables.table(heads, rows)

    def _figures(self) -> str:
        counts = {group.name: group.count for group in self.fleet.groups}
        return note(_FIGURES) + card(
            figures_tables(self.found, counts),
            "<h3>The cloud</h3>",
            cloud_table(self.found),
        )

    def _setting(self) -> str:
        menus: list[tuple[Menu, list[str]]] = []
        for group in self.fleet.groups:
            known = [
                names for menu, names in menus if menu.placements == group.menu.placements
            ]
            if known:
                known[0].append(group.name)
            else:
                menus.append((group.menu, [group.name]))
        chosen = "".join(
            f"<h3>{escape(', '.join(names))}: what could be chosen, by the profiles</h3>"
            + card(tables.menu_table([asdict(placement) for placement in menu.placements]))
            for menu, names in menus
        )
        return (
            card(groups_table(self.fleet.groups))
            + chosen
            + f"<h3>The scenario</h3><pre>{escape(self.scenario)}</pre>"
        )
