"""A sweep's report: maps of what wins, on the page of experiments' reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any, final

from midstream_lab.report import charts, tables
from midstream_lab.report.page import Page, Section, card, footer, note
from midstream_lab.report.svg import drawing, element, label, tooltip
from midstream_lab.report.wording import NONE, counted, milliseconds, percent
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.sweep.map import TABLE, panels_of, winner_colours
from midstream_lab.simulation.sweep.sweep import (
    DOWNLINK,
    REQUESTS,
    SKIPPED,
    TIE,
    VARIED_REQUESTS,
    VARIED_TIE,
    Found,
    Grid,
)
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.units import format_duration, format_rate

#: A page holds so many; all of them stand in the table beside it.
MAX_CELLS, MAX_ROWS = 20_000, 600
#: More columns than this take the page's whole width.
NARROW_COLUMNS = 12
#: Pixels that "120 %" and that a rate need.
FIGURE_WIDTH, RATE_WIDTH = 29, 26
#: A gain below this is none: the simulation does not tell the two apart.
LEAST_GAIN = 0.005

_MAP = (
    "Who answers soonest: a cell is a link, the uplink growing to the right and the round "
    "trip upwards. The figure is the gain: how much longer the better of edge-only and the "
    "best cloud-only takes than the winner, where a cut inside wins."
)
_WINNERS = "The gain's median and most are over the points that each wins."
_POINTS = (
    "Mean latencies. “Gain”: how much longer the better of edge-only and the best cloud-only "
    "takes. A 95th percentile stands where requests differ: by load, scatter or payloads."
)


def sweep_document(
    measured: MeasuredModel, found: Sequence[Found], seed: int
) -> dict[str, Any]:
    """A sweep as plain values: `Sweep` of docs/reference/json.md, without written files."""
    return {
        "model": measured.name,
        "device": measured.device.to_dict(),
        "seed": seed,
        "points": [each.to_dict() for each in found],
    }


def write_sweep_report(
    found: Sequence[Found], grid: Grid, measured: MeasuredModel, *, place: Path, seed: int
) -> Path:
    """The report as `place` or as `report.html` in it, whole or not at all."""
    return sweep_page(found, grid, measured, seed=seed).write(place)


def sweep_page(
    found: Sequence[Found], grid: Grid, measured: MeasuredModel, *, seed: int
) -> Page:
    """The page, which depends on nothing but these."""
    story = _Story(found, grid, measured, seed)
    device = measured.device
    return Page(
        title=f"{measured.name}: what wins where",
        kicker=(
            f"Simulated · {counted(len(found), 'point')}, "
            f"{counted(len(measured.menu.placements), 'placement')} at each"
        ),
        verdict=list(story.verdict()),
        tiles=list(story.tiles()),
        sections=list(story.sections()),
        footer=footer(
            f"midstream {metadata.version('midstream')}", f"All points stand in {TABLE} too."
        ),
        data=sweep_document(measured, found[:MAX_CELLS], seed),
        remarks=[f"The edge is an emulated device: {device.label()}."]
        if device.emulated
        else [],
    )


@final
class _Story:
    """A sweep with what all sections share."""

    def __init__(
        self, found: Sequence[Found], grid: Grid, measured: MeasuredModel, seed: int
    ) -> None:
        self.found = found
        self.grid = grid
        self.measured = measured
        self.seed = seed
        self.colours = winner_colours(found)
        self.inside = [each for each in found if each.cut not in (CLOUD_ONLY, EDGE_ONLY)]
        self.inside_share = len(self.inside) / max(1, len(found))
        #: Where there is something that a cut inside can be compared with.
        self.gains = sorted(
            (each for each in self.inside if each.gain is not None),
            key=lambda each: each.gain or 0.0,
        )

    def verdict(self) -> Iterator[str]:
        """Return what came out, the most important first."""
        count = len(self.found)
        if not self.inside:
            yield (
                f"A cut inside {self.measured.name} wins nowhere among "
                f"{counted(count, 'point')}: choosing between edge and cloud is all there is."
            )
        else:
            yield (
                f"A cut inside {self.measured.name} wins at {percent(self.inside_share)} of "
                f"{counted(count, 'point')}."
            )
        if self.gains:
            best = self.gains[-1]
            instead = milliseconds(_trivial_s(best))
            yield (
                "There, the better of edge-only and the best cloud-only takes "
                f"{percent(self.gains[len(self.gains) // 2].gain)} longer in the median and "
                f"{percent(best.gain)} at most: {best.label} over {_condition(best)} takes "
                f"{milliseconds(best.mean_s)} ms instead of {instead} ms."
            )
        tied = sum(bool(each.ties) for each in self.found)
        if tied:
            yield (
                f"At {counted(tied, 'point')} others are tied with the winner: at most "
                f"{percent(TIE)} behind, or {percent(VARIED_TIE)} where requests differ. "
                "Which of them wins there changes from neighbour to neighbour."
            )
        ends = [
            f"{name} at {percent(self._share(cut))}"
            for name, cut in (("edge-only", EDGE_ONLY), ("cloud-only", CLOUD_ONLY))
        ]
        yield f"Of the two ends, {ends[0]} and {ends[1]} of the points beat all others."

    def _share(self, cut: str) -> float:
        return sum(each.cut == cut for each in self.found) / max(1, len(self.found))

    def tiles(self) -> Iterator[tuple[str, str]]:
        yield (
            percent(len(self.inside) / max(1, len(self.found))),
            "of points: a cut inside wins",
        )
        yield percent(self._share(EDGE_ONLY)), "of points: edge-only wins"
        yield percent(self._share(CLOUD_ONLY)), "of points: cloud-only wins"
        if self.gains:
            yield percent(self.gains[len(self.gains) // 2].gain), "median gain of cuts inside"
            yield percent(self.gains[-1].gain), "most that a cut inside gains"

    def sections(self) -> Iterator[Section]:
        """All of them, in the order of the page."""
        yield Section("map", "What wins where", self._map())
        yield Section("winners", "Winners", self._winners())
        yield Section("points", "All points", self._points())
        yield Section("setting", "Setting", self._setting())

    def _map(self) -> str:
        by_panel: dict[tuple[float, float], list[Found]] = {}
        for each in self.found:
            at = (each.point.slowdown, each.point.load)
            by_panel.setdefault(at, []).append(each)
        drawn: list[str] = []
        cells = 0
        for panel in panels_of(self.grid):
            cells += len(by_panel[panel])
            if cells > MAX_CELLS and drawn:
                break
            title = _panel_words(*panel)
            chart = map_chart(by_panel[panel], self.grid, self.colours, title=title)
            drawn.append(f"<div><h3>{escape(title[0].upper() + title[1:])}</h3>{chart}</div>")
        keys = charts.colour_legend(self.colours, {each: each for each in self.colours})
        wide = len(self.grid.uplink_bps) > NARROW_COLUMNS
        grid = ["<div>" if wide else '<div class="grid-2">', *drawn, "</div>"]
        panels = len(self.grid.slowdown) * len(self.grid.load)
        left = panels - len(drawn)
        more = f"{counted(left, 'map')} more did not fit here: see {TABLE}." if left else ""
        return note(_MAP) + card(keys, *grid) + (note(more) if more else "")

    def _winners(self) -> str:
        rows = []
        for name, count in Counter(each.label for each in self.found).most_common():
            mine = [each for each in self.found if each.label == name]
            gains = sorted(each.gain for each in mine if each.gain is not None)
            rates = sorted({each.point.uplink_bps for each in mine})
            rows.append(
                [
                    escape(name),
                    f"{count:,}",
                    percent(count / len(self.found)),
                    percent(gains[len(gains) // 2] if gains else None),
                    percent(gains[-1] if gains else None),
                    " to ".join(map(format_rate, dict.fromkeys((rates[0], rates[-1])))),
                ]
            )
        heads = ("wins", "points", "share", "gain, median", "gain, most", "uplinks")
        return note(_WINNERS) + card(tables.table(heads, rows))

    def _points(self) -> str:
        heads = ("wins", "uplink", "RTT", "edge slower", "cloud taken",
                 "mean, ms", "p95, ms", "edge-only, ms", "cloud-only, ms", "gain",
                 "tied with it")  # fmt: skip
        rows = [
            [
                escape(each.label),
                format_rate(each.point.uplink_bps),
                format_duration(each.point.rtt_s),
                f"{each.point.slowdown:g}x",
                _whole_percent(each.point.load),
                *map(
                    milliseconds,
                    (each.mean_s, each.p95_s, each.edge_only_s, each.cloud_only_s),
                ),
                percent(each.gain),
                escape(", ".join(each.ties)) or NONE,
            ]
            for each in self.found[:MAX_ROWS]
        ]
        left = len(self.found) - len(rows)
        more = note(f"{counted(left, 'point')} more: see {TABLE}.") if left else ""
        known = f"<details><summary>Point by point</summary>{tables.table(heads, rows)}"
        return note(_POINTS) + card(known, more, "</details>")

    def _setting(self) -> str:
        grid = self.grid
        said = {
            "edge": self.measured.device.label(),
            "uplinks": ", ".join(map(format_rate, grid.uplink_bps)),
            "downlinks": f"{DOWNLINK:g} times as fast",
            "round trips": ", ".join(map(format_duration, grid.rtt_s)),
            "edge slower than profiled": ", ".join(f"{each:g}x" for each in grid.slowdown),
            "cloud's time that others take": ", ".join(map(_whole_percent, grid.load)),
            "requests": (
                f"{REQUESTS} of each placement behind {SKIPPED} that do not count; "
                f"{VARIED_REQUESTS} where load, scatter or payloads vary"
            ),
            "seed": str(self.seed),
        }
        menu = tables.menu_table(
            [asdict(placement) for placement in self.measured.menu.placements]
        )
        return (
            card(tables.definitions(said))
            + "<h3>What could be chosen, by the profiles</h3>"
            + card(menu)
        )


def map_chart(
    found: Sequence[Found], grid: Grid, colours: Mapping[str, str], *, title: str
) -> str:
    """One panel: a coloured cell for every uplink (across) and round trip (upwards)."""
    columns, rows = len(grid.uplink_bps), len(grid.rtt_s)
    width, left, right, top = (1000 if columns > NARROW_COLUMNS else 480), 66, 8, 18
    cell = (width - left - right) / columns
    height = min(34.0, max(22.0, cell))
    bottom = top + rows * height
    parts = [label(left - 8, top - 7, "RTT", class_="axis-title", text_anchor="end")]
    for each in found:
        x = left + cell * grid.uplink_bps.index(each.point.uplink_bps)
        y = bottom - height * (grid.rtt_s.index(each.point.rtt_s) + 1)
        parts.append(_cell(each, colours[each.label], x, y, cell, height))
    every = -(-RATE_WIDTH // cell) if cell < RATE_WIDTH else 1
    for at, rate_bps in enumerate(grid.uplink_bps):
        if at % int(every) == 0:
            x = left + cell * (at + 0.5)
            parts.append(label(x, bottom + 14, _megabits(rate_bps), class_="tick",
                               text_anchor="middle"))  # fmt: skip
    for at, rtt_s in enumerate(grid.rtt_s):
        y = bottom - height * (at + 0.5) + 3.5
        parts.append(label(left - 8, y, format_duration(rtt_s), class_="tick",
                           text_anchor="end"))  # fmt: skip
    parts.append(label((left + width - right) / 2, bottom + 31, "uplink, Mbit/s",
                       class_="axis-title", text_anchor="middle"))  # fmt: skip
    return drawing(width, bottom + 38, f"What wins: {title}", *parts)


def _cell(each: Found, colour: str, x: float, y: float, width: float, height: float) -> str:
    """Its colour says who wins, its figure by how much, and a pointer is told all of it."""
    told = f"{_condition(each)}: {each.label}, {milliseconds(each.mean_s)} ms"
    for name, other_s in (("edge-only", each.edge_only_s), ("cloud-only", each.cloud_only_s)):
        told += f"; {name} {milliseconds(other_s)}" if other_s is not None else ""
    told += f"; tied: {', '.join(each.ties)}" if each.ties else ""
    parts = [
        tooltip(told),
        element("rect", x=x, y=y, width=width, height=height, fill=colour, class_="cell"),
    ]
    if each.gain is not None and each.gain >= LEAST_GAIN and width >= FIGURE_WIDTH:
        parts.append(label(x + width / 2, y + height / 2 + 4, _whole_percent(each.gain),
                           class_="cell-figure", text_anchor="middle"))  # fmt: skip
    return element("g", *parts)


def _panel_words(slowdown: float, load: float) -> str:
    edge = "edge as profiled" if slowdown == 1 else f"edge {slowdown:g} times slower"
    return f"{edge}, cloud {'idle' if load == 0 else _whole_percent(load) + ' taken'}"


def _condition(each: Found) -> str:
    point = each.point
    return (
        f"{format_rate(point.uplink_bps)}, RTT {format_duration(point.rtt_s)}, "
        f"{_panel_words(point.slowdown, point.load)}"
    )


def _trivial_s(each: Found) -> float | None:
    ends = (each.edge_only_s, each.cloud_only_s)
    return min((end_s for end_s in ends if end_s is not None), default=None)


def _megabits(rate_bps: float) -> str:
    return f"{rate_bps / 1e6:.2g}" if rate_bps < 99.5e6 else f"{rate_bps / 1e6:,.0f}"


def _whole_percent(share: float | None) -> str:
    return NONE if share is None else f"{share * 100:,.0f} %"
