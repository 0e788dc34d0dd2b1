"""A sweep kept in a folder as it goes on, and what it found as a table and a picture."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, final

import numpy as np

from midstream_lab.draw import check_picture
from midstream_lab.experiment.palette import placement_colours
from midstream_lab.simulation.sweep import AXES, Found, Grid, Point, Task
from midstream_partitioner.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.units import format_duration, format_rate
from midstream_wire.errors import UsageError

POINTS, TABLE, PICTURE = "points.jsonl", "map.csv", "map.png"


@final
class Store:
    """The points that are done, a line each in `FOLDER/points.jsonl`, so that a sweep that was
    interrupted goes on. The first line says what was asked, and another question is refused.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        self._path = folder / POINTS
        self._tasks = tasks
        folder.mkdir(parents=True, exist_ok=True)
        self.done: dict[int, Found] = {}
        asked = fingerprint(tasks)
        if self._path.exists():
            self._read(asked)
        else:
            self._path.write_text(json.dumps({"asked": asked}) + "\n")

    @property
    def missing(self) -> list[int]:
        """Numbers of the points that are still to do."""
        return [at for at in range(len(self._tasks)) if at not in self.done]

    def add(self, at: int, found: Found, file: TextIO) -> None:
        self.done[at] = found
        file.write(json.dumps({"at": at, **found.to_dict()}) + "\n")
        file.flush()

    def open(self) -> TextIO:
        return self._path.open("a")

    def results(self) -> list[Found]:
        """All points in the grid's order."""
        return [self.done[at] for at in range(len(self._tasks))]

    def _read(self, asked: str) -> None:
        whole: list[str] = []
        for at, line in enumerate(self._path.read_text().splitlines()):
            try:
                document = json.loads(line)
                if at == 0:
                    self._check(document, asked)
                else:
                    self._take(document)
            except (ValueError, KeyError, TypeError):
                break  # the line that was being written when it was interrupted
            whole.append(line)
        if not whole:
            raise UsageError(f"{self._path} must be the file of a sweep: take another folder")
        self._path.write_text("".join(f"{line}\n" for line in whole))

    def _check(self, document: Mapping[str, Any], asked: str) -> None:
        if document.get("asked") != asked:
            raise UsageError(
                f"a folder must hold one sweep ({self._path} is of another grid, menu or "
                "seed): take another folder, or remove it"
            )

    def _take(self, document: dict[str, Any]) -> None:
        at = int(document.pop("at"))
        point = Point(**{name: document.pop(name) for name in AXES})
        if 0 <= at < len(self._tasks) and point == self._tasks[at].point:
            self.done[at] = Found(point=point, **document)


def fingerprint(tasks: Sequence[Task]) -> str:
    """What a sweep depends on, as a digest."""
    first = tasks[0]
    question = {
        "points": [asdict(task.point) for task in tasks],
        "menu": [asdict(option) for option in first.menu.options],
        "machine": asdict(first.machine),
        "seed": first.seed,
    }
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def write_table(found: Sequence[Found], path: Path) -> None:
    """A row a point."""
    rows = [each.to_dict() for each in found]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_map(found: Sequence[Found], grid: Grid, path: Path, *, title: str) -> None:
    """Panels by slowdown and load: the uplink to the right, the round trip upwards, the winner
    as a colour, and what it gains in each cell."""
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
    figure.savefig(path, dpi=130)


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
