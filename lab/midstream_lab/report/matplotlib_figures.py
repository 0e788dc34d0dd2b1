"""Pictures of plans and trials, with matplotlib (the extra `lab`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.profile import CodecCost
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.envelope import Envelope
from midstream_partitioner.planning.over_sizes import SizeCurve
from midstream_partitioner.planning.plan import Plan
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.units import format_duration, format_rate
from midstream_wire.errors import UsageError

#: One colour per time field, the same in every picture: edge blues, network greys and sands,
#: cloud greens (after Paul Tol's colour-blind safe palettes).
COLOURS: Mapping[str, str] = {
    "head_s": "#4477aa",
    "encode_s": "#88bbdd",
    "uplink_s": "#ccbb44",
    "queue_s": "#aa3377",
    "decode_s": "#99ddaa",
    "tail_s": "#228833",
    "downlink_s": "#bbbbbb",
}
FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """`UsageError` if nothing could be drawn to `path`; to be asked before measuring."""
    if path.suffix not in FORMATS:
        raise UsageError(f"a picture must be {', '.join(FORMATS)} (not {path.name!r})")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("drawing needs matplotlib: pip install 'midstream[lab]'")


def draw_plan(
    plan: Plan,
    envelope: Envelope,
    planner: Planner,
    path: Path,
    *,
    title: str,
    curves: Sequence[SizeCurve] = (),
) -> None:
    """Stacked bars per candidate, and latency over the uplink with the envelope's rows.

    Below them a panel for each of `curves`: what the winner takes over the sizes.
    """
    with _figure(path, width=11, height=8.5 + 3.5 * len(curves)) as figure:
        bars, lines, *sized = figure.subplots(2 + len(curves), 1)
        for panel, curve in zip(sized, curves, strict=True):
            _size_line(panel, curve)
        shown = plan.candidates[:12]
        times = [candidate.estimate.to_dict() for candidate in shown]
        _stack(bars, range(len(shown)), times)
        bars.set_yticks(range(len(shown)), [candidate.label for candidate in shown])
        _finish(bars, f"{title}: predicted at {format_rate(plan.link.uplink_bps)} up")
        _legend(figure, bars)
        _latency_lines(lines, plan, envelope, planner)


def draw_outcomes(documents: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """One panel a network: for every placement a predicted bar on top of the measured one."""
    counts = [len(document["placements"]) for document in documents]
    with _figure(path, width=11, height=1.2 + sum(0.6 + 0.5 * n for n in counts)) as figure:
        heights = [count + 1 for count in counts]
        panels = figure.subplots(
            len(documents), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for panel, document in zip(panels, documents, strict=True):
            _outcomes(panel, document["placements"])
            _finish(panel, network_title(document["network"]))
        _legend(figure, panels[0])
        figure.suptitle(title, x=0.01, ha="left")


def _outcomes(axes: Any, placements: Sequence[Mapping[str, Any]]) -> None:
    """The two bars of every placement; the plan's choice stands in bold."""
    rows = range(len(placements))
    _stack(
        axes,
        [row - 0.2 for row in rows],
        [each["predicted"] for each in placements],
        "predicted",
    )
    _stack(
        axes,
        [row + 0.2 for row in rows],
        [each["measured"] for each in placements],
        "measured",
    )
    labels = []
    for each in placements:
        marks = ["plan"] * each["is_chosen"] + ["private plan"] * each["is_private_choice"]
        labels.append(f"{each['label']} ({', '.join(marks)})" if marks else each["label"])
    ticks = axes.set_yticks(rows, labels)
    for tick, each in zip(ticks, placements, strict=True):
        if each["is_chosen"]:
            tick.label1.set_fontweight("bold")


def draw_codecs(
    part: Partition, found: Calibration, costs: Sequence[CodecCost], path: Path
) -> None:
    """A row of panels a cut: accuracy over bytes, and over the time of encoding and decoding.

    Accuracy is top-1 (or the user's metric), without labels the agreement; the unsplit
    network's is a black line. What pictures of the input give stands in every panel.
    """
    cuts = [cut for cut in part.cuts if any(row.cut == cut.id for row in found.rows)]
    timed_s = {(cost.cut, cost.codec): cost.encode_s + cost.decode_s for cost in costs}
    families = _by_family(found.rows)
    plain = dict.fromkeys(family.rpartition("+")[2] for family in families)
    colours = {family: f"C{at % 10}" for at, family in enumerate(plain)}
    pictures = {name: line for name, line in families.items() if name in PICTURES}
    with _figure(path, width=12, height=1 + 3.2 * len(cuts)) as figure:
        panels = figure.subplots(len(cuts), 2, squeeze=False)
        lines = {}
        for (rates, times), cut in zip(panels, cuts, strict=True):
            inner = _by_family(row for row in found.rows if row.cut == cut.id)
            for family, line in (inner | pictures).items():
                style = _style(family, colours)
                accuracy = [_accuracy(found, row) for row in line]
                sizes = [row.payload_nbytes / 1e3 for row in line]
                (lines[family],) = rates.plot(sizes, accuracy, label=family, **style)
                spent = [timed_s.get((row.cut, row.codec), np.nan) * 1e3 for row in line]
                times.plot(spent, accuracy, **style | {"linestyle": ""})
                for row, *at in zip(line, sizes, accuracy, strict=True):
                    if "+" not in family:
                        step = row.codec.partition(":")[2]
                        rates.annotate(step, at, fontsize=6, rotation=30)
            _label_axes(rates, times, found, title=cut.label)
        figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=8)
        figure.suptitle(f"{part.name}: {found.samples} samples of {found.data}")


