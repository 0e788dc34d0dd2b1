"""Traces as a picture: rates over time, outages shaded, and how the rates are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.traces.statistics import OUTAGE_BPS, statistics
from midstream_lab.traces.trace import Trace
from midstream_partitioner.units import format_duration, format_rate
from midstream_wire.errors import UsageError

#: Panels of one picture.
MOST_PANELS = 24


def draw_traces(traces: Sequence[Trace], path: Path) -> None:
    """A panel a trace on the left, the share of time below each rate on the right."""
    check_picture(path)
    if not 1 <= len(traces) <= MOST_PANELS:
        raise UsageError(f"a picture holds 1 to {MOST_PANELS} traces (not {len(traces)})")
    from matplotlib.figure import Figure

    height = 1.0 + 2.0 * len(traces)
    figure = Figure(figsize=(12, height), layout="constrained")
    panels = figure.subplots(len(traces), 2, squeeze=False, width_ratios=(4, 1))
    for (over_time, shares), trace in zip(panels, traces, strict=True):
        _rates(over_time, trace)
        _shares(shares, trace)
    panels[-1][0].set_xlabel("seconds", fontsize=8)
    panels[-1][1].set_xlabel("share of time below", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _rates(axes: Any, trace: Trace) -> None:
    found = statistics(trace)
    axes.stairs(trace.rates_bps / 1e6, trace.times_s, color="#4477aa", linewidth=0.8)
    out = trace.rates_bps < OUTAGE_BPS
    for start_s, end_s in zip(trace.times_s[:-1][out], trace.times_s[1:][out], strict=True):
        axes.axvspan(start_s, end_s, color="#aa3377", alpha=0.3, linewidth=0)
    axes.set_xlim(0, trace.duration_s)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Mbit/s", fontsize=8)
    axes.set_title(
        f"{trace.name}: mean {format_rate(found.mean_bps)}, 90 % of the time within "
        f"{format_rate(found.p5_bps)} and {format_rate(found.p95_bps)}, longest outage "
        f"{format_duration(found.longest_outage_s)}",
        loc="left",
        fontsize=8,
    )
    _tidy(axes)


def _shares(axes: Any, trace: Trace) -> None:
    order = np.argsort(trace.rates_bps, kind="stable")
    passed = np.cumsum(np.diff(trace.times_s)[order]) / trace.duration_s
    axes.plot(passed, trace.rates_bps[order] / 1e6, color="#228833", linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
