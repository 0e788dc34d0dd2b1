"""Figures of many requests: what people compare and operators ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from midstream_lab.simulation.output.request_table import ENDS, Table
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement


@final
@dataclass(frozen=True, slots=True)
class Share:
    """The share of requests that one placement took."""

    cut: str
    codec: str
    label: str
    requests: int
    share: float


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """Of the requests of one run, or of a group of edges.

    Latencies count from when a request was due, of all that were answered; they are None where
    nothing was. `missed` is the share over the deadline or never answered, None without a
    deadline. `ends` counts by who answered. `energy_j` is the edge's, a request in the mean.
    """

    requests: int
    answered: int
    ends: dict[str, int]
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    missed: float | None
    hedged: int
    switches: int
    wait_mean_s: float | None
    wait_p99_s: float | None
    uplink_nbytes: int
    energy_j: float | None
    placements: tuple[Share, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(
    table: Table,
    placements: Sequence[Placement],
    device: Device,
    *,
    deadline_s: float | None = None,
) -> Figures:
    """The figures of `table`, whose requests chose among `placements`."""
    answered = table.how < ENDS.index("failed")
    latency_s = table.latency_s[answered].astype(np.float64)
    waits_s = table.wait_s[(table.how == 0) & answered].astype(np.float64)
    mean_s, p50_s, p95_s, p99_s = _spread(latency_s, (0.5, 0.95, 0.99))
    wait_mean_s, wait_p99_s = _spread(waits_s, (0.99,))
    counts = np.bincount(table.how, minlength=len(ENDS))
    return Figures(
        requests=len(table),
        answered=len(latency_s),
        ends={name: int(count) for name, count in zip(ENDS, counts, strict=True)},
        mean_s=mean_s,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        missed=missed_share(table, deadline_s),
        hedged=int(table.hedged.sum(dtype=np.int64)),
        switches=int(table.switched.sum(dtype=np.int64)),
        wait_mean_s=wait_mean_s,
        wait_p99_s=wait_p99_s,
        uplink_nbytes=int(table.payload_nbytes.sum(dtype=np.int64)),
        energy_j=float(table.energy_j(device).mean(dtype=np.float64)) if len(table) else None,
        placements=_shares(table, placements),
    )


def missed_share(table: Table, deadline_s: float | None) -> float | None:
    """The share that was over the deadline or never answered; None where there is neither."""
    if deadline_s is None or not len(table):
        return None
    # Held to the deadline as the table keeps times: 0.3 s in four bytes is more than 0.3.
    late = table.latency_s > np.asarray(deadline_s, table.latency_s.dtype)
    return float(np.mean(late | (table.how == ENDS.index("failed"))))


def _spread(
    values: np.ndarray[Any, np.dtype[np.float64]], shares: tuple[float, ...]
) -> tuple[float | None, ...]:
    """The mean and the quantiles, all None where there is nothing."""
    if not len(values):
        return (None,) * (1 + len(shares))
    return (float(values.mean()), *(float(each) for each in np.quantile(values, shares)))


def _shares(table: Table, placements: Sequence[Placement]) -> tuple[Share, ...]:
    """Options that were taken, most often first."""
    counts = np.bincount(table.placement, minlength=len(placements))
    order = sorted(range(len(placements)), key=lambda at: (-counts[at], at))
    return tuple(
        Share(
            placements[at].cut,
            placements[at].codec,
            placements[at].label,
            int(counts[at]),
            float(counts[at]) / len(table),
        )
        for at in order
        if counts[at]
    )
