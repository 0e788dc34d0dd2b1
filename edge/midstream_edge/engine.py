"""What moves requests along: the compute thread, and what the link's threads call.

Decisions are `requests.Request.advance`'s, made under one lock; this carries them out.
"""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import ParamSpec, final

from midstream_edge.answers import AHEAD, CLOUD, EDGE, FALLBACK, Answer, Stats, Where
from midstream_edge.channel import Dial, Stream
from midstream_edge.connection import Connection
from midstream_edge.job import Job
from midstream_edge.ledger import Ledger
from midstream_edge.pace import LocalPace, give_up_at
from midstream_edge.pilot import Director
from midstream_edge.policies.values import LinkState, Situation
from midstream_edge.requests import Action, Event, Request, Stage
from midstream_edge.worker import HEAD, REST, Crew
from midstream_partitioner.chain import Chain
from midstream_partitioner.crossing import transform_crossing
from midstream_partitioner.runtime import Stopped
from midstream_partitioner.timings import Timings
from midstream_wire.errors import (
    CloudRefused,
    CloudUnavailable,
    DeadlineExceeded,
    MidstreamError,
    PeerError,
    UsageError,
)
from midstream_wire.frames import Cancel, ClientFrame, Code, Hello, More, Reply
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array
from midstream_wire.transfers import Incoming, check_carried

#: The names in `Stats` under which answers are counted.
_COUNTS: dict[Where, str] = {
    CLOUD: "cloud",
    EDGE: "edge",
    FALLBACK: "fallback",
    AHEAD: "ahead",
}

_P = ParamSpec("_P")

#: How long closing may wait for each of the session's threads.
CLOSE_S = 1.0


class Retired(Exception):
    """Another engine takes the requests of this session now."""


