"""The table of requests, in columns: millions of rows in a few hundred megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
import numpy.typing as npt

from midstream_edge.session.answers import AHEAD, CLOUD, EDGE, FALLBACK
from midstream_lab.simulation.model.request import BY_CLOUD, Job
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.planning.placements import Placement

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

#: How requests end, by their number in the column `how`; the last: nobody answered.
ENDS = (CLOUD, EDGE, FALLBACK, AHEAD, "failed")


@final
@dataclass(frozen=True, eq=False)
class Table:
    """A row a request, in the order of their ends. `how` indexes `ENDS`.

    `latency_s` counts from `due_s`, `stay_s` from when the edge began with it. `busy_s` is the
    edge's computing for it, `air_s` and `reply_air_s` what it sent and received in, `wait_s`
    its time in the cloud's queue. `stages_s` [n, 7] are the times of `Timings`, if kept.
    """

    edge: Integers
    due_s: Floats
    latency_s: Floats
    stay_s: Floats
    busy_s: Floats
    air_s: Floats
    reply_air_s: Floats
    wait_s: Floats
    placement: Integers
    payload_nbytes: Integers
    how: Integers
    hedged: Integers
    switched: Integers
    stages_s: Floats

    def __len__(self) -> int:
        return len(self.latency_s)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Table:
        """The rows of which `chosen` says so."""
        stages_s = self.stages_s[chosen] if len(self.stages_s) else self.stages_s
        columns = {
            each.name: getattr(self, each.name)[chosen]
            for each in fields(self)
            if each.name != "stages_s"
        }
        return Table(stages_s=stages_s, **columns)

    def energy_j(self, device: Device) -> Floats:
        """[n] what each request cost its edge: computing, sending, receiving, waiting."""
        busy_s = self.busy_s.astype(np.float64)
        total_s = np.maximum(self.stay_s, busy_s)
        sending_s = np.minimum(self.air_s, total_s - busy_s)
        receiving_s = np.minimum(self.reply_air_s, total_s - busy_s - sending_s)
        return device.energy_j(
            total_s, busy_s=busy_s, sending_s=sending_s, receiving_s=receiving_s
        )


@final
class Recorder:
    """Takes finished jobs one by one; `table` at the end. `detailed` keeps the stages."""

    __slots__ = ("_detailed", "_due", "_floats", "_small", "_stages", "_wholes")

    def __init__(self, *, detailed: bool) -> None:
        self._detailed = detailed
        self._due = array("d")
        self._floats = array("f")
        self._wholes = array("q")
        self._small = array("B")
        self._stages = array("d")

    def add(self, job: Job, how: int, now_s: float) -> None:
        """One row; `how` as in `ENDS`."""
        self._due.append(job.due_s)
        self._floats.extend(
            (
                now_s - job.due_s,
                now_s - job.began_s,
                job.head_s + job.encode_s + job.rest_s,
                job.air_s,
                job.reply_air_s,
                job.started_s - job.queued_s,
            )
        )
        self._wholes.extend((job.edge.index, job.placement, job.payload_nbytes))
        self._small.extend((how, job.hedged, job.switched))
        if self._detailed:
            self._stages.extend(_stages(job, how, now_s))

    def table(self) -> Table:
        floats = np.frombuffer(self._floats, np.float32).reshape(-1, 6)
        wholes = np.frombuffer(self._wholes, np.int64).reshape(-1, 3)
        small = np.frombuffer(self._small, np.uint8).reshape(-1, 3)
        return Table(
            edge=wholes[:, 0],
            due_s=np.frombuffer(self._due),
            latency_s=floats[:, 0],
            stay_s=floats[:, 1],
            busy_s=floats[:, 2],
            air_s=floats[:, 3],
            reply_air_s=floats[:, 4],
            wait_s=floats[:, 5],
            placement=wholes[:, 1],
            payload_nbytes=wholes[:, 2],
            how=small[:, 0],
            hedged=small[:, 1],
            switched=small[:, 2],
            stages_s=np.frombuffer(self._stages).reshape(-1, 7),
        )


def _stages(job: Job, how: int, now_s: float) -> tuple[float, ...]:
    """The seven times of `Timings`, as a session splits them."""
    if how == BY_CLOUD:
        served_s = job.served_s - job.started_s
        decode_s = job.service_s - job.tail_s
        return (
            job.head_s,
            job.left_s - job.asked_s,
            job.sent_s - job.left_s,
            job.started_s - job.queued_s,
            min(decode_s, served_s),
            max(0.0, served_s - decode_s),
            now_s - job.served_s,
        )
    waited_s = max(0.0, now_s - job.began_s - job.head_s - job.rest_s)
    encode_s = min(job.encode_s, waited_s)
    return (job.head_s, encode_s, 0.0, waited_s - encode_s, 0.0, job.rest_s, 0.0)


def rows(table: Table, placements: Sequence[Placement]) -> Iterator[dict[str, Any]]:
    """Rows as JSON documents, in the order of their ends: the fields of a session's records
    (`midstream_edge.workload.load_generator.Record`) that a simulation has."""
    for at in range(len(table)):
        placement, how = placements[int(table.placement[at])], int(table.how[at])
        stages_s = table.stages_s[at].tolist() if len(table.stages_s) else []
        timings = dict(zip(FIELDS, stages_s, strict=False))
        yield {
            "edge": int(table.edge[at]),
            "at_s": float(table.due_s[at]),
            "latency_s": float(table.latency_s[at]),
            "where": ENDS[how],
            "hedged": bool(table.hedged[at]),
            "switched": bool(table.switched[at]),
            "k": placement.k,
            "cut": placement.cut,
            "codec": placement.codec,
            "payload_nbytes": int(table.payload_nbytes[at]),
            "edge_busy_s": float(table.busy_s[at]),
            "timings": timings | {"total_s": sum(stages_s)} if timings else None,
        }
