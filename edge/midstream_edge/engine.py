"""What moves requests along: the compute thread, and what the link's threads call.

Decisions are `requests.Request.advance`'s, made under one lock; this carries them out.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import ParamSpec, final

from midstream_edge.answers import AHEAD, CLOUD, EDGE, FALLBACK, Answer, Stats, Where
from midstream_edge.channel import Dial, Stream
from midstream_edge.connection import Connection
from midstream_edge.faults import is_interrupt
from midstream_edge.job import Job
from midstream_edge.ledger import Ledger
from midstream_edge.outcomes import late, no_room, no_turn, outcome_of, unaided
from midstream_edge.pace import LocalPace, give_up_at, room_waits, smooth
from midstream_edge.pilot import Choice, Director
from midstream_edge.policies.values import LinkState, Situation, Transfer
from midstream_edge.requests import Action, Event, Request, Stage
from midstream_edge.transmission import Transmission
from midstream_edge.worker import HEAD, LONGEST_WAIT_S, REST, Crew
from midstream_partitioner.chain import Chain
from midstream_partitioner.crossing import transform_crossing
from midstream_partitioner.runtime import Stopped
from midstream_partitioner.timings import Timings
from midstream_wire.codecs import split_codec
from midstream_wire.errors import MidstreamError, PeerError, UsageError
from midstream_wire.frames import Cancel, ClientFrame, Hello, More, Reply
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array
from midstream_wire.transfers import check_carried

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
        self._sent: dict[int, Job] = {}  # by the id of their latest transmission
        self._heads_s: dict[int, float] = {}  # as measured, by k
        self._cloud_s: dict[tuple[int, str], float] = {}  # from sending to the reply, by plan
        self._counts: Counter[str] = Counter()  # by the names in `Stats`
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._retired = False
        self._faults = crew.faults
        self._worker = crew.worker
        self._alarms = crew.alarms

    def connect(self, dial: Dial, hello: Hello, *, beside: Stream | None = None) -> Connection:
        """Begin to use a server, over the channel of `beside` while that stands."""
        self.connection = Connection(
            dial,
            hello,
            on_frame=_weakly(self._receive),
            on_down=_weakly(self._fail_all),
            on_up=_weakly(self._send_again),
            beside=beside,
        )
        return self.connection

    def submit(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None
    ) -> Future[Answer]:
        """Begin a request once there is room; `deadline_s` is a moment."""
        return self._enter(inputs, deadline_s, here=False).future

    def infer(self, inputs: Mapping[str, Array], *, deadline_s: float | None) -> Answer:
        """A request and its answer; its head runs on this thread where nothing else does."""
        return self._enter(inputs, deadline_s, here=True).future.result()

    @property
    def whole(self) -> int | None:
        """How many segments edge-only runs; None where this edge does not hold them all."""
        return self._segment_count if self._complete else None

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

    # A caller's thread.

    def _enter(
        self, inputs: Mapping[str, Array], deadline_s: float | None, *, here: bool
    ) -> Job:
        """Admit a request, and begin or queue its head; `here`: this thread may run it."""
        asked_s = time.monotonic()
        with self._lock:  # so that heads run in the order of their requests
            late = self._wait_for_room(asked_s, deadline_s)
            job = self._admit(inputs, deadline_s)
            mine = late is None and here and self._worker.take_turn()
            direct = late is None and not mine and self._is_headless()
            if late is None and not mine and not direct:
                self._queue_head(job)
        if late is not None:
            job.choice = Choice(0, "raw", 0.0)
            job.began_s = time.monotonic()
            job.future.set_running_or_notify_cancel()
            self._move(job, late, no_room(job.began_s - asked_s))
        elif direct:
            self._guarded(self._run_headless, job)
        elif mine:
            try:
                self._guarded(self._run_head, job)
            finally:
                self._worker.end_turn()
        return job

    def _wait_for_room(self, asked_s: float, deadline_s: float | None) -> Event | None:
        """Wait until one more may be under way; else what a request is that waits no longer.

        The caller holds the lock. Requests that go on alone may be as many again, no more.
        """
        if self._has_room():
            return None
        now_s = asked_s
        alone_s, late_s = self._room_waits(asked_s, deadline_s)
        while now_s < late_s:
            most = self._most_in_flight() + self._max_in_flight
            if now_s >= alone_s and len(self._jobs) < most:
                return Event.FAILED
            until_s = min(alone_s, late_s) if now_s < alone_s else late_s
            self._changed.wait(min(until_s - now_s, LONGEST_WAIT_S))
            if self._has_room():
                return None
            now_s = time.monotonic()
        return Event.ABANDONED

    def _has_room(self) -> bool:
        if self._closed:
            raise UsageError("a request needs an open session, but this one is closed")
        if self._retired:
            raise Retired
        return len(self._jobs) < self._most_in_flight()

    def _room_waits(self, asked_s: float, deadline_s: float | None) -> tuple[float, float]:
        whole_s = self._pace.rest_s(0)
        if whole_s is None:
            k = self.director.plan[0]
            head_s, rest_s = self._heads_s.get(k), self._pace.rest_s(k)
            whole_s = None if head_s is None or rest_s is None else head_s + rest_s
        alone_s, late_s = room_waits(
            asked_s,
            timeout_s=self.director.timeout_s,
            deadline_at_s=deadline_s,
            whole_s=None if whole_s is None else whole_s + self._rests_s(asked_s),
            complete=self._complete,
        )
        # Without a cloud nothing but the edge itself takes up the room.
        return (math.inf if self.connection is None else alone_s), late_s

    def _rests_s(self, now_s: float) -> float:
        """For how long the edge has local rests to run, as far as it knows."""
        return sum(self._rest_s(job, now_s) or 0.0 for job in self._at(Stage.LOCAL))

    def _rest_s(self, job: Job, now_s: float) -> float | None:
        rest_s = self._pace.rest_s(job.k)
        ran_s = 0.0 if job.rest_began_s is None else now_s - job.rest_began_s
        return None if rest_s is None else max(0.0, rest_s - ran_s)

    def _at(self, stage: Stage) -> list[Job]:
        """The requests that stand there, in the order in which they came."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.request.stage is stage]
        return sorted(jobs, key=lambda job: job.id)

    def _admit(self, inputs: Mapping[str, Array], deadline_s: float | None) -> Job:
        job = Job(
            Request(next(self._ids), self._complete), dict(inputs), deadline_s=deadline_s
        )
        self._jobs[job.id] = job
        self._counts["requests"] += 1
        return job

    def _is_headless(self) -> bool:
        """Whether the plan in force has nothing to compute before sending."""
        return self.connection is not None and _needs_no_turn(*self.director.plan)

    def _queue_head(self, job: Job) -> None:
        head = functools.partial(self._guarded, self._run_head, job)
        self._worker.put(head, rank=HEAD, order=job.id)
        if job.deadline_s is not None:
            self._set_alarm(job, job.deadline_s, self._expire)

    def _run_headless(self, job: Job) -> None:
        """Let a request cross that needs no turn, if its director thinks so too."""
        self._choose(job)
        assert job.choice is not None
        if _needs_no_turn(job.choice.k, job.choice.codec):
            self._run_head(job)
        else:  # the plan has just changed
            self._queue_head(job)

    # The compute thread, or a caller's in its turn.

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
            self._move(job, Event.ABANDONED if interrupt else event, outcome_of(error))
            if interrupt:
                raise

    def _choose(self, job: Job) -> None:
        job.began_s = time.monotonic()
        job.choice = self.director.choose(self._situation(job))

    def _run_head(self, job: Job) -> None:
        if not self._begin(job):
            return
        if job.choice is None:
            self._choose(job)
        choice, state = job.choice, job.state
        assert choice is not None
        assert state is not None
        job.began_s = time.monotonic()
        job.codec = choice.codec
        job.k = self._segment_count if self.connection is None else choice.k
        job.state = state = self.chain.run(state, 0, job.k)
        job.head_s = time.monotonic() - job.began_s
        if job.k < self._segment_count:
            self._heads_s[job.k] = smooth(self._heads_s.get(job.k), job.head_s)
            self._guarded(self._cross, job, Event.FAILED)
        elif self._move(job, Event.FINISHED) is Action.ANSWER:
            ended_s = job.began_s + job.head_s
            self._answer(job, state, EDGE, ended_s, lambda: (None, Timings(head_s=job.head_s)))

    def _situation(self, job: Job) -> Situation:
        """What a director is told before a request's head."""
        with self._lock:
            waiting = sum(
                other.request.stage is Stage.WAITING and other is not job
                for other in self._jobs.values()
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
            self._move(job, Event.FAILED, late("the head has run too late for it"))
            return
        stream = connection.stream
        if stream is None:
            self._move(job, Event.FAILED, connection.error)
            if connection.stream is not None:  # it has come back this very moment
                self._send_again()
            return
        self._transform(job)
        if not self._send(job, stream, Event.CROSSED):
            return
        self._set_alarm(job, job.late_s, self._give_up)
        if connection.stream is not stream:
            # It may have broken before the request counted as sent, and nobody would know.
            self._move(job, Event.FAILED, connection.error)
        elif hedge_after_s == 0:
            self._hedge(job.id)
        elif hedge_after_s is not None:
            self._set_alarm(job, job.asked_s + hedge_after_s, self._hedge)

    def _transform(self, job: Job) -> None:
        """What travels of the activation, which itself is kept for the local rest."""
        assert job.state is not None
        began_s = time.monotonic()
        codec, travelling = transform_crossing(self.chain, job.k, job.codec, job.state)
        check_carried(travelling, max_nbytes=self._most_nbytes())
        job.codec, job.travelling = codec, travelling
        job.transform_s = time.monotonic() - began_s

    def _send(self, job: Job, stream: Stream, event: Event) -> bool:
        """Queue what travels on `stream`, if the request can still make use of it."""
        # Under the lock, so that ids ascend on the stream, whoever sends.
        with self._lock:
            travelling, before = job.travelling, job.sending
            if travelling is None or self._move(job, event) is not Action.SEND:
                return False
            if before is not None:
                self._sent.pop(before.id, None)
                before.unwanted = True
                self._counts["uplink_nbytes"] += before.payload_nbytes
            job.sending = sending = Transmission(
                next(self._ids),
                stream,
                travelling,
                k=job.k,
                codec=job.codec,
                useful_s=job.useful_s,
                message_nbytes=self._ledger.open(stream),
            )
            self._sent[sending.id] = job
            stream.send(self._frames(job, sending))
            return True

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
        job.rest_began_s = began_s = time.monotonic()
        state = job.state
        stop = None if job.learning else job.stop
        for segment in range(job.k, self._segment_count):
            if state is None or (job.request.stage is Stage.DONE and not job.learning):
                return
            started_s = time.monotonic()
            state = self.chain.run(state, segment, segment + 1, stop=stop)
            self._pace = self._pace.observe(segment, time.monotonic() - started_s)
        finished_s = time.monotonic()
        if state is None or self._move(job, Event.FINISHED) is not Action.ANSWER:
            return

        def told() -> tuple[Transfer | None, Timings]:
            self._withdraw(job)
            sending = job.sending
            transfer = sending and self._ledger.unfinished(sending, finished_s)
            return transfer, job.edge_timings(finished_s - began_s, finished_s)

        where: Where = AHEAD if job.request.error is None else FALLBACK
        self._answer(job, state, where, finished_s, told)

    # The sender's thread, the alarms' and the connection's.

    def _frames(self, job: Job, sending: Transmission) -> Iterator[ClientFrame]:
        """The request's frames; what goes wrong in encoding fails the request alone."""
        try:
            for frame in sending.frames(self.chain.slowdown):
                self._ledger.hand(sending, frame)
                yield frame
        except GeneratorExit:  # the stream has ended, and tells of it itself
            raise
        except BaseException as error:
            yield Cancel(sending.id)
            if job.sending is sending:
                self._move(job, Event.FAILED, outcome_of(error))

    def _set_alarm(self, job: Job, when_s: float, ring: Callable[[int], None]) -> None:
        """Call `ring` with the request's id, unless it has its answer before."""
        call = functools.partial(_weakly(ring), job.id)
        with self._lock:
            if job.request.stage is not Stage.DONE:
                job.alarms.append(self._alarms.at(when_s, call))

    def _expire(self, id: int) -> None:
        """A request's deadline is here; if its head has not begun, there is no use in it."""
        job = self._find(id, Stage.WAITING)
        if job is not None and job.deadline_s is not None:
            self._move(job, Event.ABANDONED, no_turn())

    def _hedge(self, id: int) -> None:
        """Run the rest here as well; the first result wins."""
        job = self._find(id, Stage.SENT)
        if job is not None:
            self._move(job, Event.HEDGED)

    def _find(self, id: int, stage: Stage) -> Job | None:
        with self._lock:
            job = self._jobs.get(id)
        return job if job is not None and job.request.stage is stage else None

    def _give_up(self, id: int) -> None:
        """The cloud has not answered in time."""
        job = self._find(id, Stage.SENT)
        if job is None or job.sending is None:
            return
        assert self.connection is not None
        self.connection.doubt(job.asked_s)
        now_s = time.monotonic()
        # What a deadline makes the edge begin with, the cloud may still end before it.
        job.sending.unwanted = now_s >= job.useful_s
        waited_s = now_s - job.asked_s
        self._move(job, Event.FAILED, late(f"nothing came in {waited_s:.3g} s"))

    def _fail_all(self, stream: Stream, error: PeerError) -> None:
        for job in self._at(Stage.SENT):
            if job.sending is not None and job.sending.stream is stream:
                self._move(job, Event.FAILED, error)

    def _send_again(self) -> None:
        """The link is back: what failed on it goes out again where that is sooner."""
        connection = self.connection
        stream = None if connection is None else connection.stream
        if stream is None:
            return
        now_s, local_s, sent = time.monotonic(), 0.0, 0
        for job in self._at(Stage.LOCAL):
            before_s, rest_s = local_s, self._rest_s(job, now_s)
            local_s += math.inf if rest_s is None else rest_s
            cloud_s = (sent + 1) * self._cloud_s.get((job.k, job.codec), 0.0)
            try:
                ready = cloud_s < local_s and self._prepare_again(job, stream, now_s)
            except MidstreamError:  # more than the server carries: it goes on here
                ready = False
            if ready and self._send(job, stream, Event.RESENT):
                sent += 1
                local_s = before_s

    def _prepare_again(self, job: Job, stream: Stream, now_s: float) -> bool:
        """Whether a request may go out on `stream`, where it was not before."""
        sending, state = job.sending, job.state
        if state is None or job.choice is None or (sending and sending.stream is stream):
            return False
        if job.travelling is None:
            if not _needs_no_turn(0, job.codec):  # a transform would take the processor
                return False
            self._transform(job)
        job.asked_s = now_s
        job.useful_s = now_s + job.choice.timeout_s
        if job.deadline_s is not None:
            job.useful_s = min(job.useful_s, job.deadline_s)
        return now_s < job.useful_s

    def _receive(self, stream: Stream, frame: Reply | More) -> None:
        with self._lock:
            job = self._sent.get(frame.id)
            sending = None if job is None else job.sending
        if job is None or sending is None or sending.stream is not stream:
            return  # answered already: on the edge, or cancelled
        try:
            outputs = sending.read(frame, self._outputs_from(sending.k))
            if outputs is not None:
                self._take_reply(job, sending, outputs)
        except BaseException as error:
            sending.give_up()
            self._move(job, Event.FAILED, outcome_of(error))

    def _take_reply(self, job: Job, sending: Transmission, outputs: dict[str, Array]) -> None:
        answered_s = time.monotonic()
        connection, state = self.connection, job.state
        assert connection is not None
        exchange = sending.exchange(answered_s)
        if exchange is not None:
            connection.observe(sending.stream, exchange)
        if self._move(job, Event.REPLIED) is not Action.ANSWER:
            return
        job.stop.tell()

        def told() -> tuple[Transfer | None, Timings]:
            plan, took_s = (job.k, job.codec), answered_s - sending.asked_s
            self._cloud_s[plan] = smooth(self._cloud_s.get(plan), took_s)
            transfer = exchange and self._ledger.close(sending, exchange, connection.clock)
            return transfer, job.cloud_timings(connection.clock, answered_s)

        self._answer(job, {**(state or {}), **outputs}, CLOUD, answered_s, told)

    # Any thread.

    def _move(self, job: Job, event: Event, error: Exception | None = None) -> Action:
        """Advance a request, and do what needs no further knowledge."""
        with self._lock:
            job.request, action = job.request.advance(event, error)
            if event is Event.HEDGED and action is Action.RUN_REST:
                job.hedged = True
                self._counts["hedges"] += 1
            if action in (Action.ANSWER, Action.RAISE):
                self._leave(job)
        if action is Action.RUN_REST:
            rest = functools.partial(self._guarded, self._run_rest, job)
            self._worker.put(rest, rank=REST, order=job.id)
        elif action is Action.RAISE:
            self._raise(job)
        return action

    def _leave(self, job: Job) -> None:
        """A request is over: make room. The caller holds the lock."""
        self._jobs.pop(job.id, None)
        if job.sending is not None:
            self._sent.pop(job.sending.id, None)
        for alarm in job.alarms:
            self._alarms.drop(alarm)
        self._changed.notify_all()

    def _answer(
        self,
        job: Job,
        state: Mapping[str, Array],
        where: Where,
        ended_s: float,
        told: Callable[[], tuple[Transfer | None, Timings]],
    ) -> None:
        """Resolve a request that this thread alone was told to; nothing may keep it from it.

        `told` is asked what its transfer says of the link, and where its time went.
        """
        try:
            transfer, timings = told()
            self.director.learn(job.evidence(ended_s, transfer))
            answer = self._make_answer(job, state, where, timings)
        except BaseException as error:
            outcome = outcome_of(error)
            self._settle(job, "failed", lambda: job.future.set_exception(outcome))
            if is_interrupt(error):
                raise
        else:
            self._settle(job, _COUNTS[where], lambda: job.future.set_result(answer))

    def _make_answer(
        self, job: Job, state: Mapping[str, Array], where: Where, timings: Timings
    ) -> Answer:
        assert job.choice is not None
        return Answer(
            outputs={spec.name: state[spec.name] for spec in self._partition.outputs},
            timings=timings,
            where=where,
            reason=str(job.request.error) if where == FALLBACK else None,
            k=job.k,
            cut=self._partition.cuts[job.k].id,
            codec=job.codec,
            payload_nbytes=job.payload_nbytes,
            reply_nbytes=job.reply_nbytes,
            hedged=job.hedged,
            busy_s=job.busy_s(job.began_s + timings.total_s),
            estimate=job.choice.estimate,
            expected_s=job.choice.expected_s,
        )

    def _raise(self, job: Job) -> None:
        self._withdraw(job)
        error = job.request.error
        assert error is not None
        if not self._complete:
            error = unaided(error, held=self.chain.last, segment_count=self._segment_count)
        self._settle(job, "failed", lambda: job.future.set_exception(error))

    def _settle(self, job: Job, outcome: str, resolve: Callable[[], None]) -> None:
        """Give a request its outcome; whatever its callbacks raise is their own affair."""
        self._count(job, outcome)
        job.forget()
        try:
            resolve()
        except InvalidStateError:  # whoever waited has cancelled it
            pass
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._faults.note("a callback of an answer", error)

    def _withdraw(self, job: Job) -> None:
        """Tell the cloud that nobody waits for its answer any more."""
        sending = job.sending
        if sending is not None and sending.sent_s is not None:
            sending.stream.send([Cancel(sending.id)])

    def _count(self, job: Job, outcome: str) -> None:
        with self._lock:
            self._counts[outcome] += 1
            self._counts["uplink_nbytes"] += job.payload_nbytes
            self._counts["downlink_nbytes"] += job.reply_nbytes


def _needs_no_turn(k: int, codec: str) -> bool:
    """Whether a plan computes nothing before it sends: no head, no transform."""
    return k == 0 and not split_codec(codec)[0]


def _weakly(method: Callable[_P, None]) -> Callable[_P, None]:
    """`method` for callers that may outlast its engine, and must not keep its chain alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*args, **kwargs)

    return call
