"""Local execution of a request: its head, and the rest where the cloud does not.

On the compute thread, or on a caller's in its turn. What a step raises is its request's
outcome, and nobody else's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import final

from midstream_edge.faults import is_interrupt
from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Situation
from midstream_edge.session.answers import AHEAD, EDGE, FALLBACK, Where
from midstream_edge.session.inflight import Job
from midstream_edge.session.inflight_table import InFlightTable
from midstream_edge.session.lifecycle import Action, Event, Stage, needs_no_turn
from midstream_edge.session.local_time import smooth
from midstream_edge.session.offloading import Offloading
from midstream_edge.session.outcomes import outcome_of
from midstream_edge.session.threads import HEAD, Worker
from midstream_partitioner.backends.stopping import Stopped
from midstream_partitioner.costs.timings import Timings
from midstream_partitioner.execution.chain import Chain


@final
class LocalExecution:
    """Runs heads and local rests of `chain`, and hands what crosses over to `offloading`."""

    def __init__(
        self, chain: Chain, table: InFlightTable, offloading: Offloading, worker: Worker
    ) -> None:
        self._chain = chain
        self._segment_count = len(chain.partition.segments)
        self._table = table
        self._offloading = offloading
        self._worker = worker

    def queue_head(self, job: Job) -> None:
        """Have the compute thread run a request's head, in its turn."""
        head = functools.partial(self.run_head, job)
        self._worker.put(head, rank=HEAD, order=job.id)
        if job.deadline_s is not None:
            self._table.expire_at(job, job.deadline_s)

    def run_head(self, job: Job) -> None:
        """Run a request's head now, and have it cross."""
        self._guarded(self._run_head, job)

    def run_headless(self, job: Job) -> None:
        """Let a request cross that needs no turn, if its director thinks so too."""
        self._guarded(self._run_headless, job)

    def run_rest(self, job: Job) -> None:
        """Run what the cloud does not, or not in time."""
        self._guarded(self._run_rest, job)

    def _guarded(
        self, step: Callable[[Job], None], job: Job, event: Event = Event.ABANDONED
    ) -> None:
        """Take a step of a request's. What it raises is `event`; Ctrl-C goes on besides."""
        try:
            step(job)
        except Stopped:  # the cloud was first
            pass
        except BaseException as error:
            interrupt = is_interrupt(error)
            self._table.move(job, Event.ABANDONED if interrupt else event, outcome_of(error))
            if interrupt:
                raise

    def _run_headless(self, job: Job) -> None:
        self._choose(job)
        assert job.choice is not None
        if needs_no_turn(job.choice.k, job.choice.codec):
            self._run_head(job)
        else:  # the plan has just changed
            self.queue_head(job)

    def _choose(self, job: Job) -> None:
        job.began_s = time.monotonic()
        job.choose(self._table.director.choose(self._situation(job)))

    def _run_head(self, job: Job) -> None:
        if not self._table.begin(job):
            return
        if job.choice is None:
            self._choose(job)
        choice, state = job.choice, job.state
        assert choice is not None
        assert state is not None
        job.began_s = time.monotonic()
        job.codec = choice.codec
        job.k = self._segment_count if self._offloading.connection is None else choice.k
        job.state = state = self._chain.run(state, 0, job.k)
        job.head_s = time.monotonic() - job.began_s
        if job.k < self._segment_count:
            heads_s = self._table.heads_s
            heads_s[job.k] = smooth(heads_s.get(job.k), job.head_s)
            self._guarded(self._offloading.cross, job, Event.FAILED)
        elif self._table.move(job, Event.FINISHED) is Action.ANSWER:
            ended_s = job.began_s + job.head_s
            self._table.answer(
                job, state, EDGE, ended_s, lambda: (None, Timings(head_s=job.head_s))
            )

    def _situation(self, job: Job) -> Situation:
        """Return what a director is told before a request's head."""
        waiting = sum(other is not job for other in self._table.at(Stage.WAITING))
        return Situation(
            now_s=job.began_s,
            link=self._offloading.link_state,
            in_flight=len(self._table) - 1,
            deadline_s=None if job.deadline_s is None else job.deadline_s - job.began_s,
            waiting=waiting,
            backlog_nbytes=self._offloading.backlog_nbytes,
            sizes=job.sizes,
        )

    def _run_rest(self, job: Job) -> None:
        table = self._table
        job.rest_began_s = began_s = time.monotonic()
        state = job.state
        stop = None if job.learning else job.stop
        for segment in range(job.k, self._segment_count):
            if state is None or (job.stage is Stage.DONE and not job.learning):
                return
            started_s = time.monotonic()
            state = self._chain.run(state, segment, segment + 1, stop=stop)
            took_s = time.monotonic() - started_s
            table.pace = table.pace.observe(segment, took_s, job.sizes)
        finished_s = time.monotonic()
        if state is None or table.move(job, Event.FINISHED) is not Action.ANSWER:
            return

        def told() -> tuple[Transfer | None, Timings]:
            if not job.trial:  # what the cloud says to it is to be heard
                table.withdraw(job)
            transfer = self._offloading.unfinished(job, finished_s)
            return transfer, job.edge_timings(finished_s - began_s, finished_s)

        where: Where = AHEAD if job.error is None else FALLBACK
        table.answer(job, state, where, finished_s, told)
