"""Sweeps: every placement simulated over a grid of conditions.

A grid has four axes: the uplink, the round trip, how much slower the edge is than profiled,
and the share of the cloud's time that others take. At every point each placement of the menu
is run by itself; what wins is compared with the better of edge-only and the best cloud-only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.model.arrivals import Closed
from midstream_lab.simulation.model.link_spec import HEADER_SHARE, Network, steady
from midstream_lab.simulation.model.machine import FixedPlacement, Machine
from midstream_lab.simulation.pair.pair import MOST_LOAD, Setting, simulate_pair
from midstream_partitioner.costs.device import Device
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.units import parse_duration, parse_rate, parse_share
from midstream_wire.errors import UsageError

Floats = NDArray[np.float64]

#: Points of a grid; a hundred thousand take hours.
MOST_POINTS = 100_000
#: The first requests of each placement do not count: TCP's window takes so many to come to
#: what it goes on with, and the queue to fill. Windows go on in cycles, so a mean needs
#: several of them: over 40 requests or more it is within 4 % of the mean over 200 later ones,
#: over these 80 within 1 % (1,080 cases: 20 KB to 12 MB, 5 Mbit/s to 10 Gbit/s, round trips of
#: 2 to 100 ms). Over the first four it was 15 % off in the mean, 95 % at worst.
SKIPPED = 20
#: Requests that count: where all are alike, and where others' load, the edge's scatter or the
#: payloads' sizes make them differ (their mean is then good to some 5 % at a load of 70 %).
REQUESTS, VARIED_REQUESTS = 80, 200
#: Shares by which a placement must be behind the winner not to be tied with it: what a window
#: that just holds a payload is worth in the mean, and how good means are where requests vary.
TIE, VARIED_TIE = 0.02, 0.05
#: What passes between an answer and the next request, in times of one request: too short for
#: the window to be forgotten on most links.
PAUSE = 0.25
#: The downlink of a point, as many times the uplink: what consumers are sold, about.
DOWNLINK = 4.0
#: Figures found by another method are another sweep's. First a number for all that is
#: simulated, to be raised when it changes within a version.
METHOD = (5, SKIPPED, REQUESTS, VARIED_REQUESTS, PAUSE, DOWNLINK)


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """The values of each axis, in the order in which they are walked."""

    uplink_bps: tuple[float, ...] = (0.5e6, 1e6, 2e6, 5e6, 10e6, 20e6, 50e6, 100e6, 200e6)
    rtt_s: tuple[float, ...] = (0.005, 0.02, 0.05, 0.1)
    slowdown: tuple[float, ...] = (1.0, 4.0)
    load: tuple[float, ...] = (0.0, 0.7)

    def __post_init__(self) -> None:
        sizes = [len(getattr(self, name)) for name in AXES]
        points = int(np.prod(sizes, dtype=np.int64))
        if not 1 <= points <= MOST_POINTS:
            raise UsageError(f"a grid must have 1 to {MOST_POINTS} points (not {points})")
        if not all(0 <= each <= MOST_LOAD for each in self.load):
            raise UsageError(f"a load must be from 0 to {MOST_LOAD:.0%} (not {self.load})")
        for name in ("uplink_bps", "slowdown"):
            if not all(0 < each < 1e13 for each in getattr(self, name)):
                raise UsageError(f"{name} must be above zero all along its axis")
        if not all(0 <= each < 1e4 for each in self.rtt_s):
            raise UsageError(f"a round trip must be from 0 up to 10,000 s (not {self.rtt_s})")
        for name in AXES:
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UsageError(f"values of {name} must differ (not {values}): leave one out")

    def points(self) -> list[Point]:
        axes = (getattr(self, name) for name in AXES)
        return [Point(*values) for values in itertools.product(*axes)]


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One condition."""

    uplink_bps: float
    rtt_s: float
    slowdown: float
    load: float


#: Fields of a grid and of a point.
AXES = ("uplink_bps", "rtt_s", "slowdown", "load")
_PARSERS = {
    "uplink": ("uplink_bps", parse_rate),
    "rtt": ("rtt_s", parse_duration),
    "slowdown": ("slowdown", float),
    "load": ("load", parse_share),
}


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The winner at a point: mean latencies, and the gain over the better trivial placement.

    `p95_s` is None where all requests are alike: they then differ by TCP's window alone.
    `edge_only_s` and `cloud_only_s` are None where the menu has no such option. `gain` is how
    much longer the better of the two takes than what won, in parts of it; 0 where one of them
    did. `ties` are the placements that take so little longer that the simulation does not
    tell them from the winner (`TIE`, `VARIED_TIE`), the quickest first.
    """

    point: Point
    cut: str
    codec: str
    label: str
    mean_s: float
    p95_s: float | None
    edge_only_s: float | None
    cloud_only_s: float | None
    gain: float | None
    ties: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The point's fields and the others side by side."""
        fields = asdict(self)
        return {**fields.pop("point"), **fields, "ties": list(self.ties)}


