"""The results of a sweep, as a table and a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.report.palette import placement_colours
from midstream_lab.results.run_files import whole
from midstream_lab.simulation.sweep.sweep import Found, Grid
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.units import format_duration, format_rate

TABLE, PICTURE = "map.csv", "map.png"


def write_table(found: Sequence[Found], path: Path) -> None:
    """A row a point; the file is written whole or not at all."""
    rows = [each.to_dict() | {"ties": "; ".join(each.ties)} for each in found]
    with whole(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw_map(found: Sequence[Found], grid: Grid, path: Path, *, title: str) -> None:
    """Panels by slowdown and load: the uplink to the right, the round trip upwards, the winner
    as a colour, and what it gains in each cell. Written whole or not at all."""
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = winner_colours(found)
    down, across = len(grid.slowdown), len(grid.load)
    width = across * (1.5 + 0.62 * len(grid.uplink_bps))
    figure = Figure(
        figsize=(width, 1.2 + down * (1 + 0.4 * len(grid.rtt_s))), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False)
    for at, (slowdown, load) in enumerate(panels_of(grid)):
        axes = panels[at // across][at % across]
        mine = [e for e in found if (e.point.slowdown, e.point.load) == (slowdown, load)]
        _panel(axes, mine, grid, colours)
        axes.set_title(f"edge {slowdown:g}x slower, load {load:.0%}", loc="left", fontsize=9)
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in colours.items()],
        loc="outside lower left",
        ncols=min(4, len(colours)),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    with whole(path, "wb") as file:
        figure.savefig(file, format=path.suffix[1:], dpi=130)


def panels_of(grid: Grid) -> Iterator[tuple[float, float]]:
    """Slowdown and load of each panel, row by row."""
    for slowdown in grid.slowdown:
        for load in grid.load:
            yield slowdown, load


def winner_colours(found: Sequence[Found]) -> dict[str, str]:
    """A colour for each label that wins, from the edge's end to the cloud's.

    Between the ends they come by the uplinks at which they win, slowest first.
    """
    uplinks: dict[str, list[float]] = {}
    ends: dict[str, int] = {}
    for each in found:
        uplinks.setdefault(each.label, []).append(math.log(each.point.uplink_bps))
        ends[each.label] = {EDGE_ONLY: 0, CLOUD_ONLY: 2}.get(each.cut, 1)
    means = {label: math.fsum(logs) / len(logs) for label, logs in uplinks.items()}
    return placement_colours(
        sorted(means, key=lambda label: (ends[label], means[label], label))
    )


def _panel(axes: Any, found: Sequence[Found], grid: Grid, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Rectangle

    for each in found:
        column = grid.uplink_bps.index(each.point.uplink_bps)
        row = grid.rtt_s.index(each.point.rtt_s)
        colour = colours[each.label]
        axes.add_patch(Rectangle((column, row), 1, 1, color=colour, ec="white", lw=0.5))
        if each.gain is not None and each.gain >= 0.005:
            text = f"{each.gain:.0%}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7)
    axes.set(xlim=(0, len(grid.uplink_bps)), ylim=(0, len(grid.rtt_s)))
    rates = [format_rate(rate).replace("bit/s", "") for rate in grid.uplink_bps]
    axes.set_xticks(np.arange(len(rates)) + 0.5, rates, fontsize=7, rotation=45)
    delays = [format_duration(rtt_s) for rtt_s in grid.rtt_s]
    axes.set_yticks(np.arange(len(delays)) + 0.5, delays, fontsize=7)
    axes.set_xlabel("uplink, bit/s", fontsize=8)
    axes.set_ylabel("RTT", fontsize=8)
