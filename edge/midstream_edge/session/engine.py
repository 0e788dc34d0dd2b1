"""The parts that run one partition's requests, put together, and the way in for callers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.connection import Connection
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.observations import LinkState
from midstream_edge.session.answers import Answer, Stats
from midstream_edge.session.director import Choice, Director
from midstream_edge.session.inflight import Job
from midstream_edge.session.inflight_table import InFlightTable
from midstream_edge.session.lifecycle import Event, needs_no_turn
from midstream_edge.session.local_execution import LocalExecution
from midstream_edge.session.local_time import LocalPace
from midstream_edge.session.offloading import Offloading
from midstream_edge.session.outcomes import no_room
from midstream_edge.session.threads import Crew
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.execution.chain import Chain
from midstream_wire.frames import Hello
from midstream_wire.tensors import Array

#: How long closing may wait for each of the session's threads.
CLOSE_S = 1.0


@final
class Engine:
    """Requests under way, from submission to the one answer that each of them gets.

    `director` is asked once per request, when its head begins. Engines of one session, over
    different partitions, share a `crew`. The parts refer to the table and never the other way
    round: a cycle would keep the chain's weights until a garbage collection.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        director: Director,
        pace: LocalPace,
        max_in_flight: int,
        crew: Crew,
    ) -> None:
        self.chain = chain
        self._worker = crew.worker
        self._table = InFlightTable(
            chain.partition,
            chain.last,
            director=director,
            pace=pace,
            max_in_flight=max_in_flight,
            crew=crew,
        )
        self._offloading = Offloading(chain, self._table)
        self._execution = LocalExecution(chain, self._table, self._offloading, crew.worker)

    def connect(
        self, endpoint: Endpoint, hello: Hello, *, beside: Stream | None = None
    ) -> Connection:
        """Begin to use a server, over the channel of `beside` while that stands."""
        return self._offloading.connect(endpoint, hello, beside=beside)

    @property
    def connection(self) -> Connection | None:
        """The connection to the server; None for an edge on its own."""
        return self._offloading.connection

    @property
    def director(self) -> Director:
        """Chooses for each request, and hears of its answer."""
        return self._table.director

    @director.setter
    def director(self, director: Director) -> None:
        self._table.director = director

    @property
    def whole(self) -> int | None:
        """Number of segments that edge-only runs; None unless this edge holds them all."""
        return self.chain.last if self._table.complete else None

    @property
    def link_state(self) -> LinkState:
        """State of the link; down without a server."""
        return self._offloading.link_state

    @property
    def backlog_nbytes(self) -> int:
        """Payload that was handed to the link and is not known to have arrived."""
        return self._offloading.backlog_nbytes

    @property
    def missing_nbytes(self) -> int:
        """Payload that was handed to the link and has surely not arrived."""
        return self._offloading.missing_nbytes

    @property
    def handed_nbytes(self) -> int:
        """Payload that requests have given to the present stream so far."""
        return self._offloading.handed_nbytes

    @property
    def usual_sizes(self) -> Sizes:
        """Sizes that requests have of late, as the table says."""
        return self._table.usual_sizes

    @property
    def stats(self) -> Stats:
        """Counts up to now."""
        welcomes = 0 if self.connection is None else self.connection.welcomes
        return self._table.stats(reconnects=max(0, welcomes - 1))

    def submit(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None
    ) -> Future[Answer]:
        """Begin a request once there is room; `deadline_s` is a moment."""
        return self._enter(inputs, deadline_s, here=False).future

    def infer(self, inputs: Mapping[str, Array], *, deadline_s: float | None) -> Answer:
        """Answer a request; its head runs on this thread where nothing else does."""
        return self._enter(inputs, deadline_s, here=True).future.result()

    def _enter(
        self, inputs: Mapping[str, Array], deadline_s: float | None, *, here: bool
    ) -> Job:
        """Admit a request, and begin or queue its head; `here`: this thread may run it."""
        asked_s, execution = time.monotonic(), self._execution
        with self._table.lock:  # so that heads run in the order of their requests
            late = self._table.wait_for_room(asked_s, deadline_s, self.connection)
            job = self._table.admit(inputs, deadline_s=deadline_s, rest=execution.run_rest)
            mine = late is None and here and self._worker.take_turn()
            direct = late is None and not mine and self._is_headless()
            if late is None and not mine and not direct:
                execution.queue_head(job)
        if late is not None:
            self._refuse_room(job, late, asked_s)
        elif direct:
            execution.run_headless(job)
        elif mine:
            try:
                execution.run_head(job)
            finally:
                self._worker.end_turn()
        return job

    def _refuse_room(self, job: Job, late: Event, asked_s: float) -> None:
        """Have a request that found no room run here, or fail."""
        job.choose(Choice(0, "raw", 0.0))
        job.began_s = time.monotonic()
        job.future.set_running_or_notify_cancel()
        self._table.move(job, late, no_room(job.began_s - asked_s))

    def _is_headless(self) -> bool:
        """Return True if the plan in force has nothing to compute before sending."""
        return self.connection is not None and needs_no_turn(*self.director.plan)

    def retire(self) -> None:
        """Take no more requests: who asks, or waits for room, gets `Retired`."""
        self._table.retire()

    def wait_idle(self) -> None:
        """Wait until nothing is under way any more."""
        self._table.wait_idle()

    def close(self) -> None:
        """Cancel what is under way and leave the server, within `CLOSE_S` or little more."""
        self._table.close()
        if self.connection is not None:
            self.connection.close(CLOSE_S)