def _style(family: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """Pictures dashed, what goes through a transform dotted in the colour of its codec."""
    dashes = "--" if family in PICTURES else ":" if "+" in family else "-"
    marker = "x" if family in PICTURES else "."
    colour = colours[family.rpartition("+")[2]]
    return {"color": colour, "linestyle": dashes, "marker": marker, "linewidth": 1}


def _label_axes(rates: Any, times: Any, found: Calibration, *, title: str) -> None:
    rates.set_title(title, loc="left", fontsize=10)
    rates.set(xscale="log", xlabel="payload KB", ylabel=found.metric or "agreement")
    times.set(xscale="log", xlabel="encode + decode ms")
    for axes in (rates, times):
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7, which="both")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        if found.whole is not None:
            axes.axhline(found.whole, color="black", linewidth=0.6)


#: Codecs of pictures: lines of reference, whatever the cut.
PICTURES = ("png", "jpeg", "webp", "avif")


def _family(codec: str) -> str:
    """ "ec" of "ec:0.5", "klt:16+ec" of "klt:16+ec:0.5"."""
    transform, plus, name = codec.rpartition("+")
    return f"{transform}{plus}{name.partition(':')[0]}"


def _by_family(rows: Iterable[Fidelity]) -> dict[str, list[Fidelity]]:
    """Rows by family, each from the smallest payload up."""
    found: dict[str, list[Fidelity]] = {}
    for row in sorted(rows, key=lambda row: row.payload_nbytes):
        found.setdefault(_family(row.codec), []).append(row)
    return found


def _accuracy(found: Calibration, row: Fidelity) -> float:
    value = row.agreement if found.metric is None else row.top1
    return float("nan") if value is None else value


def network_title(network: Mapping[str, Any]) -> str:
    """ "lte: 12 Mbit/s up, 12 Mbit/s down, RTT 70 ms" from a document's `network`."""
    return (
        f"{network['name']}: {format_rate(network['uplink_bps'])} up, "
        f"{format_rate(network['downlink_bps'])} down, RTT {format_duration(network['rtt_s'])}"
    )


def _stack(
    axes: Any, rows: Sequence[float], times: Sequence[Mapping[str, float]], what: str = ""
) -> None:
    """A bar of seven stages in each of `rows`, its total at the end."""
    left = np.zeros(len(times))
    height = 0.38 if what else 0.8
    for name in FIELDS:
        widths = np.array([each[name] for each in times]) * 1e3
        axes.barh(
            rows,
            widths,
            height,
            left=left,
            color=COLOURS[name],
            label=None if what == "measured" else name.removesuffix("_s"),
        )
        left += widths
    for row, each, end in zip(rows, times, left, strict=True):
        total = f" {format_duration(each['total_s'])} {what}"
        axes.text(end, row, total, va="center", fontsize=7)


def _finish(axes: Any, title: str) -> None:
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * axes.dataLim.x1)  # with room for the totals
    axes.tick_params(labelsize=8)
    axes.set_xlabel("milliseconds", fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, axes: Any) -> None:
    """The colours of the stages, above the panels, where they hide no bar."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper right",
        ncols=len(FIELDS),
        fontsize=8,
        frameon=False,
    )


def _latency_lines(axes: Any, plan: Plan, envelope: Envelope, planner: Planner) -> None:
    """Latency of the candidates that ever win, faint ones beside, the ranges marked."""
    rates_bps = np.geomspace(max(envelope.rows[0].from_bps, 1e3), envelope.to_bps, 200)
    winners = {(row.k, row.codec) for row in envelope.rows}
    for placement in planner.allowed:
        links = [replace(plan.link, uplink_bps=rate) for rate in rates_bps]
        latency_ms = [1e3 * placement.estimate(link, 0.0).total_s for link in links]
        wins = (placement.k, placement.codec) in winners
        axes.plot(rates_bps / 1e6, latency_ms, linewidth=1.8 if wins else 0.6,
                  alpha=1.0 if wins else 0.35, label=placement.label if wins else None,
                  color=None if wins else "#888888")  # fmt: skip
    for row in envelope.rows[1:]:
        axes.axvline(row.from_bps / 1e6, color="#aa3377", linewidth=0.8, linestyle=":")
    axes.axvline(plan.link.uplink_bps / 1e6, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="uplink Mbit/s", ylabel="latency ms")
    axes.legend(fontsize=8)


def _size_line(axes: Any, curve: SizeCurve) -> None:
    """Draw what the winner takes at every size, one colour from change to change."""
    for piece in curve.pieces:
        inside = [(n, c.latency_s) for n, c in curve.samples if piece.first <= n <= piece.last]
        axes.plot([n for n, _ in inside], [1e3 * s for _, s in inside], marker=".",
                  label=f"{piece.label}, {piece.first} to {piece.last}")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=curve.name, ylabel="latency ms")
    axes.legend(fontsize=8)


@contextmanager
def _figure(path: Path, *, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure that is written to `path` in the end; no screen, no global state."""
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
