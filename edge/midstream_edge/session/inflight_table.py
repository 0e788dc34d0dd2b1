"""The requests under way: room for them, what happens to each, and its one outcome.

`lifecycle.Lifecycle` decides. The table calls it under its one lock, so only one thread
is told to answer a request, however events race.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, InvalidStateError
from typing import ParamSpec, final

from midstream_edge.faults import is_interrupt
from midstream_edge.link.connection import Connection
from midstream_edge.link.observations import Transfer
from midstream_edge.session.answers import AHEAD, CLOUD, EDGE, FALLBACK, Answer, Stats, Where
from midstream_edge.session.director import Director
from midstream_edge.session.inflight import Job
from midstream_edge.session.lifecycle import Action, Event, Stage
from midstream_edge.session.local_time import LocalPace, room_waits
from midstream_edge.session.outcomes import no_turn, outcome_of, unaided
from midstream_edge.session.threads import LONGEST_WAIT_S, REST, Crew
from midstream_edge.session.transmission import Transmission
from midstream_partitioner.costs.sizes import Binder, Sizes, middle_sizes
from midstream_partitioner.costs.timings import Timings
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import UsageError
from midstream_wire.frames import Cancel
from midstream_wire.tensors import Array

#: The names in `Stats` under which answers are counted.
_COUNTS: dict[Where, str] = {
    CLOUD: "cloud",
    EDGE: "edge",
    FALLBACK: "fallback",
    AHEAD: "ahead",
}

#: Requests whose sizes say which are usual.
_RECENT = 64

_P = ParamSpec("_P")


class Retired(Exception):
    """Another engine takes the requests of this session now."""


@final
class InFlightTable:
    """The requests of one engine, from admission to the answer that each of them gets.

    The edge holds the first `held` segments of `partition`. `lock` is held wherever a request
    advances, and from taking a transmission's id until that is queued on its stream.
    `director` chooses for requests and hears of their answers. `pace` and `heads_s`, the
    seconds of heads by their number of segments, hold what was measured.
    """

    def __init__(
        self,
        partition: Partition,
        held: int,
        *,
        director: Director,
        pace: LocalPace,
        max_in_flight: int,
        crew: Crew,
    ) -> None:
        self.lock = threading.RLock()
        self.director = director
        self.pace = pace
        self.heads_s: dict[int, float] = {}
        self.ids = crew.ids
        self._partition = partition
        self._binder = Binder(partition.inputs)
        self._held = held
        self._max_in_flight = max_in_flight
        self._jobs: dict[int, Job] = {}
        self._sent: dict[int, Job] = {}  # by the id of their latest transmission
        self._counts: Counter[str] = Counter()  # by the names in `Stats`
        self._recent: deque[Sizes] = deque(maxlen=_RECENT)
        self._changed = threading.Condition(self.lock)
        self._closed = False
        self._retired = False
        self._faults = crew.faults
        self._worker = crew.worker
        self._alarms = crew.alarms

    def __len__(self) -> int:
        """Number of requests under way."""
        return len(self._jobs)

    @property
    def complete(self) -> bool:
        """True if this edge can finish alone."""
        return self._held == len(self._partition.segments)

    @property
    def usual_sizes(self) -> Sizes:
        """Return the sizes of the middle one of the latest requests; () before the first."""
        with self.lock:
            recent = tuple(self._recent)
        return middle_sizes(recent)

    def stats(self, *, reconnects: int) -> Stats:
        """Counts up to now."""
        with self.lock:
            return Stats(**self._counts, reconnects=reconnects)

    def retire(self) -> None:
        """Admit no more requests: who asks, or waits for room, gets `Retired`."""
        with self.lock:
            self._retired = True
            self._changed.notify_all()

    def wait_idle(self) -> None:
        """Wait until nothing is under way any more."""
        with self.lock:
            self._changed.wait_for(lambda: not self._jobs)

    def close(self) -> None:
        """Admit no more requests, and cancel those under way."""
        with self.lock:
            self._closed = True
            jobs = sorted(self._jobs.values(), key=lambda job: job.id)
            self._changed.notify_all()
        for job in jobs:
            self.move(job, Event.ABANDONED, CancelledError("the session was closed"))

    # Room.

    def wait_for_room(
        self, asked_s: float, deadline_s: float | None, connection: Connection | None
    ) -> Event | None:
        """Wait until one more request may be under way; the caller holds the lock.

        Returns None with room, else what befalls a request that waits no longer: FAILED (it
        goes on alone) or ABANDONED. Requests that go on alone may be as many again, no more.
        `connection` is None for an edge on its own. Raises `Retired`, and `UsageError` once
        closed.
        """
        if self._has_room(connection):
            return None
        now_s = asked_s
        alone_s, late_s = self._room_waits(asked_s, deadline_s)
        if connection is None:  # nothing but the edge itself takes up the room
            alone_s = math.inf
        while now_s < late_s:
            most = self._most(connection) + self._max_in_flight
            if now_s >= alone_s and len(self._jobs) < most:
                return Event.FAILED
            until_s = min(alone_s, late_s) if now_s < alone_s else late_s
            self._changed.wait(min(until_s - now_s, LONGEST_WAIT_S))
            if self._has_room(connection):
                return None
            now_s = time.monotonic()
        return Event.ABANDONED

    def _has_room(self, connection: Connection | None) -> bool:
        if self._closed:
            raise UsageError("a request needs an open session, but this one is closed")
        if self._retired:
            raise Retired
        return len(self._jobs) < self._most(connection)

    def _most(self, connection: Connection | None) -> int:
        welcome = None if connection is None else connection.welcome
        allowed = welcome.max_in_flight if welcome else 0
        return min(self._max_in_flight, allowed) if allowed else self._max_in_flight

    def _room_waits(self, asked_s: float, deadline_s: float | None) -> tuple[float, float]:
        whole_s = self.pace.rest_s(0)
        if whole_s is None:
            k = self.director.plan[0]
            head_s, rest_s = self.heads_s.get(k), self.pace.rest_s(k)
            whole_s = None if head_s is None or rest_s is None else head_s + rest_s
        return room_waits(
            asked_s,
            timeout_s=self.director.timeout_s,
            deadline_at_s=deadline_s,
            whole_s=None if whole_s is None else whole_s + self._rests_s(asked_s),
            complete=self.complete,
        )

    def _rests_s(self, now_s: float) -> float:
        """For how long the edge has local rests to run, as far as it knows."""
        return sum(self.rest_s(job, now_s) or 0.0 for job in self.at(Stage.LOCAL))

    def rest_s(self, job: Job, now_s: float) -> float | None:
        """Seconds that are left of a request's local rest; None where that is unknown."""
        rest_s = self.pace.rest_s(job.k, job.sizes)
        return None if rest_s is None else job.rest_left_s(rest_s, now_s)

    def admit(
        self,
        inputs: Mapping[str, Array],
        *,
        deadline_s: float | None,
        rest: Callable[[Job], None],
    ) -> Job:
        """Take up a request; `rest` runs its local rest, should it come to that."""
        with self.lock:
            job = Job(
                next(self.ids),
                dict(inputs),
                sizes=self._binder.bind(inputs),
                complete=self.complete,
                deadline_s=deadline_s,
                rest=rest,
            )
            self._jobs[job.id] = job
            self._counts["requests"] += 1
            self._recent.append(job.sizes)
            return job

    # Which requests there are.

    def at(self, stage: Stage) -> list[Job]:
        """The requests that stand there, in the order in which they came."""
        with self.lock:
            jobs = [job for job in self._jobs.values() if job.stage is stage]
        return sorted(jobs, key=lambda job: job.id)

    def find(self, id: int, stage: Stage) -> Job | None:
        """The request of that id, if it stands there."""
        with self.lock:
            job = self._jobs.get(id)
        return job if job is not None and job.stage is stage else None

    def find_sent(self, sending_id: int) -> tuple[Job, Transmission] | None:
        """The request whose latest transmission has that id, and the transmission."""
        with self.lock:
            job = self._sent.get(sending_id)
            sending = None if job is None else job.sending
        return None if job is None or sending is None else (job, sending)

    # What happens to them; any thread.

    def begin(self, job: Job) -> bool:
        """Start a request's head, after which it cannot be cancelled; False if it was."""
        with self.lock:  # closing must not resolve the future in between
            wanted = job.stage is Stage.WAITING
            if wanted and not job.future.set_running_or_notify_cancel():
                self.move(job, Event.ABANDONED, CancelledError())
                return False
        return wanted and self.move(job, Event.STARTED) is Action.RUN_HEAD

    def note_sending(self, job: Job, sending: Transmission) -> None:
        """Put `sending` in the place of the request's last one. The caller holds the lock."""
        before = job.sending
        if before is not None:
            self._sent.pop(before.id, None)
            before.unwanted = True
            self._counts["uplink_nbytes"] += before.payload_nbytes
        job.sending = sending
        self._sent[sending.id] = job

    def set_alarm(self, job: Job, when_s: float, ring: Callable[[int], None]) -> None:
        """Call the method `ring` with the request's id, unless it has its answer before."""
        call = functools.partial(weakly(ring), job.id)
        with self.lock:
            if job.stage is not Stage.DONE:
                job.alarms.append(self._alarms.at(when_s, call))

    def expire_at(self, job: Job, deadline_s: float) -> None:
        """Give a request up at its deadline if its head has not begun by then."""
        self.set_alarm(job, deadline_s, self._expire)

    def _expire(self, id: int) -> None:
        job = self.find(id, Stage.WAITING)
        if job is not None:
            self.move(job, Event.ABANDONED, no_turn())

    def move(self, job: Job, event: Event, error: Exception | None = None) -> Action:
        """Advance a request, and do what needs no further knowledge."""
        with self.lock:
            action = job.advance(event, error)
            if event is Event.HEDGED and action is Action.RUN_REST:
                self._counts["hedges"] += 1
            if action in (Action.ANSWER, Action.RAISE):
                self._leave(job)
        if action is Action.RUN_REST:
            self._worker.put(functools.partial(job.rest, job), rank=REST, order=job.id)
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

    # Outcomes.

    def answer(
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
            self.director.learn(job.tell(ended_s, transfer))
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
            reason=str(job.error) if where == FALLBACK else None,
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
        self.withdraw(job)
        error = job.error
        assert error is not None
        if not self.complete:
            count = len(self._partition.segments)
            error = unaided(error, held=self._held, segment_count=count)
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

    def withdraw(self, job: Job) -> None:
        """Tell the cloud that nobody waits for its answer any more."""
        sending = job.sending
        if sending is not None and sending.sent_s is not None:
            sending.stream.send([Cancel(sending.id)])

    def _count(self, job: Job, outcome: str) -> None:
        with self.lock:
            self._counts[outcome] += 1
            self._counts["uplink_nbytes"] += job.payload_nbytes
            self._counts["downlink_nbytes"] += job.reply_nbytes


def weakly(method: Callable[_P, None]) -> Callable[_P, None]:
    """Return `method` for callers that may outlast its engine: it keeps no chain alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*args, **kwargs)

    return call