def parse_grid(texts: Sequence[str]) -> Grid:
    """A grid from "uplink=1Mbit:100Mbit:9" (so many values, evenly by their ratio) or
    "rtt=5ms,50ms" (a list); axes not named stay as they are. Raises `UsageError`.
    """
    values: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, detail = text.partition("=")
        if not equals or name not in _PARSERS:
            raise UsageError(
                f"an axis must be {', '.join(_PARSERS)} and its values (not {text!r}): "
                "uplink=1Mbit:100Mbit:9 or rtt=5ms,50ms"
            )
        field, parse = _PARSERS[name]
        try:
            values[field] = _values(detail, parse)
        except ValueError:
            raise UsageError(f"values of {name} must be numbers (not {detail!r})") from None
    return Grid(**values)


def _values(detail: str, parse: Any) -> tuple[float, ...]:
    parts = detail.split(":")
    if len(parts) == 1:
        return tuple(parse(part) for part in detail.split(","))
    if len(parts) != 3 or not parts[2].isdigit() or not 2 <= int(parts[2]) <= MOST_POINTS:
        raise UsageError(f"a range must be FROM:TO:COUNT, 2 values or more (not {detail!r})")
    first, last, count = parse(parts[0]), parse(parts[1]), int(parts[2])
    if not 0 < first < last:
        raise UsageError(f"a range must rise, from above zero (not {detail!r}): give a list")
    return tuple(float(each) for each in np.geomspace(first, last, count))


@final
@dataclass(frozen=True, slots=True)
class Task:
    """All that one point's answer depends on, to be sent to another process."""

    point: Point
    menu: Menu
    device: Device
    machine: Machine
    seed: int


def tasks(
    grid: Grid, menu: Menu, device: Device, *, machine: Machine, seed: int
) -> list[Task]:
    """One for each point, in the grid's order."""
    return [Task(point, menu, device, machine, seed) for point in grid.points()]


def evaluate(task: Task) -> Found:
    """Run every placement at the point."""
    point, placements = task.point, task.menu.placements
    measured = [_run(task, index) for index in range(len(placements))]
    means_s = [mean_s for mean_s, _ in measured]
    ranked = [int(at) for at in np.argsort(means_s, kind="stable")]
    best = ranked[0]
    varies = any(p95_s is not None for _, p95_s in measured)
    least_s = (1 + (VARIED_TIE if varies else TIE)) * means_s[best]
    edge_only_s = _least(means_s, [placement.cut == EDGE_ONLY for placement in placements])
    cloud_only_s = _least(means_s, [placement.cut == CLOUD_ONLY for placement in placements])
    trivial = [each for each in (edge_only_s, cloud_only_s) if each is not None]
    return Found(
        point=point,
        cut=placements[best].cut,
        codec=placements[best].codec,
        label=placements[best].label,
        mean_s=means_s[best],
        p95_s=measured[best][1],
        edge_only_s=edge_only_s,
        cloud_only_s=cloud_only_s,
        gain=min(trivial) / means_s[best] - 1 if trivial else None,
        ties=tuple(placements[at].label for at in ranked[1:] if means_s[at] < least_s),
    )


def _run(task: Task, index: int) -> tuple[float, float | None]:
    """Return mean and 95th percentile of one placement's requests, each on a free link."""
    point = task.point
    machine = replace(task.machine, slowdown=task.machine.slowdown * point.slowdown)
    up = steady(point.uplink_bps / HEADER_SHARE)
    down = steady(DOWNLINK * point.uplink_bps / HEADER_SHARE)
    network = Network(up, down, point.rtt_s, share=HEADER_SHARE)
    placement = task.menu.placements[index]
    varies = point.load > 0 or machine.sigma > 0 or len(set(placement.payloads_nbytes)) > 1
    wanted = SKIPPED + (VARIED_REQUESTS if varies else REQUESTS)
    alone_s = _alone_s(placement, machine, network)
    setting = Setting(
        network=network,
        device=task.device,
        arrivals=Closed(PAUSE * alone_s),
        duration_s=wanted * (1 + PAUSE) * alone_s,
        seed=task.seed,
        machine=machine,
        load=point.load,
        timeout_s=1e6,
    )
    stays_s = _stays_s(task.menu, index, setting, wanted)[SKIPPED:]
    return float(stays_s.mean()), float(np.quantile(stays_s, 0.95)) if varies else None


def _alone_s(placement: Placement, machine: Machine, network: Network) -> float:
    """Return what a request takes by itself, but for slow start and queues."""
    link = network.mean_link()
    here_s = (placement.head_s + placement.encode_s) * machine.slowdown
    there_s = placement.decode_s + placement.tail_s
    if not placement.remote:
        return here_s + there_s + 1e-3
    air_s = (
        placement.payload_nbytes / link.uplink_bps + placement.reply_nbytes / link.downlink_bps
    )
    return here_s + there_s + 8 * air_s + network.rtt_s + network.fixed_s


def _stays_s(menu: Menu, index: int, setting: Setting, wanted: int) -> Floats:
    """[wanted] the time of each request, however long the run that takes."""
    while True:
        stays_s = simulate_pair(menu, FixedPlacement(index), setting).table.stay_s
        if len(stays_s) >= wanted:
            return stays_s[:wanted].astype(np.float64)
        longer = 1.1 * wanted / max(1, len(stays_s))
        setting = replace(setting, duration_s=setting.duration_s * longer)


def _least(means_s: Sequence[float], wanted: Sequence[bool]) -> float | None:
    chosen = (mean_s for mean_s, is_wanted in zip(means_s, wanted, strict=True) if is_wanted)
    return min(chosen, default=None)
