"""What an operator asks of a fleet that has run: figures by group, by replica, over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import numpy as np

from midstream_lab.simulation.figures import Figures, figures
from midstream_lab.simulation.fleet import FleetOutcome, Group
from midstream_lab.simulation.records import ENDS, Floats, Integers, Table

GIGABYTE, HOUR_S = 1e9, 3600.0


@final
@dataclass(frozen=True, slots=True)
class Prices:
    """In whatever currency: a replica for an hour, a gigabyte to or from the edges."""

    replica_hour: float = 0.0
    gigabyte: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class CloudFigures:
    """`utilisation` is the share of all workers' time that was computing, `by_replica` the
    same for each; `cost` is replicas and bytes by their prices."""

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
    nothing was answered."""

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
class Operation:
    """A run in figures; `groups` by name, `timeline` interval by interval."""

    total: Figures
    groups: dict[str, Figures]
    cloud: CloudFigures
    timeline: tuple[Interval, ...]
    probe_nbytes: int
    energy_j: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def operation(outcome: FleetOutcome, prices: Prices) -> Operation:
    """The figures of a run."""
    groups: dict[str, Figures] = {}
    energy_j = 0.0
    for at, group in enumerate(outcome.fleet.groups):
        mine = _rows_of(outcome, at)
        groups[group.name] = found = _figures(mine, group)
        energy_j += (found.energy_j or 0.0) * found.requests
    return Operation(
        total=_total(outcome, groups, energy_j),
        groups=groups,
        cloud=_cloud(outcome, prices),
        timeline=tuple(_timeline(outcome)),
        probe_nbytes=outcome.probe_nbytes,
        energy_j=energy_j,
    )


def _rows_of(outcome: FleetOutcome, at: int) -> Table:
    if len(outcome.fleet.groups) == 1:
        return outcome.table
    first, end = outcome.starts[at], outcome.starts[at + 1]
    edge = outcome.table.edge
    return outcome.table.where((edge >= first) & (edge < end))


def _figures(table: Table, group: Group) -> Figures:
    return figures(table, group.menu.options, group.device, deadline_s=group.deadline_s)


def _total(outcome: FleetOutcome, groups: dict[str, Figures], energy_j: float) -> Figures:
    """Of all edges together; options are told by group, as each has its own menu."""
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
        energy_j=energy_j / found.requests if found.requests else None,
        options=(),
    )


def _cloud(outcome: FleetOutcome, prices: Prices) -> CloudFigures:
    fleet = outcome.fleet
    workers = fleet.replicas.workers
    uplink_nbytes = int(outcome.table.payload_nbytes.sum(dtype=np.int64))
    uplink_nbytes += outcome.probe_nbytes
    hours = outcome.replica_s / HOUR_S
    moved = (uplink_nbytes + outcome.downlink_nbytes) / GIGABYTE
    whole_s = max(outcome.replica_s * workers, 1e-9)
    return CloudFigures(
        utilisation=min(1.0, sum(outcome.busy_s) / whole_s),
        by_replica=tuple(
            min(1.0, busy_s / (fleet.duration_s * workers)) for busy_s in outcome.busy_s
        ),
        replica_hours=hours,
        most_replicas=max(look.replicas for look in outcome.looks),
        refused=outcome.refused,
        uplink_nbytes=uplink_nbytes,
        downlink_nbytes=outcome.downlink_nbytes,
        cost=hours * prices.replica_hour + moved * prices.gigabyte,
    )


def _timeline(outcome: FleetOutcome) -> Iterator[Interval]:
    fleet, table = outcome.fleet, outcome.table
    count = int(np.ceil(fleet.duration_s / fleet.interval_s - 1e-9))
    bins: Integers = np.minimum((table.due_s / fleet.interval_s).astype(np.int32), count - 1)
    order = np.argsort(bins, kind="stable")
    edges = np.searchsorted(bins[order], np.arange(count + 1))
    looks = outcome.looks
    for at in range(count):
        rows = order[edges[at] : edges[at + 1]]
        look = looks[at]
        after = looks[min(at + 1, len(looks) - 1)]
        width_s = max(after.at_s - look.at_s, 1e-9)
        capacity_s = width_s * fleet.replicas.workers * max(1, look.replicas)
        times = _quantiles(table.latency_s[rows], table.how[rows])
        share = float((table.how[rows] == 0).mean()) if len(rows) else None
        yield Interval(
            look.at_s,
            len(rows),
            *times,
            share,
            min(1.0, (after.busy_s - look.busy_s) / capacity_s),
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
