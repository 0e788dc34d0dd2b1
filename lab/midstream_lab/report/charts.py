"""The report's pictures: regrets, latency distributions, energy, placements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np

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
from midstream_lab.report.wording import joules, milliseconds, percent
from midstream_lab.results.bootstrap import Floats
from midstream_lab.results.comparison import (
    BEST_FIXED,
    ORACLE,
    RACE,
    Point,
    best_mixture_s,
    is_fixed,
)
from midstream_lab.results.summary import Figures

Names = Mapping[str, str]
Looks = Mapping[str, Look]

#: Points of a distribution's line: more cannot be told apart at its size.
_CDF_POINTS = 160


def regret_chart(policies: Sequence[Figures], names: Names, looks: Looks) -> str:
    """A row per policy: mean with its interval, and the worst trace."""
    judged = [each for each in policies if each.regret_mean is not None]
    row, left, right, width = 26, 250, 150, 1000
    bottom = 30 + row * len(judged)
    ends = [
        value * 100
        for each in judged
        for value in (each.regret_mean_low, each.regret_mean_high, each.regret_worst)
        if value is not None
    ]
    scale = Scale("root", min([0.0, *ends]), max([5.0, *ends]) * 1.05, left, width - right)
    ticks = [(value, f"{value:g} %".replace("-", "−")) for value in scale.ticks()]
    parts = [x_axis(scale, bottom, 18, ticks), line(scale(0), 18, scale(0), bottom,
                                                    class_="zero")]  # fmt: skip
    parts.append(label(width - right + 62, 11, "mean", class_="tick", text_anchor="end"))
    parts.append(label(width - 6, 11, "worst trace", class_="tick", text_anchor="end"))
    for at, each in enumerate(judged):
        y = 18 + row * (at + 0.5)
        parts.append(_regret_row(each, names, looks, scale, y=y, width=width, right=right))
    title = "Regret of every policy: mean over all traces with interval, and worst trace"
    return drawing(width, bottom + 24, title, *parts)


def _regret_row(
    each: Figures,
    names: Names,
    looks: Looks,
    scale: Scale,
    *,
    y: float,
    width: int,
    right: int,
) -> str:
    colour = f"stroke:{looks[each.policy].colour};fill:{looks[each.policy].colour}"
    assert each.regret_mean is not None
    mean, low, high, worst = (
        scale(100 * (each.regret_mean if value is None else value))
        for value in (
            each.regret_mean, each.regret_mean_low, each.regret_mean_high, each.regret_worst
        )
    )  # fmt: skip
    strong = each.policy in ("adaptive", ORACLE)
    told = (
        f"{names[each.policy]}: mean {percent(each.regret_mean)}, worst "
        f"{percent(each.regret_worst)} ({each.regret_worst_at})"
    )
    return element(
        "g",
        tooltip(told),
        label(238, y + 4, names[each.policy], text_anchor="end",
              class_="name strong" if strong else "name"),
        line(mean, y, worst, y, class_="reach", style=colour),
        line(low, y, high, y, class_="interval", style=colour),
        element("path", d=f"M{worst:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", class_="worst",
                style=f"stroke:{looks[each.policy].colour}"),
        element("circle", cx=mean, cy=y, r=5.5, style=colour),
        label(width - right + 62, y + 4, percent(each.regret_mean), text_anchor="end",
              class_="figure strong" if strong else "figure"),
        label(width - 6, y + 4, percent(each.regret_worst), text_anchor="end",
              class_="figure"),
    )  # fmt: skip


def cdf_chart(
    title: str,
    latencies: Mapping[str, Floats],
    names: Names,
    looks: Looks,
    *,
    what: str = "latency",
) -> str:
    """Shares of requests answered within a time, one line per policy; `what` took it."""
    width, height, left, bottom, top = 400, 250, 44, 214, 12
    every = np.concatenate(list(latencies.values()))
    low_s, high_s = float(every.min()), float(np.quantile(every, 0.999))
    kind = kind_for(low_s, high_s)
    x = Scale(kind, low_s * 1e3, max(high_s, low_s * 1.01) * 1e3, left, width - 10)
    y = Scale("linear", 0, 100, bottom, top)
    ticks = [(value, f"{value:,.6g}") for value in x.ticks(7)]
    parts = [
        x_axis(x, bottom, top, ticks),
        y_axis(y, left, width - 10, [(v, f"{v:g} %") for v in (0, 25, 50, 75, 100)]),
        label((left + width) / 2, height - 6, f"{what}, ms", class_="tick",
              text_anchor="middle"),
    ]  # fmt: skip
    shares = np.unique(np.append(np.linspace(0, 1, _CDF_POINTS), (0.99, 0.995)))
    for policy, latency_s in reversed(list(latencies.items())):
        look = looks[policy]
        found = np.minimum(np.quantile(latency_s, shares), high_s) * 1e3
        points = zip(map(x, found.tolist()), map(y, (shares * 100).tolist()), strict=True)
        style = f"stroke:{look.colour};stroke-width:{look.width}"
        parts.append(
            element("g", tooltip(names[policy]),
                    path(points, style=style, stroke_dasharray=look.dash))
        )  # fmt: skip
    return drawing(width, height, f"{what.capitalize()} distribution, {title}", *parts)


def energy_chart(title: str, policies: Sequence[Figures], names: Names, looks: Looks) -> str:
    """Mean latency over the edge's energy, and what mixtures of the simple ones reach.

    Names stand in a column of their own, as the best policies lie close together.
    """
    width, height, left, right, bottom, top = 520, 320, 52, 308, 280, 18
    points = {
        each.policy: (each.energy_j, each.mean_s * 1e3)
        for each in policies
        if each.energy_j and each.mean_s is not None and each.policy != BEST_FIXED
    }
    energies, times = zip(*points.values(), strict=True) if points else ((1.0,), (1.0,))
    x = _padded(kind_for(min(energies), max(energies)), energies, left, right)
    y = _padded(kind_for(min(times), max(times)), times, bottom, top)
    rivals = [at for policy, at in points.items() if is_fixed(policy) or policy == RACE]
    parts = [
        x_axis(x, bottom, top, [(v, f"{v:.4g}") for v in x.ticks(6)]),
        y_axis(y, left, right, [(v, f"{v:,.6g}") for v in y.ticks(6)]),
        label((left + right) / 2, height - 6, "edge energy of a request, J", class_="tick",
              text_anchor="middle"),
        label(left, top - 7, "mean latency, ms", class_="tick"),
        path(_frontier(rivals, x, y), class_="frontier"),
    ]  # fmt: skip
    ranked = sorted(points, key=lambda policy: y(points[policy][1]))
    rows = _apart([y(points[policy][1]) for policy in ranked], least=14, most=bottom)
    for policy, row in zip(ranked, rows, strict=True):
        at = x(points[policy][0]), y(points[policy][1])
        strong = "name small strong" if policy == "adaptive" else "name small"
        parts.append(path([at, (right + 8, row), (right + 14, row)], class_="leader"))
        parts.append(label(right + 18, row + 4, names[policy], class_=strong))
    for policy in reversed(ranked):
        energy_j, mean_ms = points[policy]
        told = f"{names[policy]}: {joules(energy_j)} J, {milliseconds(mean_ms / 1e3)} ms"
        style = f"fill:{looks[policy].colour}"
        dot = element("circle", cx=x(energy_j), cy=y(mean_ms), r=5, style=style, class_="dot")
        parts.append(element("g", tooltip(told), dot))
    return drawing(width, height, f"Mean latency over edge energy, {title}", *parts)


def _apart(rows: Sequence[float], *, least: float, most: float) -> list[float]:
    """Ascending `rows` moved as little as needs be to lie `least` apart, none past `most`."""
    moved: list[float] = []
    for row in rows:
        moved.append(max(row, moved[-1] + least) if moved else row)
    limit = most
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], limit)
        limit = moved[at] - least
    return moved


def kind_for(low: float, high: float) -> Kind:
    """Logarithms where the largest is several times the smallest."""
    return "log" if high > 4 * low > 0 else "linear"


def _padded(kind: Kind, values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    if kind == "log":
        return Scale("log", low / 1.12, high * 1.12, start, end)
    room = (high - low) * 0.08 or high * 0.08 or 1.0
    return Scale("linear", max(0.0, low - room), high + room, start, end)


def _frontier(rivals: Sequence[Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Return what mixtures of `rivals` reach at every energy; straight stays curved on a log
    axis.
    """
    if not rivals:
        return []
    low_j = min(energy_j for energy_j, _ in rivals)
    energies = np.linspace(low_j, max(energy_j for energy_j, _ in rivals), 60)
    return [(x(float(e)), y(best_mixture_s(rivals, float(e)))) for e in energies]


