"""One edge's session: frames in, frames out. Knows nothing of gRPC.

What a single request does wrong is answered in-band and the session goes on. What breaks the
protocol is raised: the caller says GoAway and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import final

from midstream_cloud.arriving import Arriving
from midstream_cloud.budget import Budget, memory_budget
from midstream_cloud.eager import Eager
from midstream_cloud.ration import Ration
from midstream_cloud.repository import Model, Repository
from midstream_cloud.statistics import Statistics
from midstream_cloud.tails import Answer, Clock, Job, Tails
from midstream_wire.codecs.plugins import answers_of, codes_for
from midstream_wire.codecs.private import NO_PRIVATE_CODES
from midstream_wire.errors import (
    CloudRefused,
    CodecError,
    MidstreamError,
    ProtocolError,
    TensorError,
)
from midstream_wire.frames import (
    Cancel,
    ClientFrame,
    Code,
    GoAway,
    Hello,
    More,
    Piece,
    Ping,
    Pong,
    Reply,
    Request,
    ServerFrame,
    Status,
    Welcome,
)
from midstream_wire.limits import (
    KEEPALIVE_S,
    KIB,
    MAX_IN_FLIGHT,
    MAX_PADDING_NBYTES,
    MAX_REQUEST_NBYTES,
    MIB,
)
from midstream_wire.transfers import reply_frames

_LOG = logging.getLogger(__name__)

Send = Callable[[ServerFrame], Awaitable[None]]


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session: what it may ask for, and how long it may stall.

    `hello_s` is the time for its Hello, `idle_s` that for which it may have nothing under way
    and say nothing, `stall_s` that for which a request may wait for its next piece. A call
    without a session has `idle_s` for its message.
    """

    max_request_nbytes: int = MAX_REQUEST_NBYTES
    max_in_flight: int = MAX_IN_FLIGHT
    keepalive_s: float = KEEPALIVE_S
    hello_s: float = 30.0
    idle_s: float = 600.0
    stall_s: float = 30.0


@final
@dataclass(frozen=True, slots=True)
class Service:
    """State that all sessions of a server share."""

    name: str
    repository: Repository
    tails: Tails
    budget: Budget = field(default_factory=lambda: Budget(memory_budget()))
    limits: Limits = field(default_factory=Limits)
    clock: Clock = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    padding: bytes = field(default_factory=lambda: _incompressible(MAX_PADDING_NBYTES))
    statistics: Statistics = field(default_factory=Statistics)


#: Bytes of pongs, at once and a second; each ping counts as so many more. An edge that
#: measures a link from scratch asks for some 8 MiB.
_PING_BURST, _PING_RATE, _PING_NBYTES = 16 * MIB, 2 * MIB, 64 * KIB

#: Requests that were wrong, at once and a second. A cancelled one takes less: hedges that lost
#: are cancelled, too.
TROUBLE_BURST, TROUBLE_RATE, _CANCEL_COST = 64.0, 16.0, 0.25


