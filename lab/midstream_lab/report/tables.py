"""The report's tables: figures with intervals, regrets as a heat map, validity, setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from midstream_lab.report.wording import NONE, joules, milliseconds, percent
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import Figures, Summary
from midstream_partitioner.units import format_nbytes

Names = Mapping[str, str]

#: A regret that is as red as red gets.
_HOT = 0.5


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    strong: Sequence[int] = (),
) -> str:
    """A table; cells are markup already."""
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(
        f"<tr{' class=strong' if at in strong else ''}>"
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for at, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_LATENCY = (
    "policy", "regret, mean", "worst trace", "mean, ms", "p50, ms", "p95, ms", "p99, ms"
)  # fmt: skip
_CONDUCT = (
    "policy", "requests", "on the edge", "hedged", "switches", "probes", "J a request",
    "at equal energy", "lost", "twice", "after failure",
    "policy errors",
)  # fmt: skip
#: Where there are deadlines.
_MISSED = "over the deadline"


def figures_tables(figures: Sequence[Figures], names: Names) -> str:
    """All figures of one pool: how long it took, and what was done for it."""
    strong = [at for at, each in enumerate(figures) if each.policy == "adaptive"]
    latency = [_latency_row(each, names) for each in figures]
    conduct = [_conduct_row(each, names) for each in figures]
    heads = list(_CONDUCT)
    if any(each.missed is not None for each in figures):
        heads.append(_MISSED)
        for row, each in zip(conduct, figures, strict=True):
            row.append(percent(each.missed))
    return table(_LATENCY, latency, strong=strong) + table(heads, conduct, strong=strong)


def _latency_row(each: Figures, names: Names) -> list[str]:
    """Intervals stand small under their estimates."""
    worst = percent(each.regret_worst)
    worst += f"<small>{escape(each.regret_worst_at)}</small>" if each.regret_worst_at else ""
    times = [
        milliseconds(value) + _small(milliseconds, low, high)
        for value, low, high in (
            (each.mean_s, each.mean_low_s, each.mean_high_s),
            (each.p50_s, each.p50_low_s, each.p50_high_s),
            (each.p95_s, each.p95_low_s, each.p95_high_s),
            (each.p99_s, each.p99_low_s, each.p99_high_s),
        )
    ]
    regret = _small(percent, each.regret_mean_low, each.regret_mean_high)
    return [escape(names[each.policy]), percent(each.regret_mean) + regret, worst, *times]


def _conduct_row(each: Figures, names: Names) -> list[str]:
    return [
        escape(names[each.policy]),
        f"{each.requests:,}",
        percent(each.edge_share),
        percent(each.hedges / each.requests if each.requests else None),
        f"{each.switches:,}",
        percent(each.probe_share),
        joules(each.energy_j),
        percent(each.behind_equal_energy_mean, sign=True),
        _trouble(each.lost),
        _trouble(each.duplicated),
        f"{each.local:,}",
        _trouble(each.policy_errors),
    ]


def _small(words: Any, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"<small>{words(low).removesuffix(' %')} to {words(high)}</small>"


def _trouble(count: int) -> str:
    return f'<span class="bad">{count:,}</span>' if count else "0"


def heat_map(summary: Summary, model: str, names: Names) -> str:
    """Regret of every policy over every trace on one model."""
    traces = list(dict.fromkeys(e.trace or "" for e in summary.traces if e.model == model))
    heads = [f'<div title="{escape(each)}">{escape(_short(each))}</div>' for each in traces]
    rows = []
    for each in (f for f in summary.models if f.model == model):
        cells = [summary.find(each.policy, model, trace) for trace in traces]
        told = [_heat(cell.regret_mean if cell else None) for cell in cells]
        total = _heat(each.regret_mean, class_="total")
        rows.append((names[each.policy], [*told, total]))
    height = 20 + 4.6 * max((len(_short(each)) for each in traces), default=0)
    turned = "".join(
        f'<th scope="col" class="turned" style="height:{height:.0f}px">{each}</th>'
        for each in heads
    )
    body = "".join(
        f'<tr><td class="words">{escape(name)}</td>{"".join(cells)}</tr>'
        for name, cells in rows
    )
    return (
        '<table class="heat"><thead><tr><th scope="col"></th>'
        f'{turned}<th scope="col">all</th></tr></thead><tbody>{body}</tbody></table>'
    )


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _heat(regret: float | None, *, class_: str = "") -> str:
    """A cell as red as its regret is large (by the root), green where it beats the oracle."""
    kind = f' class="{class_}"' if class_ else ""
    if regret is None:
        return f"<td{kind}>{NONE}</td>"
    strength = min(1.0, (abs(regret) / _HOT) ** 0.5) * 78
    colour = "var(--heat)" if regret > 0 else "var(--gain)"
    mixed = f"color-mix(in oklab, {colour} {strength:.0f}%, transparent)"
    return f'<td{kind} style="background:{mixed}">{percent(regret).removesuffix(" %")}</td>'


def validity_table(results: Sequence[RunResult]) -> str:
    """Return what the emulation measured of itself, all fields that any run has, worst
    first.
    """
    judged = [each for each in results if each.facts.validity is not None]
    fields = dict.fromkeys(
        name
        for each in judged
        for name, value in (each.facts.validity or {}).items()
        if isinstance(value, int | float | str) and name not in ("valid", "why")
    )
    ranked = sorted(judged, key=lambda each: (each.facts.void is None, each.key))
    rows = [
        [
            escape(str(each.key)),
            '<span class="good">valid</span>'
            if each.facts.void is None
            else f'<span class="bad">void</span><small>{escape(each.facts.void)}</small>',
            *(_told(name, (each.facts.validity or {}).get(name)) for name in fields),
        ]
        for each in ranked
    ]
    return table(["run", "", *(_head(name) for name in fields)], rows)


def _head(name: str) -> str:
    for suffix, unit in (("_bps", ", Mbit/s"), ("_s", ", ms"), ("_error", " error")):
        if name.endswith(suffix):
            return escape(name.removesuffix(suffix).replace("_", " ") + unit)
    return escape(name.replace("_", " "))


def _told(name: str, value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    if name.endswith("_error"):
        return percent(value)
    if name.endswith("_bps"):
        return f"{value / 1e6:.4g}"
    return milliseconds(value) if name.endswith("_s") else f"{value:,.6g}"


def menu_table(menu: Sequence[Mapping[str, Any]]) -> str:
    """The placements that could be chosen, as the profiles have them."""
    heads = ("placement", "sent", "head, ms", "encode, ms", "decode, ms", "tail, ms",
             "received", "rest on the edge, ms")  # fmt: skip
    rows = [
        [
            escape(str(each["label"])),
            format_nbytes(each["payload_nbytes"]) if each["remote"] else NONE,
            *(
                milliseconds(each[name])
                for name in ("head_s", "encode_s", "decode_s", "tail_s")
            ),
            format_nbytes(each["reply_nbytes"]) if each["remote"] else NONE,
            milliseconds(each["rest_s"]),
        ]
        for each in sorted(menu, key=lambda each: -each["k"])
    ]
    return table(heads, rows)


def definitions(entries: Mapping[str, str]) -> str:
    """Words and what they are, one a line."""
    items = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries.items()
    )
    return f"<dl>{items}</dl>"
