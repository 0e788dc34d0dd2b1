"""A fleet in pictures: quantiles by group, and its history with what failed in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from midstream_lab.report.charts import kind_for
from midstream_lab.report.palette import Look
from midstream_lab.report.svg import (
    Kind,
    Scale,
    drawing,
    element,
    label,
    line,
    path,
    tooltip,
    x_axis,
    y_axis,
)
from midstream_lab.report.wording import milliseconds
from midstream_lab.simulation.fleet.statistics import Interval
from midstream_lab.simulation.output.statistics import Figures

#: Half the pixels across: more steps cannot be told apart.
MAX_STEPS = 480
#: Quantiles over time, the most common requests boldest.
QUANTILES: tuple[tuple[str, str, Look], ...] = (
    ("p50_s", "half took no longer", Look("var(--chief)", None, 2.0)),
    ("p95_s", "95 %", Look("var(--policy-0)", None, 1.5)),
    ("p99_s", "99 %", Look("var(--race)", None, 1.5)),
)

#: From and to, in seconds, and what was in between, if anything.
Step = tuple[float, float, float | None]


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A line of the chart of quantiles."""

    name: str
    figures: Figures
    deadline_s: float | None = None


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """A failure from `at_s` for `lasts_s`, in words."""

    at_s: float
    lasts_s: float
    words: str


def quantiles_chart(rows: Sequence[Row]) -> str:
    """A row per group: median, 95th and 99th percentile, and the deadline."""
    row, left, right, width = 26, 250, 210, 1000
    shown = [each for each in rows if each.figures.p50_s is not None]
    bottom = 22 + row * len(shown)
    times = [
        value * 1e3
        for each in shown
        for value in (each.figures.p50_s, each.figures.p99_s, each.deadline_s)
        if value is not None
    ] or [1.0]
    low, high = min(times), max(times)
    kind = kind_for(low, high)
    room = (low / 1.15, high * 1.15) if kind == "log" else (0.0, high * 1.08)
    scale = Scale(kind, *room, left, width - right)
    parts = [x_axis(scale, bottom, 18, [(v, f"{v:,.6g}") for v in scale.ticks(8)])]
    parts += [
        label(width - right + shift, 11, words, class_="tick", text_anchor="end")
        for shift, words in zip(_COLUMNS, ("median", "95 %", "99 %"), strict=True)
    ]
    for at, each in enumerate(shown):
        parts.append(_quantiles_row(each, scale, y=18 + row * (at + 0.5), end=width - right))
    middle = (left + width - right) / 2
    parts.append(label(middle, bottom + 30, "latency, ms", class_="tick",
                       text_anchor="middle"))  # fmt: skip
    title = "Latency of every group: median, 95th and 99th percentile, and deadline"
    return drawing(width, bottom + 36, title, *parts)


#: Where figures end, right of a chart's last pixel.
_COLUMNS = (72, 138, 204)


def _quantiles_row(row: Row, scale: Scale, *, y: float, end: float) -> str:
    quantiles = [row.figures.p50_s, row.figures.p95_s, row.figures.p99_s]
    median, most, nearly = (scale((value or 0.0) * 1e3) for value in quantiles)
    told = ", ".join(f"{milliseconds(value)} ms" for value in quantiles)
    colour = "stroke:var(--chief)"
    parts = [
        tooltip(f"{row.name}: {told}"),
        label(238, y + 4, row.name, text_anchor="end", class_="name"),
        line(median, y, nearly, y, class_="interval", style=colour),
        element("path", d=f"M{nearly:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", class_="worst",
                style=colour),
        element("circle", cx=most, cy=y, r=4, class_="worst", style=colour),
        element("circle", cx=median, cy=y, r=5.5, style="fill:var(--chief)"),
    ]  # fmt: skip
    if row.deadline_s is not None:
        x = scale(row.deadline_s * 1e3)
        parts.append(line(x, y - 10, x, y + 10, class_="deadline"))
    parts += [
        label(end + shift, y + 4, milliseconds(value), class_="figure", text_anchor="end")
        for shift, value in zip(_COLUMNS, quantiles, strict=True)
    ]
    return element("g", *parts)


@final
@dataclass(frozen=True, slots=True)
class _Panel:
    """One strip of the history: its lines, and what its axis says; `whole` counts things."""

    title: str
    height: int
    lines: Sequence[tuple[Look, Sequence[Step]]]
    words: Callable[[float], str]
    high: float | None = None
    kind: Kind = "linear"
    whole: bool = False

    @property
    def values(self) -> list[float]:
        return [value for _, steps in self.lines for *_, value in steps if value is not None]

    def scale(self, top: float) -> Scale:
        values = self.values or [1.0]
        high = self.high or max(values) * 1.08 or 1.0
        low = 0.0
        if self.kind == "log":
            low = min(values) / 1.15
            high = max(high, low * 1.5)
        return Scale(self.kind, low, high, top + self.height, top)


