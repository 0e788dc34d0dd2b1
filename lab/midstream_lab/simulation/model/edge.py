"""One edge in virtual time: its processor, its link, its policy, and its requests.

It drives the same core as a session (`midstream_edge.session.lifecycle`): what a request does
next, and until when an answer is of use, is decided there. Here is what the threads of a
session do: heads in the order of their requests, rests before heads, and what the policy is
told.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, final

from midstream_edge.link.failure_detector import SUSPECT_S as GIVE_UP_S
from midstream_edge.link.observations import Transfer
from midstream_edge.policies.believing import belief_of
from midstream_edge.policies.interface import Evidence, Policy, Situation
from midstream_edge.session.breaker import CLOSED
from midstream_edge.session.lifecycle import Action, Event, Stage, needs_no_turn
from midstream_edge.session.local_time import TIMEOUT_S, Again, smooth
from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.chooser import Chooser
from midstream_lab.simulation.model.device_speed import slowed
from midstream_lab.simulation.model.duplex_link import Way
from midstream_lab.simulation.model.evidence import evidence_of, unfinished
from midstream_lab.simulation.model.link_monitor import LinkMonitor
from midstream_lab.simulation.model.machine import AS_PROFILED, FixedPlacement, Machine
from midstream_lab.simulation.model.overdue import Overdue
from midstream_lab.simulation.model.prober import Prober
from midstream_lab.simulation.model.request import (
    BY_AHEAD,
    BY_CLOUD,
    BY_EDGE,
    BY_FALLBACK,
    FAILED,
    Job,
)
from midstream_partitioner.planning.placements import Placement
from midstream_wire.codecs import split_codec
from midstream_wire.errors import PeerError
from midstream_wire.limits import MAX_IN_FLIGHT

#: What ends the wait for the cloud; no words are needed here.
_FAILURES = {Event.FAILED: PeerError("the cloud"), Event.ABANDONED: PeerError("the edge")}


class Cloud(Protocol):
    """The cloud as an edge sees it; `Edge.reply` or `Edge.refuse` comes back."""

    def arrive(self, job: Job) -> object:
        """All of `job` has come in."""

    def cancel(self, job: Job) -> object:
        """Nobody waits for `job` any more."""


@final
class Edge:
    """Takes requests by `submit`; `finished(job, how)` is told of each one's end, once."""

    __slots__ = (
        "_breaker",
        "_busy",
        "_cloud",
        "_cloud_s",
        "_core",
        "_draws",
        "_encoder_s",
        "_finished",
        "_heads",
        "_local",
        "_monitor",
        "_outside",
        "_overdue",
        "_placements",
        "_rests",
        "_sent",
        "chooser",
        "deadline_s",
        "hedges",
        "index",
        "machine",
        "prober",
        "under_way",
        "way",
    )

    def __init__(
        self,
        core: Core,
        cloud: Cloud,
        way: Way,
        placements: Sequence[Placement],
        *,
        policy: Policy | FixedPlacement,
        draws: Draws,
        finished: Callable[[Job, int], object],
        machine: Machine = AS_PROFILED,
        deadline_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
        index: int = 0,
    ) -> None:
        self._core = core
        self._cloud = cloud
        self.way = way
        self._placements = tuple(
            slowed(placement, edge=machine.slowdown) for placement in placements
        )
        self.chooser = Chooser(policy, timeout_s)
        self._draws = draws
        self._finished = finished
        self.machine = machine
        self.deadline_s = deadline_s
        self.index = index
        self._outside: deque[Job] = deque()  # a session takes no more at a time
        self._heads: deque[Job] = deque()
        self._rests: deque[Job] = deque()
        self._busy: Job | None = None  # whose head or rest runs
        self._sent: dict[int, Job] = {}
        self._local: dict[int, Job] = {}  # whose rest runs or waits here
        self._cloud_s: dict[int, float] = {}  # from asking it to the reply, by placement
        self._overdue = Overdue(core, self._sent, self._ring)
        self._breaker = CLOSED
        self._encoder_s = 0.0  # when the sender has encoded what it has
        self.under_way = 0
        self.hedges = 0
        self._monitor = LinkMonitor(core, self)
        self.prober = Prober(core, self, draws) if belief_of(policy) else None

    def submit(self, number: int, due_s: float, deadline_s: float | None = None) -> Job:
        """A request that is due now, or was when the edge had no room for it.

        `deadline_s` counts from then; without it, every request has the edge's own.
        """
        if deadline_s is None:
            deadline_s = self.deadline_s
        job = Job(
            self, number, due_s, deadline_s=None if deadline_s is None else due_s + deadline_s
        )
        if self.under_way < MAX_IN_FLIGHT:
            self.under_way += 1
            self._admit(job)
        else:
            self._outside.append(job)
        return job

    def _admit(self, job: Job) -> None:
        if self._busy is None and not self._rests and not self._heads:
            self._begin(job)
        elif self._needs_no_turn(self.chooser.plan):
            self._choose(job)
            if self._needs_no_turn(job.placement):
                job.advance(Event.STARTED)
                self._cross(job, self._placements[job.placement])
            else:  # the plan has just changed
                self._queue(job)
        else:
            self._queue(job)

    def _queue(self, job: Job) -> None:
        """Have the processor run its head, in its turn, if that comes before its deadline."""
        self._heads.append(job)
        if job.deadline_s is not None:
            self._core.at(max(self._core.now_s, job.deadline_s), self._expire, job)

    def _expire(self, job: Job) -> None:
        if job.stage is Stage.WAITING:
            self._heads.remove(job)
            job.placement = self.chooser.plan if job.placement < 0 else job.placement
            self._move(job, Event.ABANDONED)

    def _needs_no_turn(self, index: int) -> bool:
        placement = self._placements[index]
        return placement.remote and needs_no_turn(placement.k, placement.codec)

    def learn(self, evidence: Evidence) -> None:
        """Tell the policy, if there is one."""
        self.chooser.learn(evidence)

    def lose(self) -> None:
        """The connection has broken: what the cloud has not answered goes on here."""
        for job in tuple(self._sent.values()):
            self._move(job, Event.FAILED)

    # The processor.

    def _begin(self, job: Job) -> None:
        if job.placement < 0:
            self._choose(job)
        now_s = self._core.now_s
        job.began_s = now_s
        job.advance(Event.STARTED)
        self._busy = job
        self._core.at(now_s + job.head_s, self._end_head, job)

    def _choose(self, job: Job) -> None:
        now_s = self._core.now_s
        job.began_s = now_s
        self.chooser.choose(job, now_s, lambda current: self._situation(job, current))
        placement = self._placements[job.placement]
        job.complete = placement.rest_s is not None
        job.head_s = placement.head_s * self._draws.factor(self.machine.sigma)

    def _situation(self, job: Job, current: int | None) -> Situation:
        now_s = self._core.now_s
        return Situation(
            now_s,
            self._monitor.state(),
            current,
            self.under_way - 1,
            None if job.deadline_s is None else job.deadline_s - now_s,
            len(self._heads),
            self.way.up.backlog_nbytes(now_s),
        )

    def _end_head(self, job: Job) -> None:
        self._busy = None
        placement = self._placements[job.placement]
        if placement.remote:
            self._cross(job, placement)
        elif job.advance(Event.FINISHED) is Action.ANSWER:
            self._end(job, BY_EDGE)
            self.learn(evidence_of(job, self._core.now_s, None))
        self._next()

    def _end_rest(self, job: Job) -> None:
        if self._busy is not job or job.advance(Event.FINISHED) is not Action.ANSWER:
            return  # the cloud was first, and the processor has gone on
        now_s = self._core.now_s
        self._busy = None
        job.note_rest(now_s)
        if not job.trial:  # what the cloud says to it is to be heard
            self._withdraw(job)
        self._end(job, BY_AHEAD if job.error is None else BY_FALLBACK)
        self.learn(evidence_of(job, now_s, self._unfinished(job)))
        self._next()

    def _next(self) -> None:
        """Give the free processor its next task: rests before heads."""
        while self._rests and self._busy is None:
            job = self._rests.popleft()
            if job.stage is not Stage.DONE:
                self._run_rest(job)
        if self._heads and self._busy is None:
            self._begin(self._heads.popleft())

    def _run_rest(self, job: Job) -> None:
        rest_s = self._placements[job.placement].rest_s
        assert rest_s is not None
        now_s = self._core.now_s
        self._busy = job
        job.rest_began_s = now_s
        ends_s = now_s + rest_s * self._draws.factor(self.machine.sigma)
        self._core.at(ends_s, self._end_rest, job)

    # The cloud's side.

    def _cross(self, job: Job, placement: Placement) -> None:
        now_s = self._core.now_s
        trial = self._breaker.is_open and job.complete
        contended = self.under_way > 1
        useful = job.cross(now_s, rest_s=placement.rest_s, contended=contended, trial=trial)
        waits = job.complete and not self._breaker.allows(now_s)
        if not useful or waits or self._monitor.state() != "connected":
            self._move(job, Event.FAILED)
            return
        job.advance(Event.CROSSED)
        if self._breaker.is_open:
            self._breaker = self._breaker.ask(now_s, self._draws.uniform())
        self._sent[job.id] = job
        self._send(job, placement)
        if job.alarm_s <= now_s:
            self._ring(job)
        else:
            self._overdue.watch(job)

    def _send(self, job: Job, placement: Placement) -> None:
        """Encode its payload and let it leave, for the first time or again."""
        core, way = self._core, self.way
        now_s = core.now_s
        self._encoder_s = max(now_s, self._encoder_s) + placement.encode_s
        job.encode_s = placement.encode_s
        job.left_s = self._encoder_s
        # Samples come in turn, as from a driver; every edge begins with another one.
        sizes = placement.payloads_nbytes
        turn = (job.id - 1 + self.index) % len(sizes) if sizes else 0
        job.payload_nbytes = sizes[turn] if sizes else placement.payload_nbytes
        job.tail_s = placement.tail_s * self._draws.factor(self.machine.sigma)
        job.service_s = placement.decode_s + job.tail_s
        job.kind = placement.k
        job.epoch = way.epoch
        if self.chooser.policy is not None:
            job.ahead_nbytes = way.up.backlog_nbytes(job.left_s)
        job.sent_s = way.send_up(job.left_s, job.payload_nbytes)
        if way.broken:
            job.payload_nbytes = 0
        else:
            job.air_s = way.up.free_s - way.up.began_s
        core.at(job.sent_s, self._arrive, job)
        if job.sent_s - now_s >= GIVE_UP_S:
            self._monitor.follow(job.sent_s)

    def send_again(self) -> None:
        """The link is back: what failed on it goes out again where that is sooner."""
        self._breaker = CLOSED
        now_s, again = self._core.now_s, Again()
        for job in self._local.values():
            placement = self._placements[job.placement]
            rest_s = job.rest_left_s(placement.rest_s or 0.0, now_s)
            sooner = again.is_sooner(rest_s, self._cloud_s.get(job.placement))
            fresh = job.left_s >= 0 or not split_codec(placement.codec)[0]
            if sooner and fresh and job.epoch != self.way.epoch and job.ask(now_s):
                job.advance(Event.RESENT)
                self._cloud.cancel(job)
                job.cancelled_s = math.inf
                self._sent[job.id] = job
                self._send(job, placement)
                again.note_sent()

    def _arrive(self, job: Job) -> None:
        now_s = self._core.now_s
        if job.epoch == self.way.epoch and job.sent_s == now_s and job.cancelled_s > now_s:
            self._cloud.arrive(job)

    def reply(self, job: Job) -> None:
        """The cloud has served `job`: its outputs go down, unless the link has broken."""
        now_s = self._core.now_s
        job.served_s = now_s
        if job.epoch == self.way.epoch:
            way = self.way
            reply_nbytes = self._placements[job.placement].reply_nbytes
            arrives_s = way.send_down(now_s, reply_nbytes)
            job.replied_s = arrives_s
            self._core.at(arrives_s, self._take, job)
            if arrives_s - now_s >= GIVE_UP_S:
                self._monitor.follow(arrives_s)
            job.reply_air_s = way.down.free_s - way.down.began_s

    def refuse(self, job: Job) -> None:
        """The cloud cannot serve `job`, and says so."""
        if job.epoch == self.way.epoch:
            self._core.at(self.way.send_down(self._core.now_s, 0), self._take_refusal, job)

    def _take_refusal(self, job: Job) -> None:
        self._breaker = self._breaker.hear()
        self._move(job, Event.FAILED)

    def _take(self, job: Job) -> None:
        """The reply has come."""
        now_s = self._core.now_s
        if job.epoch != self.way.epoch:
            return  # lost
        self._breaker = self._breaker.hear()
        if job.replied_s != now_s:
            return  # sent again since
        if job.advance(Event.REPLIED) is not Action.ANSWER:
            return  # answered here
        took_s = now_s - job.asked_s
        self._cloud_s[job.placement] = smooth(self._cloud_s.get(job.placement), took_s)
        was_busy = self._busy is job
        if was_busy:
            job.note_rest(now_s)
            self._busy = None
        self._end(job, BY_CLOUD)
        if self.chooser.policy is not None:
            took_s = now_s - job.left_s - (job.served_s - job.sent_s)
            placement = self._placements[job.placement]
            up_s = job.sent_s - job.left_s - self.way.one_way_s
            transfer = Transfer(
                job.payload_nbytes,
                placement.reply_nbytes,
                took_s,
                True,
                job.ahead_nbytes,
                up_s,
            )
            self.learn(evidence_of(job, now_s, transfer))
            if self.prober is not None:
                self.prober.heard(now_s, job.payload_nbytes + placement.reply_nbytes)
        if was_busy:
            self._next()

    def _ring(self, job: Job) -> None:
        """The cloud is late with it, or may be."""
        now_s = self._core.now_s
        event = job.ring(now_s)
        if event is Event.FAILED:
            self._monitor.overdue()
            if not job.is_wanted(now_s):  # a deadline alone says nothing of the cloud
                self._breaker = self._breaker.fail(now_s, self._draws.uniform())
                self._stop_sending(job)
        if event is not None:
            self._move(job, event)
        if job.stage is Stage.SENT:
            self._overdue.watch(job)

    def _move(self, job: Job, event: Event) -> None:
        """Advance it, and do what needs no further knowledge."""
        action = job.advance(event, _FAILURES.get(event))
        if action is Action.RUN_REST:
            self.hedges += event is Event.HEDGED
            self._go_local(job)
        elif action is Action.RAISE:
            self._withdraw(job)
            self._end(job, FAILED)

    def _go_local(self, job: Job) -> None:
        self._sent.pop(job.id, None)
        self._local[job.id] = job
        if self._busy is None:
            self._run_rest(job)
        else:
            self._rests.append(job)

    def _withdraw(self, job: Job) -> None:
        """Stop sending, and tell the cloud that nobody waits any more."""
        self._stop_sending(job)
        if job.cancelled_s == math.inf:
            job.cancelled_s = self._core.now_s + self.way.one_way_s
            self._core.at(job.cancelled_s, self._cloud.cancel, job)

    def _stop_sending(self, job: Job) -> None:
        now_s = self._core.now_s
        if now_s < job.sent_s and job.cancelled_s == math.inf:
            nbytes = self.way.take_back(now_s, job.sent_s)
            if nbytes:
                job.payload_nbytes -= nbytes
                job.air_s = self.way.up.free_s - self.way.up.began_s
            job.cancelled_s = now_s

    def _unfinished(self, job: Job) -> Transfer | None:
        if self.chooser.policy is None:
            return None
        return unfinished(self.way.up, job, self._core.now_s)

    def _end(self, job: Job, how: int) -> None:
        self.under_way -= 1
        self._sent.pop(job.id, None)
        self._local.pop(job.id, None)
        self._finished(job, how)
        if self._outside:
            self.under_way += 1
            self._core.at(self._core.now_s, self._admit, self._outside.popleft())
