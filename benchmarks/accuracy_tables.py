"""What benchmarks/accuracy.py tells: tables in Markdown, and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accuracy_measures import KINDS, Choosing, Row, best_of, kind_of
from accuracy_subjects import Subject
from PIL import Image


def summary(rows: Sequence[Row], subject: Subject) -> Iterator[str]:
    """For every cut the smallest payload in budget, per group of codecs."""
    yield f"Smallest payload per sample with {subject.budget.text}:"
    yield ""
    yield f"| cut | elements | {' | '.join(KINDS)} |"
    yield f"|---|---|{'---|' * len(KINDS)}"
    if subject.is_pictures:
        for kind in ("png", "jpeg", "webp"):
            cell = brief([row for row in rows if kind_of(row.codec) == kind], subject)
            yield f"| input as {kind} | | {cell} |{' |' * (len(KINDS) - 1)}"
    for here in by_cut(rows):
        groups = ([row for row in here if kind_of(row.codec) == kind] for kind in KINDS)
        cells = " | ".join(brief(group, subject) for group in groups)
        yield f"| {here[0].label} | {here[0].elements:,} | {cells} |"


def by_cut(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each cut, from the input on."""
    for position in sorted({row.position for row in rows}):
        yield [row for row in rows if row.position == position]


def brief(rows: Sequence[Row], subject: Subject) -> str:
    """The best of a group, in a cell of a table."""
    row = best_of(rows)
    if row is None:
        return "–"
    return (
        f"{row.payload_nbytes:,.0f} B, {row.bits_per_element:.2f} b/el ({row.codec}; "
        f"{row.metrics[subject.metric]:.1f} %)"
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Every row with all its metrics."""
    names = [name for name in rows[0].metrics if name != "top1_kept"]
    yield f"| cut | codec | b/el | bytes | worst | {' | '.join(names)} | |"
    yield "|---|---|" + "---|" * (len(names) + 4)
    for row in rows:
        values = " | ".join(f"{row.metrics[name]:.4g}" for name in names)
        yield (
            f"| {row.label} | {row.codec} | {row.bits_per_element:.2f} | "
            f"{row.payload_nbytes:,.0f} | {row.payload_worst_nbytes:,} | {values} | "
            f"{verdict(row)} |"
        )


def comparison(found: Sequence[Choosing]) -> Iterator[str]:
    """What was chosen on training pictures, and what that is on test pictures."""
    yield "| cut | group | chosen | there | b/el | bytes | agreement | top-1 lost | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each in found:
        there, here = each.chosen, each.tested
        yield (
            f"| {here.label} | {each.kind} | `{here.codec}` | {there.bits_per_element:.2f}, "
            f"{there.metrics['agreement']:.2f} %, {there.metrics['top1_loss']:+.2f} | "
            f"{here.bits_per_element:.3f} | {here.payload_nbytes:,.0f} | "
            f"{here.metrics['agreement']:.2f} % | {here.metrics['top1_loss']:+.2f} | "
            f"{verdict(here)} |"
        )


def verdict(row: Row) -> str:
    return "in budget" if row.in_budget else ""


def draw(rows: Sequence[Row], subject: Subject, path: Path) -> None:
    """Bytes per sample against accuracy: a line per cut, and the input's codecs."""
    from matplotlib.figure import Figure

    height = max(6.2, 4.4 * len(subject.drawn))
    figure = Figure(figsize=(11, height), layout="constrained")
    panels = figure.subplots(len(subject.drawn), squeeze=False)[:, 0]
    for axes, (metric, lowest) in zip(panels, subject.drawn.items(), strict=True):
        draw_panel(axes, rows, metric)
        if metric in subject.budget.least:
            axes.axhline(subject.budget.least[metric], color="black", linewidth=0.8, ls="--")
        best = max(row.metrics[metric] for row in rows)
        axes.set(
            xscale="log", ylabel=f"{metric}, %", ylim=(lowest, best + 0.03 * (best - lowest))
        )
        axes.grid(alpha=0.3, which="both", linewidth=0.4)
    panels[-1].set_xlabel("bytes per sample")
    against = ", and picture codecs of the input" if subject.is_pictures else ""
    title = f"{subject.title}: ec at every cut (dotted: ctx){against}"
    panels[0].set_title(title, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    with Image.open(drawn) as image:  # few colours: a third of the bytes
        image.convert("RGB").quantize(96).save(path, optimize=True)


def draw_panel(axes: Any, rows: Sequence[Row], metric: str) -> None:
    from matplotlib import colormaps

    cuts = list(by_cut([row for row in rows if row.position]))
    for rank, here in enumerate(cuts):
        shade = colormaps["viridis"](0.95 * rank / max(1, len(cuts) - 1))
        steps = [row for row in here if row.codec.startswith("ec:")]
        line(axes, steps, metric, label=here[0].label, color=shade, marker="o")
        contexts = [row for row in here if row.codec.startswith("ctx:")]
        line(axes, contexts, metric, color=shade, linestyle=":")
    for kind, color in (("jpeg", "#cc3311"), ("webp", "#ee7733"), ("png", "#aa3377")):
        here = [row for row in rows if kind_of(row.codec) == kind]
        line(axes, here, metric, label=f"input as {kind}", color=color, marker="s")


def line(axes: Any, rows: Sequence[Row], metric: str, **style: Any) -> None:
    ordered = sorted(rows, key=lambda row: row.payload_nbytes)
    if ordered:
        sizes = [row.payload_nbytes for row in ordered]
        values = [row.metrics[metric] for row in ordered]
        axes.plot(sizes, values, markersize=3, linewidth=1.2, **style)