@final
class Engine:
    """Requests under way, from submission to the one answer that each of them gets.

    `director` is asked once per request, when its head begins. `connection` is None for an
    edge on its own. Engines of one session, over different partitions, share a `crew`.
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
        self.director = director
        self.connection: Connection | None = None
        self.chain = chain
        self._partition = chain.partition
        self._outputs_from = functools.cache(chain.partition.outputs_from)
        self._segment_count = len(chain.partition.segments)
        self._complete = chain.last == self._segment_count
        self._pace = pace
        self._ledger = Ledger()
        self._max_in_flight = max_in_flight
        self._ids = crew.ids
        self._jobs: dict[int, Job] = {}
        self._counts: Counter[str] = Counter()  # by the names in `Stats`
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._retired = False
        self._worker = crew.worker
        self._alarms = crew.alarms

    def connect(self, dial: Dial, hello: Hello, *, beside: Stream | None = None) -> Connection:
        """Begin to use a server, over the channel of `beside` while that stands."""
        self.connection = Connection(
            dial,
            hello,
            on_frame=_weakly(self._receive),
            on_down=_weakly(self._fail_all),
            beside=beside,
        )
        return self.connection

    def submit(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None
    ) -> Future[Answer]:
        """Queue a request once there is room; `deadline_s` is a moment."""
        # Under the lock, so that heads run in the order of their ids, as the wire wants.
        with self._lock:
            job = self._admit(inputs, deadline_s)
            self._worker.put(functools.partial(self._run_head, job), rank=HEAD, order=job.id)
        return job.future

    def infer(self, inputs: Mapping[str, Array], *, deadline_s: float | None) -> Answer:
        """A request and its answer; its head runs on this thread where nothing else does."""
        with self._lock:  # as above
            job = self._admit(inputs, deadline_s)
            mine = self._worker.take_turn()
            if not mine:
                head = functools.partial(self._run_head, job)
                self._worker.put(head, rank=HEAD, order=job.id)
        if mine:
            try:
                self._run_head(job)
            except BaseException:  # Ctrl-C: nobody will wait for the answer
                self._move(job, Event.ABANDONED, CancelledError())
                raise
            finally:
                self._worker.end_turn()
        return job.future.result()

    @property
    def link_state(self) -> LinkState:
        """How the link stands; down without a server."""
        return "down" if self.connection is None else self.connection.state

    @property
    def backlog_nbytes(self) -> int:
        """Payload that was handed to the link and is not known to have arrived."""
        return self._ledger.backlog_nbytes

    @property
    def stats(self) -> Stats:
        """Counts up to now."""
        welcomes = 0 if self.connection is None else self.connection.welcomes
        with self._lock:
            return Stats(**self._counts, reconnects=max(0, welcomes - 1))

    def retire(self) -> None:
        """Take no more requests: whoever asks, or waits for room, is told `Retired`."""
        with self._lock:
            self._retired = True
            self._changed.notify_all()

    def wait_idle(self) -> None:
        """Wait until nothing is under way any more."""
        with self._lock:
            self._changed.wait_for(lambda: not self._jobs)

    def close(self) -> None:
        """Cancel what is under way and leave the server, within `CLOSE_S` or little more."""
        with self._lock:
            self._closed = True
            jobs = sorted(self._jobs.values(), key=lambda job: job.id)
            self._changed.notify_all()
        for job in jobs:
            self._move(job, Event.ABANDONED, CancelledError("the session was closed"))
        if self.connection is not None:
            self.connection.close(CLOSE_S)

    def _most_in_flight(self) -> int:
        welcome = None if self.connection is None else self.connection.welcome
        allowed = welcome.max_in_flight if welcome else 0
        return min(self._max_in_flight, allowed) if allowed else self._max_in_flight

    def _most_nbytes(self) -> int:
        """What the tensors of one request may take, as the server or the protocol says."""
        welcome = None if self.connection is None else self.connection.welcome
        allowed = welcome.max_request_nbytes if welcome else 0
        return min(MAX_REQUEST_NBYTES, allowed) if allowed else MAX_REQUEST_NBYTES

    def _admit(self, inputs: Mapping[str, Array], deadline_s: float | None) -> Job:
        """A new request, once there is room for it. The caller holds the lock."""
        self._changed.wait_for(
            lambda: self._closed or self._retired or len(self._jobs) < self._most_in_flight()
        )
        if self._closed:
            raise UsageError("a request needs an open session, but this one is closed")
        if self._retired:
            raise Retired
        request = Request(next(self._ids), self._complete)
        job = Job(request, dict(inputs), deadline_s=deadline_s)
        self._jobs[job.id] = job
        self._counts["requests"] += 1
        return job

    # The compute thread, or a caller's in its turn.

    def _run_head(self, job: Job) -> None:
        if not self._begin(job):
            return
        job.began_s = time.monotonic()
        job.choice = choice = self.director.choose(self._situation(job))
        job.codec = choice.codec
        job.k = self._segment_count if self.connection is None else choice.k
        try:
            assert job.state is not None
            job.state = state = self.chain.run(job.state, 0, job.k)
        except Exception as error:  # whatever it is, whoever waits for the answer must know
            self._move(job, Event.ABANDONED, error)
            return
        job.head_s = time.monotonic() - job.began_s
        if job.k < self._segment_count:
            self._cross(job)
        elif self._move(job, Event.FINISHED) is Action.ANSWER:
            self.director.learn(job.evidence(job.began_s + job.head_s, None))
            self._deliver(job, state, EDGE, Timings(head_s=job.head_s))

    def _situation(self, job: Job) -> Situation:
        """What a director is told before a request's head."""
        with self._lock:
            waiting = sum(
                other.request.stage is Stage.WAITING for other in self._jobs.values()
            )
            in_flight = len(self._jobs) - 1
        return Situation(
            now_s=job.began_s,
            link=self.link_state,
            in_flight=in_flight,
            deadline_s=None if job.deadline_s is None else job.deadline_s - job.began_s,
            waiting=waiting,
            backlog_nbytes=self.backlog_nbytes,
        )

    def _begin(self, job: Job) -> bool:
        """Whether somebody still wants the answer; from now on it cannot be cancelled."""
        with self._lock:  # closing must not resolve the future in between
            wanted = job.request.stage is Stage.WAITING
            if wanted and not job.future.set_running_or_notify_cancel():
                self._move(job, Event.ABANDONED, CancelledError())
                return False
        return wanted and self._move(job, Event.STARTED) is Action.RUN_HEAD

    def _cross(self, job: Job) -> None:
        """Hand the activation over to the cloud, or straight to the local rest."""
        connection = self.connection
        assert connection is not None
        job.asked_s = time.monotonic()
        assert job.choice is not None
        job.useful_s = job.asked_s + job.choice.timeout_s
        if job.deadline_s is not None:
            job.useful_s = min(job.useful_s, job.deadline_s)
        job.late_s, job.learning = self._late_at(job)
        hedge_after_s = 0.0 if job.learning else job.choice.hedge_after_s
        if job.late_s <= job.asked_s:
            # The edge alone would be late: whoever can still make it, both begin at once.
            hedge_after_s, job.late_s = 0.0, job.useful_s
        if job.late_s <= job.asked_s:
            self._move(job, Event.FAILED, _late_error("the head has run too late for it"))
            return
        job.stream = stream = connection.stream
        if stream is None:
            self._move(job, Event.FAILED, connection.error)
            return
        try:
            self._transform(job)
        except MidstreamError as error:
            self._move(job, Event.FAILED, error)
            return
        if self._move(job, Event.CROSSED) is not Action.SEND:
            return
        self._alarms.at(job.late_s, functools.partial(_weakly(self._give_up), job.id))
        job.message_nbytes = self._ledger.open(stream)
        stream.send(self._guard(job))
        if connection.stream is not stream:
            # It may have broken before the request counted as sent, and nobody would know.
            self._move(job, Event.FAILED, connection.error)
            return
        if hedge_after_s is not None:
            hedge = functools.partial(_weakly(self._hedge), job.id)
            if hedge_after_s > 0:
                self._alarms.at(job.asked_s + hedge_after_s, hedge)
            else:
                hedge()

    def _transform(self, job: Job) -> None:
        """What travels of the activation, which itself is kept for the local rest."""
        assert job.state is not None
        began_s = time.monotonic()
        job.codec, job.travelling = transform_crossing(self.chain, job.k, job.codec, job.state)
        check_carried(job.travelling, max_nbytes=self._most_nbytes())
        job.encode_s = time.monotonic() - began_s

    def _late_at(self, job: Job) -> tuple[float, bool]:
        """When to stop waiting for the cloud, and whether the rest has to be measured."""
        if job.deadline_s is None or not self._complete:
            return job.useful_s, False
        rest_s = self._pace.rest_s(job.k)
        if rest_s is None:
            return max(job.useful_s, job.asked_s + 1e-3), True
        busy_s = job.head_s if len(self._jobs) > 1 else 0.0
        last_s = give_up_at(job.deadline_s, rest_s=rest_s, busy_s=busy_s)
        return min(job.useful_s, last_s), False

    def _run_rest(self, job: Job) -> None:
        job.rest_began_s = time.monotonic()
        state = job.state
        stop = None if job.learning else job.stop
        try:
            for segment in range(job.k, self._segment_count):
                if state is None or (job.request.stage is Stage.DONE and not job.learning):
                    return
                started_s = time.monotonic()
                state = self.chain.run(state, segment, segment + 1, stop=stop)
                self._pace = self._pace.observe(segment, time.monotonic() - started_s)
        except Stopped:  # the cloud was first
            return
        except Exception as error:  # as for the head
            self._move(job, Event.ABANDONED, error)
            return
        finished_s = time.monotonic()
        if self._move(job, Event.FINISHED) is Action.ANSWER:
            assert state is not None
            self._withdraw(job)
            transfer = self._ledger.unfinished(job, finished_s)
            self.director.learn(job.evidence(finished_s, transfer))
            timings = job.edge_timings(finished_s - job.rest_began_s, finished_s)
            self._deliver(
                job, state, AHEAD if job.request.error is None else FALLBACK, timings
            )

    # The sender's thread, the alarms' and the connection's.

    def _guard(self, job: Job) -> Iterator[ClientFrame]:
        """The request's frames; what goes wrong in encoding fails the request alone."""
        try:
            for frame in job.frames(self.chain.slowdown):
                self._ledger.hand(job, frame)
                yield frame
        except MidstreamError as error:
            yield Cancel(job.id)
            self._move(job, Event.FAILED, error)

    def _hedge(self, id: int) -> None:
        """Run the rest here as well; the first result wins."""
        job = self._sent(id)
        if job is None:
            return
        self._move(job, Event.HEDGED)

    def _sent(self, id: int) -> Job | None:
        """The request of that id, if it still waits for the cloud alone."""
        with self._lock:
            job = self._jobs.get(id)
        return job if job is not None and job.request.stage is Stage.SENT else None

    def _give_up(self, id: int) -> None:
        job = self._sent(id)
        if job is None:
            return
        assert self.connection is not None
        self.connection.doubt(job.asked_s)
        now_s = time.monotonic()
        # What a deadline makes the edge begin with, the cloud may still end before it.
        job.unwanted = now_s >= job.useful_s
        waited_s = now_s - job.asked_s
        self._move(job, Event.FAILED, _late_error(f"nothing came in {waited_s:.3g} s"))

    def _fail_all(self, stream: Stream, error: PeerError) -> None:
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.stream is stream]
        for job in sorted(jobs, key=lambda job: job.id):
            self._move(job, Event.FAILED, error)

    def _receive(self, stream: Stream, frame: Reply | More) -> None:
        with self._lock:
            job = self._jobs.get(frame.id)
        if job is None or job.stream is not stream:
            return  # answered already: on the edge, or cancelled
        try:
            self._read_reply(job, frame)
        except MidstreamError as error:
            job.incoming = None
            self._move(job, Event.FAILED, error)

    def _read_reply(self, job: Job, frame: Reply | More) -> None:
        if isinstance(frame, Reply):
            status = frame.status
            if status.code == Code.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(f"the server gave no answer: {status.message}")
            if not status.ok:
                raise CloudRefused(status.code, f"the server gave no answer: {status.message}")
            job.served = frame.timings
            specs = self._outputs_from(job.k)
            job.incoming = Incoming(frame.tensors, specs, max_nbytes=MAX_REQUEST_NBYTES)
        if job.incoming is None:
            return
        for piece in frame.pieces:
            job.incoming.feed(piece)
            job.reply_nbytes += len(piece.data)
        if job.incoming.done:
            self._take_reply(job, job.incoming.result())

    def _take_reply(self, job: Job, outputs: dict[str, Array]) -> None:
        answered_s = time.monotonic()
        connection, state = self.connection, job.state
        assert connection is not None
        exchange = job.exchange(answered_s)
        if exchange is not None and job.stream is not None:
            connection.observe(job.stream, exchange)
        if self._move(job, Event.REPLIED) is Action.ANSWER:
            job.stop.tell()
            if exchange is not None:
                best = connection.clock.best
                delay_s = 0.0 if best is None else best.delay_s
                transfer = self._ledger.close(job, exchange, delay_s)
                self.director.learn(job.evidence(answered_s, transfer))
            timings = job.cloud_timings(connection.clock, answered_s)
            self._deliver(job, {**(state or {}), **outputs}, CLOUD, timings)

    # Any thread.

    def _move(self, job: Job, event: Event, error: Exception | None = None) -> Action:
        """Advance a request, and do what needs no further knowledge."""
        with self._lock:
            job.request, action = job.request.advance(event, error)
            if event is Event.HEDGED and action is Action.RUN_REST:
                job.hedged = True
                self._counts["hedges"] += 1
            if action in (Action.ANSWER, Action.RAISE):
                self._jobs.pop(job.id, None)
                self._changed.notify_all()
        if action is Action.RUN_REST:
            self._worker.put(functools.partial(self._run_rest, job), rank=REST, order=job.id)
        elif action is Action.RAISE:
            self._raise(job)
        return action

    def _deliver(
        self, job: Job, state: Mapping[str, Array], where: Where, timings: Timings
    ) -> None:
        reason = str(job.request.error) if where == FALLBACK else None
        assert job.choice is not None
        answer = Answer(
            outputs={spec.name: state[spec.name] for spec in self._partition.outputs},
            timings=timings,
            where=where,
            reason=reason,
            k=job.k,
            cut=self._partition.cuts[job.k].id,
            codec=job.codec,
            payload_nbytes=job.payload_nbytes,
            reply_nbytes=job.reply_nbytes,
            hedged=job.hedged,
            busy_s=job.busy_s(job.began_s + timings.total_s),
            estimate=job.choice.estimate,
        )
        self._count(job, _COUNTS[where])
        job.state = None
        job.future.set_result(answer)

    def _raise(self, job: Job) -> None:
        self._withdraw(job)
        self._count(job, "failed")
        job.state = None
        error = job.request.error
        if isinstance(error, PeerError | DeadlineExceeded) and not self._complete:
            error = self._explain(error)
        with suppress(InvalidStateError):  # whoever waited has cancelled it
            job.future.set_exception(error)

    def _explain(self, error: MidstreamError) -> MidstreamError:
        text = (
            f"{error}; this edge holds {self.chain.last} of {self._segment_count} segments "
            "and cannot finish alone"
        )
        if isinstance(error, CloudRefused):
            return CloudRefused(error.code, text)
        return (
            DeadlineExceeded(text)
            if isinstance(error, DeadlineExceeded)
            else (CloudUnavailable(text))
        )

    def _withdraw(self, job: Job) -> None:
        """Tell the cloud that nobody waits for its answer any more."""
        if job.stream is not None and job.sent_s is not None:
            job.stream.send([Cancel(job.id)])

    def _count(self, job: Job, outcome: str) -> None:
        with self._lock:
            self._counts[outcome] += 1
            self._counts["uplink_nbytes"] += job.payload_nbytes
            self._counts["downlink_nbytes"] += job.reply_nbytes


def _weakly(method: Callable[_P, None]) -> Callable[_P, None]:
    """`method` for callers that may outlast its engine, and must not keep its chain alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*args, **kwargs)

    return call


def _late_error(what: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the cloud must answer while the edge can still finish in time, but {what}: "
        "allow more time, or plan another cut"
    )