@final
class Session:
    """The server's half of one Session stream, driven by a single task."""

    def __init__(self, service: Service, send: Send, *, peer: str = "") -> None:
        self._service = service
        self._send = send
        self._peer = peer
        self._model: Model | None = None
        self._codes = NO_PRIVATE_CODES
        self._draining: Status | None = None
        self._highest_id = -1
        self._arriving: dict[int, Arriving] = {}
        self._waiting: dict[int, tuple[Future[Answer], Job]] = {}  # for their tail
        self._replying: dict[Eager, Job] = {}
        self._heard_s = self._unpaid_s = now_s = service.clock()
        self._pings = Ration(burst=_PING_BURST, rate=_PING_RATE, now_s=now_s)
        self._trouble = Ration(burst=TROUBLE_BURST, rate=TROUBLE_RATE, now_s=now_s)
        self._idle = asyncio.Event()
        self._idle.set()

    async def receive(self, frame: ClientFrame, arrived_s: float) -> None:
        """Take the peer's next frame, which arrived at `arrived_s` by the service's clock.

        Raises `MidstreamError` when the session cannot go on.
        """
        self._heard_s = arrived_s
        if (wait_s := self._unpaid_s - self._service.clock()) > 0:
            await self._service.pause(wait_s)
        if self._model is None:
            await self._open(frame)
            return
        match frame:
            case Request():
                await self._begin(frame, arrived_s)
            case More():
                await self._continue(frame, arrived_s)
            case Cancel():
                self._cancel(frame.id)
                self._charge(self._trouble, _CANCEL_COST)
            case Ping():
                self._charge(self._pings, _PING_NBYTES + frame.reply_nbytes)
                await self._pong(frame, arrived_s)
            case Hello():
                raise ProtocolError(
                    "a session must have one Hello (not two): open another one"
                )

    async def drain(self, reason: Status) -> None:
        """Refuse new requests from now on; returns when the last one is answered."""
        self._draining = reason
        self._note_idle()
        await self._send(GoAway(reason))
        await self._idle.wait()

    async def finish(self) -> None:
        """Take no more frames; returns when all that arrived whole is answered."""
        for id in [*self._arriving]:
            self._cancel(id)
        self._note_idle()
        await self._idle.wait()

    async def expire(self, now_s: float) -> None:
        """End the waiting for what is overdue: requests that do not go on, idle sessions.

        Raises `CloudRefused` when the session has to end.
        """
        limits = self._service.limits
        for id, arriving in [*self._arriving.items()]:
            if arriving.is_overdue(now_s):
                status = arriving.overdue_status()
                self._service.statistics.refuse_as("stalled", self._peer, status.message)
                await self._fail(id, status)
        silent_s = now_s - self._heard_s
        if self._model is None and silent_s > limits.hello_s:
            raise CloudRefused(
                Code.DEADLINE_EXCEEDED,
                f"a session must say Hello within {limits.hello_s:g} s: open another one",
            )
        if self._idle.is_set() and silent_s > limits.idle_s:
            raise CloudRefused(
                Code.UNAVAILABLE,
                f"a session must not be idle for {limits.idle_s:g} s: ping, or open another "
                "one when there is something to ask",
            )

    def close(self) -> None:
        """Drop everything: the stream is gone."""
        if self._model is not None:
            self._service.repository.leave(self._model)
        for id in [*self._arriving, *self._waiting]:
            self._cancel(id)
        for reply, job in self._replying.items():
            reply.close()
            job.drop()
        self._replying.clear()
        self._note_idle()

    async def _open(self, frame: ClientFrame) -> None:
        if not isinstance(frame, Hello):
            came = type(frame).__name__
            raise ProtocolError(f"a session's first message must be a Hello (not a {came})")
        service = self._service
        model = service.repository.find(frame)
        service.repository.enter(model)
        self._model = model
        self._codes = codes_for(frame.codecs)
        limits = service.limits
        await self._send(
            Welcome(
                service.name,
                limits.max_request_nbytes,
                limits.max_in_flight,
                limits.keepalive_s,
                answers_of(frame.codecs, self._codes),
            )
        )

    async def _begin(self, request: Request, arrived_s: float) -> None:
        try:
            arriving = self._admit(request, arrived_s)
        except Exception as error:
            await self._send(self._refusal(request.id, self._told(error)))
            return
        self._arriving[request.id] = arriving
        self._idle.clear()
        await self._feed(request.id, request.pieces, arrived_s)

    def _admit(self, request: Request, arrived_s: float) -> Arriving:
        """Check what can be checked before any piece is decoded."""
        assert self._model is not None
        limits = self._service.limits
        if request.id <= self._highest_id:
            raise ProtocolError(
                f"the ids of a session's requests must ascend ({request.id} came after "
                f"{self._highest_id}): choose a new id"
            )
        self._highest_id = request.id
        if self._draining is not None:
            raise CloudRefused(self._draining.code, self._draining.message)
        # A reply that is being sent may already have arrived, and this request be what comes
        # after it, so it does not count. But a peer that reads none may not pile them up.
        under_way = len(self._arriving) + len(self._waiting)
        unread = under_way + len(self._replying)
        if under_way >= limits.max_in_flight or unread >= 2 * limits.max_in_flight:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"at most {limits.max_in_flight} requests of a session may be under way: wait "
                "for a reply before the next one",
                kind="in flight",
            )
        incoming = self._model.assemble(
            request.first_segment,
            request.tensors,
            transform=request.transform,
            max_nbytes=limits.max_request_nbytes,
            codes=self._codes,
        )
        deadline_s = arrived_s + request.budget_s if request.budget_s else None
        return Arriving(
            request.first_segment,
            request.transform,
            incoming,
            deadline_s,
            claim=self._service.budget.claim(),
            growth=self._model.growth(request.first_segment, request.transform),
            stall_s=limits.stall_s,
            until_s=arrived_s + limits.stall_s,
        )

    async def _continue(self, more: More, arrived_s: float) -> None:
        if more.id in self._arriving:
            await self._feed(more.id, more.pieces, arrived_s)
        elif more.id > self._highest_id:
            message = f"pieces must belong to a request that was opened (not {more.id})"
            await self._send(self._refusal(more.id, Status(Code.INVALID_ARGUMENT, message)))
        # Else they were under way when their request was refused or cancelled.

    async def _feed(self, id: int, pieces: tuple[Piece, ...], arrived_s: float) -> None:
        arriving = self._arriving[id]
        try:
            arriving.feed(pieces)
        except Exception as error:
            await self._fail(id, self._told(error))
            return
        if arriving.incoming.done:
            del self._arriving[id]
            await self._run(id, arriving, arrived_s)
            return
        if arriving.go_on(arrived_s):
            self._service.tails.decode_ahead(arriving.incoming)

    async def _fail(self, id: int, status: Status) -> None:
        if (arriving := self._arriving.pop(id, None)) is not None:
            arriving.drop()
        await self._send(self._refusal(id, status))
        self._note_idle()

    async def _run(self, id: int, arriving: Arriving, received_s: float) -> None:
        assert self._model is not None
        job = Job(
            model=self._model,
            first_segment=arriving.first_segment,
            incoming=arriving.incoming,
            received_s=received_s,
            deadline_s=arriving.deadline_s,
            transform=arriving.transform,
            peer=self._peer,
            received_nbytes=arriving.fed_nbytes,
            claim=arriving.claim,
        )
        try:
            future = self._service.tails.submit(job)
        except Exception as error:
            await self._fail(id, self._told(error))
            return
        self._waiting[id] = future, job
        # No task waits for the tail: each step of one costs as much as all checks together
        # when the tail has just swept the caches.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda done: _tell(loop, self._finished, id, done))

    def _finished(self, id: int, future: Future[Answer]) -> None:
        """Reply that a tail has run or failed, unless it was cancelled."""
        if id not in self._waiting or self._waiting[id][0] is not future:
            return
        _, job = self._waiting.pop(id)
        reply = Eager(self._reply(id, future, job), self._replied)
        self._replying[reply] = job
        reply.step()

    async def _reply(self, id: int, future: Future[Answer], job: Job) -> None:
        """Send how a tail has ended."""
        error = future.exception()
        if error is not None:
            await self._send(self._refusal(id, self._told(error)))
            return
        answer = future.result()
        self._service.statistics.answer(answer.timings, job.received_nbytes, answer.nbytes)
        for frame in reply_frames(id, answer.payloads, answer.timings):
            await self._send(frame)

    def _replied(self, reply: Eager, error: BaseException | None) -> None:
        if (job := self._replying.pop(reply, None)) is not None:
            job.drop()
        self._note_idle()
        if error is not None:
            _LOG.debug("a reply was not sent: %s", error)  # the stream broke

    def _cancel(self, id: int) -> None:
        """Drop a request. A reply that is being sent goes on: half of it is out."""
        if (arriving := self._arriving.pop(id, None)) is not None:
            arriving.drop()
        if (waiting := self._waiting.pop(id, None)) is not None:
            future, job = waiting
            self._service.tails.abandon(job, future)
        self._note_idle()

    async def _pong(self, ping: Ping, arrived_s: float) -> None:
        padding = self._service.padding[: ping.reply_nbytes]
        await self._send(Pong(ping.id, padding, arrived_s, self._service.clock()))

    def _told(self, error: BaseException) -> Status:
        """Return what the peer is told of `error`, and count it."""
        if not (isinstance(error, CloudRefused) and error.code == Code.CANCELLED):
            self._service.statistics.refuse(error, self._peer)
        if isinstance(error, CloudRefused) and error.kind == "work":
            self._charge(self._trouble, 1.0)  # asked for again, it would be refused again
        return status_of(error)

    def _refusal(self, id: int, status: Status) -> Reply:
        """Return a reply of `status`, and charge the peer for its own mistake."""
        if status.code == Code.INVALID_ARGUMENT:
            self._charge(self._trouble, 1.0)
        return Reply(id, status)

    def _charge(self, ration: Ration, cost: float) -> None:
        """Hear nothing more of a peer until it has earned what it has spent."""
        self._unpaid_s = max(self._unpaid_s, ration.spend(cost, self._service.clock()))

    def _note_idle(self) -> None:
        if not (self._arriving or self._waiting or self._replying):
            self._idle.set()


def _tell(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[int, Future[Answer]], None],
    id: int,
    future: Future[Answer],
) -> None:
    """Call back in the loop, from a worker that may outlive it."""
    if not future.cancelled():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback, id, future)


def status_of(error: BaseException) -> Status:
    """Return what a peer is told of `error`; one not raised on purpose is logged."""
    if isinstance(error, CloudRefused):
        return Status(error.code, str(error))
    if isinstance(error, ProtocolError | CodecError | TensorError):
        return Status(Code.INVALID_ARGUMENT, str(error))
    if isinstance(error, MidstreamError):
        return Status(Code.INTERNAL, str(error))
    if isinstance(error, MemoryError):
        _LOG.warning("a request was refused for lack of memory: %s", error)
        return Status(
            Code.RESOURCE_EXHAUSTED,
            "the server has no memory for this request now: send less or later, or run the "
            "rest on the edge",
        )
    _LOG.error("a request failed", exc_info=error)
    return Status(Code.INTERNAL, "the cloud failed to run this request: see its log")


def _incompressible(nbytes: int) -> bytes:
    """Padding that nothing on the way makes smaller, or a probe would measure too well."""
    return random.Random(0).randbytes(nbytes)
