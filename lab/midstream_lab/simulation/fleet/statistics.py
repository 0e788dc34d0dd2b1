"""Figures of a fleet that has run: by group, by replica, over time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, final

import numpy as np

from midstream_lab.simulation.fleet.fleet import FleetOutcome, Group, Look, interval_count
from midstream_lab.simulation.output.request_table import ENDS, Floats, Integers, Table
from midstream_lab.simulation.output.statistics import Figures, figures

GIGABYTE, HOUR_S = 1e9, 3600.0
#: A share of less time than this is of none.
_MOMENT_S = 1e-9


@final
@dataclass(frozen=True, slots=True)
class Prices:
    """In whatever currency: a replica for an hour, a gigabyte to or from the edges."""

    replica_hour: float = 0.0
    gigabyte: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class CloudFigures:
    """`utilisation` is the share that was computing of the time of all workers that were up,
    `by_replica` that of each replica's in the whole run; `cost` is replicas, while they were
    there, and bytes by their prices. Bytes and refusals are of all requests, times of the run
    alone."""

    utilisation: float
    by_replica: tuple[float, ...]
    replica_hours: float
    most_replicas: int
    refused: int
    uplink_nbytes: int
    downlink_nbytes: int
    cost: float


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """The requests that were due in one interval, and the cloud in it; times are None where
    nothing was answered. `waiting` and `replicas` are of its end."""

    at_s: float
    requests: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    cloud_share: float | None
    utilisation: float
    waiting: int
    replicas: int


@final
@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of edges, by the power that their devices declare: idle all the time, and on
    top of it computing, sending and receiving (without probes).

    All the time is until the end of the run, or of an edge's last request if that is later.
    `edges_j` is of all edges together, `mean_w` of one in the mean, and `request_j` what a
    request took on top of idling in the mean, None where there was none.
    """

    edges_j: float
    mean_w: float
    request_j: float | None


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """A run in figures; `groups` and `energies` by name, `timeline` interval by interval.

    `Figures.energy_j` is None: it prices an edge's waiting for a request, and in a fleet
    requests wait beside each other.
    """

    total: Figures
    groups: dict[str, Figures]
    cloud: CloudFigures
    timeline: tuple[Interval, ...]
    probe_nbytes: int
    energy: Energy
    energies: dict[str, Energy]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def operation(outcome: FleetOutcome, prices: Prices) -> Operation:
    """The figures of a run."""
    groups: dict[str, Figures] = {}
    spent: dict[str, _Spent] = {}
    for at, group in enumerate(outcome.fleet.groups):
        mine = _rows_of(outcome, at)
        groups[group.name] = _figures(mine, group)
        spent[group.name] = _spent(mine, group, outcome.starts[at], outcome.fleet.duration_s)
    return Operation(
        total=_total(outcome, groups),
        groups=groups,
        cloud=_cloud(outcome, prices),
        timeline=tuple(_timeline(outcome)),
        probe_nbytes=outcome.probe_nbytes,
        energy=_energy(spent.values()),
        energies={name: _energy([each]) for name, each in spent.items()},
    )


def _rows_of(outcome: FleetOutcome, at: int) -> Table:
    if len(outcome.fleet.groups) == 1:
        return outcome.table
    first, end = outcome.starts[at], outcome.starts[at + 1]
    edge = outcome.table.edge
    return outcome.table.where((edge >= first) & (edge < end))


def _figures(table: Table, group: Group) -> Figures:
    found = figures(table, group.menu.placements, group.device, deadline_s=group.deadline_s)
    return replace(found, energy_j=None)


def _total(outcome: FleetOutcome, groups: dict[str, Figures]) -> Figures:
    """Of all edges together; placements are told by group, as each has its own menu."""
    first = outcome.fleet.groups[0]
    if len(groups) == 1:
        return groups[first.name]
    found = _figures(outcome.table, first)
    parts = groups.values()
    missed = [(each.missed, each.requests) for each in parts if each.missed is not None]
    timed = sum(requests for _, requests in missed)
    return replace(
        found,
        missed=sum(share * n for share, n in missed) / timed if timed else None,
        placements=(),
    )