def shares_chart(
    title: str,
    shares: Mapping[str, Mapping[str, float]],
    names: Names,
    colours: Mapping[str, str],
    labels: Names,
) -> str:
    """A bar per policy: which part of its requests took which placement."""
    row, left, width = 24, 250, 1000
    scale = Scale("linear", 0, 1, left, width - 24)
    bottom = 6 + row * len(shares)
    ticks = [(share, f"{share:.0%}".replace("%", " %")) for share in (0, 0.25, 0.5, 0.75, 1)]
    parts = [x_axis(scale, bottom, 4, ticks)]
    for at, (policy, taken) in enumerate(shares.items()):
        y = 6 + row * at
        parts.append(label(238, y + 15, names[policy], class_="name", text_anchor="end"))
        edges = np.concatenate(([0.0], np.cumsum([taken.get(each, 0.0) for each in colours])))
        for placement, (low, high) in zip(colours, pairwise(edges.tolist()), strict=True):
            if high - low > 1e-4:
                told = f"{names[policy]}: {percent(high - low)} {labels[placement]}"
                parts.append(
                    element("rect", tooltip(told), x=scale(low), y=y + 3,
                            width=scale(high) - scale(low), height=row - 7,
                            fill=colours[placement])
                )  # fmt: skip
    return drawing(width, bottom + 20, f"Placements chosen, {title}", *parts)


def legend(entries: Iterable[tuple[str, Look]]) -> str:
    """Names beside a stroke of their line."""
    items = []
    for words, look in entries:
        style = f"stroke:{look.colour};stroke-width:{look.width}"
        swatch = line(1, 6, 25, 6, style=style, stroke_dasharray=look.dash)
        drawn = element("svg", swatch, width=26, height=12, aria_hidden="true")
        items.append(element("span", drawn, escape(words, quote=False), class_="key"))
    return element("div", *items, class_="legend")


def colour_legend(colours: Mapping[str, str], labels: Names) -> str:
    """Names beside a patch of their colour."""
    keys = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(labels[each])}</span>'
        for each, colour in colours.items()
    )
    return f'<div class="legend">{keys}</div>'