def history_chart(
    timeline: Sequence[Interval], duration_s: float, failures: Sequence[Failure]
) -> str:
    """Requests, latencies, workers, replicas and queues over time; failures shaded."""
    width, left, right, top, gap = 1000, 62, 990, 30, 30
    panels = _panels(timeline, duration_s)
    unit_s, unit = _time_unit(duration_s)
    x = Scale("linear", 0.0, duration_s / unit_s, left, right)
    ticks = [(value, f"{value:g}") for value in x.ticks(10)]
    bottom = top + sum(each.height + gap for each in panels) - gap
    parts = [x_axis(x, bottom, top, ticks), *_failed(failures, x, unit_s, top, bottom)]
    y = float(top)
    for panel in panels:
        parts.append(_drawn(panel, x, unit_s, y))
        y += panel.height + gap
    parts.append(label((left + right) / 2, bottom + 30, f"time, {unit}", class_="tick",
                       text_anchor="middle"))  # fmt: skip
    title = "History: requests, latency, busy workers, replicas, queues, and failures"
    return drawing(width, bottom + 38, title, *parts)


def _time_unit(duration_s: float) -> tuple[float, str]:
    if duration_s >= 10800:
        return 3600.0, "hours"
    return (60.0, "minutes") if duration_s >= 180 else (1.0, "seconds")


def _panels(timeline: Sequence[Interval], duration_s: float) -> list[_Panel]:
    ends_s = [*(each.at_s for each in timeline[1:]), duration_s]
    look = Look("var(--chief)", None, 1.5)

    def steps(value: Callable[[Interval, float], float | None], of: _Of = max) -> list[Step]:
        return _merged(
            [
                (each.at_s, end_s, value(each, end_s - each.at_s))
                for each, end_s in zip(timeline, ends_s, strict=True)
            ],
            of,
        )

    quantiles = [
        (drawn, steps(lambda each, _, name=name: _ms(getattr(each, name))))  # type: ignore[misc]
        for name, _, drawn in QUANTILES
    ]
    found = [value for _, each in quantiles for *_, value in each if value]
    kind = kind_for(min(found, default=1.0), max(found, default=1.0))
    due = steps(lambda each, width_s: each.requests / max(width_s, 1e-9))
    cloud = steps(lambda each, _: each.cloud_share, min)
    busy = steps(lambda each, _: each.utilisation)
    replicas = steps(lambda each, _: float(each.replicas))
    waiting = steps(lambda each, _: float(each.waiting))
    most = max((value or 0.0 for *_, value in waiting), default=0.0)
    return [
        _Panel("requests a second", 62, [(look, due)], _number),
        _Panel("latency, ms", 150, quantiles, _number, kind=kind),
        _Panel("answered by the cloud", 52, [(look, cloud)], _share, high=1.0),
        _Panel("workers that compute", 72, [(look, busy)], _share, high=1.0),
        _Panel("replicas", 52, [(look, replicas)], _number, whole=True),
        _Panel(
            "waiting in queues",
            52,
            [(look, waiting)],
            _number,
            high=max(1.0, most),
            whole=True,
        ),
    ]


_Of = Callable[[list[float]], float]


def _merged(steps: Sequence[Step], of: _Of) -> list[Step]:
    """At most `MAX_STEPS`: the worst of neighbours stays."""
    size = -(-len(steps) // MAX_STEPS) or 1
    merged = []
    for at in range(0, len(steps), size):
        part = steps[at : at + size]
        values = [value for *_, value in part if value is not None]
        merged.append((part[0][0], part[-1][1], of(values) if values else None))
    return merged


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _number(value: float) -> str:
    return f"{value:,.6g}"


def _share(value: float) -> str:
    return f"{value * 100:g} %"


def _drawn(panel: _Panel, x: Scale, unit_s: float, top: float) -> str:
    y = panel.scale(top)
    bottom = top + panel.height
    most = 6 if panel.height > 100 else 3
    ticks = [v for v in y.ticks(most) if not panel.whole or v == round(v)]
    parts = [
        y_axis(y, x.start, x.end, [(v, panel.words(v)) for v in ticks]),
        label(x.start, top - 8, panel.title, class_="axis-title"),
    ]
    for look, steps in reversed(panel.lines):
        for points in _paths(steps, x, y, unit_s):
            if len(panel.lines) == 1:
                ground = [(points[0][0], bottom), *points, (points[-1][0], bottom)]
                corners = " ".join(f"{px:.1f},{py:.1f}" for px, py in ground)
                parts.append(element("polygon", points=corners, class_="band"))
            parts.append(path(points, style=f"stroke:{look.colour};stroke-width:{look.width}"))
    return element("g", *parts)


def _paths(
    steps: Sequence[Step], x: Scale, y: Scale, unit_s: float
) -> list[list[tuple[float, float]]]:
    """Stairs, broken where there was nothing."""
    found: list[list[tuple[float, float]]] = [[]]
    for from_s, to_s, value in steps:
        if value is None:
            found.append([])
        else:
            found[-1] += [(x(from_s / unit_s), y(value)), (x(to_s / unit_s), y(value))]
    return [points for points in found if points]


def _failed(
    failures: Sequence[Failure], x: Scale, unit_s: float, top: float, bottom: float
) -> list[str]:
    """Shaded from top to bottom, and numbered where numbers have room."""
    parts, free = [], x.start - 1
    for number, each in enumerate(failures, 1):
        first = x(each.at_s / unit_s)
        last = min(x((each.at_s + each.lasts_s) / unit_s), x.end)
        width = max(last - first, 2.0)
        parts.append(
            element("rect", tooltip(each.words), x=first, y=top - 4, width=width,
                    height=bottom - top + 4, class_="failure")
        )  # fmt: skip
        middle = first + width / 2
        if middle - 6 > free:
            parts.append(label(middle, top - 9, str(number), class_="failure-number",
                               text_anchor="middle"))  # fmt: skip
            free = middle + 6
    return parts