@final
@dataclass(frozen=True, slots=True)
class _Spent:
    """Of the edges of a group together; `time_s` is added up over them."""

    time_s: float
    idle_j: float
    added_j: float
    requests: int


def _spent(table: Table, group: Group, first: int, duration_s: float) -> _Spent:
    """Edge by edge, because none computes, sends or receives for longer than it runs: what is
    encoded beside a head draws no second processor's power."""
    edge, count = table.edge - first, group.count
    time_s: Floats = np.full(count, duration_s)
    np.maximum.at(time_s, edge, table.due_s + table.latency_s)

    def seconds(column: Floats) -> float:
        by_edge = np.bincount(edge, weights=column, minlength=count)
        return float(np.minimum(by_edge, time_s).sum())

    device = group.device
    whole_s = float(time_s.sum())
    added_j = device.energy_j(
        0.0,
        busy_s=seconds(table.busy_s),
        sending_s=seconds(table.air_s),
        receiving_s=seconds(table.reply_air_s),
    )
    return _Spent(whole_s, device.idle_w * whole_s, added_j, len(table))


def _energy(spent: Collection[_Spent]) -> Energy:
    requests = sum(each.requests for each in spent)
    added_j = sum(each.added_j for each in spent)
    edges_j = added_j + sum(each.idle_j for each in spent)
    return Energy(
        edges_j=edges_j,
        mean_w=edges_j / sum(each.time_s for each in spent),
        request_j=added_j / requests if requests else None,
    )


def _cloud(outcome: FleetOutcome, prices: Prices) -> CloudFigures:
    fleet = outcome.fleet
    workers = fleet.replicas.workers
    uplink_nbytes = int(outcome.table.payload_nbytes.sum(dtype=np.int64))
    uplink_nbytes += outcome.probe_nbytes
    hours = outcome.replica_s / HOUR_S
    moved = (uplink_nbytes + outcome.downlink_nbytes) / GIGABYTE
    return CloudFigures(
        utilisation=_utilisation(outcome.looks[0], outcome.looks[-1], workers),
        by_replica=tuple(busy_s / (fleet.duration_s * workers) for busy_s in outcome.busy_s),
        replica_hours=hours,
        most_replicas=outcome.most_replicas,
        refused=outcome.refused,
        uplink_nbytes=uplink_nbytes,
        downlink_nbytes=outcome.downlink_nbytes,
        cost=hours * prices.replica_hour + moved * prices.gigabyte,
    )


def _utilisation(look: Look, after: Look, workers: int) -> float:
    """The share that was computing of the time of workers that were up between two looks."""
    up_s = after.up_s - look.up_s
    return (after.busy_s - look.busy_s) / (up_s * workers) if up_s > _MOMENT_S else 0.0


def _timeline(outcome: FleetOutcome) -> Iterator[Interval]:
    fleet, table = outcome.fleet, outcome.table
    count = interval_count(fleet)
    bins: Integers = np.minimum((table.due_s / fleet.interval_s).astype(np.int32), count - 1)
    order = np.argsort(bins, kind="stable")
    edges = np.searchsorted(bins[order], np.arange(count + 1))
    for at, (look, after) in enumerate(pairwise(outcome.looks)):
        rows = order[edges[at] : edges[at + 1]]
        times = _quantiles(table.latency_s[rows], table.how[rows])
        share = float((table.how[rows] == 0).mean()) if len(rows) else None
        yield Interval(
            look.at_s,
            len(rows),
            *times,
            share,
            _utilisation(look, after, fleet.replicas.workers),
            after.waiting,
            after.replicas,
        )


def _quantiles(
    latency_s: Floats, how: Integers
) -> tuple[float | None, float | None, float | None, float | None]:
    answered = latency_s[how < ENDS.index("failed")].astype(np.float64)
    if not len(answered):
        return None, None, None, None
    p50_s, p95_s, p99_s = (float(q) for q in np.quantile(answered, (0.5, 0.95, 0.99)))
    return float(answered.mean()), p50_s, p95_s, p99_s
