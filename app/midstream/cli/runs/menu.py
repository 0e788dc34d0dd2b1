"""The menu of `midstream simulate`: made from a model's profiles, kept as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from midstream.cli.flags.planning import Devices, Planning
from midstream.cli.opening import opened_partition
from midstream.cli.runs.planner import open_planner
from midstream.feeding import Feeding
from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.menu_file import SUFFIX, MeasuredModel
from midstream_partitioner.costs.profile import Profile
from midstream_wire.errors import UsageError

#: Between the 10th and the 90th percentile of a normal distribution lie so many deviations.
_DECILES = 2 * 1.2816
#: A profile that scatters more was disturbed while it was measured.
MOST_SCATTER = 0.3


def measure_model(
    model: str,
    feed: Feeding,
    size: Sequence[str] | None,
    *,
    planning: Planning,
    devices: Devices,
    policies: Sequence[str],
) -> MeasuredModel:
    """Return what a network offers by the profiles of both sides; what `policies` name
    stays.
    """
    part = opened_partition(model, feed=feed, size=size)
    planner, at_edge, _ = open_planner(part, planning, devices, source=None)
    complete = len(at_edge.segments) >= len(part.segments)
    menu = Menu.of(planner, complete=complete, policies=policies)
    return MeasuredModel(part.name, menu, at_edge.device, _scatter(at_edge))


def check_output(path: Path | None) -> None:
    """Before anything is measured for it."""
    if path is not None and path.suffix != SUFFIX:
        raise UsageError(
            f"--menu-output must end in {SUFFIX}, by which a menu is known (not {path.name!r})"
        )


def write_menu(measured: MeasuredModel, path: Path) -> None:
    """A menu's file, which is a MODEL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured.to_dict(), indent=2) + "\n", encoding="utf-8")


def _scatter(profile: Profile) -> float:
    """The deviation of the logarithm of the edge's times, by the 10th and 90th percentile of
    its slowest segment."""
    slowest = max(profile.segments, key=lambda segment: segment.median_s)
    if not 0 < slowest.low_s < slowest.high_s:
        return 0.0
    return min(math.log(slowest.high_s / slowest.low_s) / _DECILES, MOST_SCATTER)
