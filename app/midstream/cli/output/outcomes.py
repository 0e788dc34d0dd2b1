"""Predicted beside measured: the table and the sentences of a trial's document."""

from __future__ import annotations

import math
from typing import Any

from midstream.cli.output import console
from midstream_partitioner.compare import EXACT
from midstream_partitioner.costs.timings import FIELDS


def outcome_table(document: dict[str, Any], title: str) -> console.Rows:
    """Two rows a placement, predicted above measured, the seven fields across."""
    fields = [name.removesuffix("_s") for name in FIELDS]
    rows = console.table(title, "", "placement", "", *fields, "total", "p50", "p95 ms",
                         "error", left=("", "placement"))  # fmt: skip
    for entry in document["placements"]:
        marks = ["plan"] * entry["is_chosen"] + ["private"] * entry["is_private_choice"]
        what = console.elided(title_of(entry))
        rows.add_row(" ".join(marks), what, "predicted", *_times(entry["predicted"]))
        rows.add_row("", "", "measured", *_times(entry["measured"]),
                     console.ms(entry["p50_s"]), console.ms(entry["p95_s"]),
                     f"{_error(entry):.0e}")  # fmt: skip
    return rows


def title_of(entry: dict[str, Any]) -> str:
    """Return cut and codec of a placement, and what it is there for where they do not tell."""
    name, label = entry["name"], entry["label"]
    return f"{name}: {label}" if name in ("best cut", "plan", "private plan") else label


def _times(times: dict[str, float]) -> list[str]:
    return [console.ms(times[name]) for name in (*FIELDS, "total_s")]


def _error(entry: dict[str, Any]) -> float:
    """Return a number as it is; what JSON writes as null is infinite."""
    error: float | None = entry["max_relative_error"]
    return math.inf if error is None else error


def best_measured(document: dict[str, Any]) -> dict[str, Any]:
    """The placement with the smallest measured median."""
    found: dict[str, Any] = min(document["placements"], key=lambda entry: entry["p50_s"])
    return found


def verdict(document: dict[str, Any]) -> str:
    """Return who was right: the plan's choice against what proved fastest."""
    best = best_measured(document)
    chosen = next(entry for entry in document["placements"] if entry["is_chosen"])
    answers = f"{document['answered']} of {document['requests']} answered under each placement"
    if document["local"]:
        answers += f", {document['local']} of them finished on the edge after the cloud failed"
    error = _error(document)
    exact = (
        f"equal to the unsplit model within {error:.1e}"
        if error <= EXACT
        else f"up to {error:.1e} from the unsplit model on what the codecs delivered, which "
        f"float32 does not explain: `midstream verify {document['model']}` measures whether "
        "the model's own rounding does"
    )
    ratio = chosen["p50_s"] / best["p50_s"]
    choice = (
        f"the plan's choice ({chosen['label']}) proved fastest"
        if chosen is best
        else f"the plan chose {chosen['label']}, {ratio:.2f} times the best, {best['label']}"
    )
    return f"{answers}, {exact}; {choice}."
