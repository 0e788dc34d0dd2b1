"""The gRPC shell around sessions, requests and descriptions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, final

import grpc
import grpc.aio

from midstream_cloud.calls import abort, peer_of, peer_of_session, read_message
from midstream_cloud.ration import Rations
from midstream_cloud.session import (
    TROUBLE_BURST,
    TROUBLE_RATE,
    Service,
    Session,
    status_of,
)
from midstream_cloud.statistics import UNAUTHENTICATED, Statistics
from midstream_cloud.tails import Clock, Job
from midstream_wire.codecs.plugins import codes_for
from midstream_wire.credentials import is_bearer
from midstream_wire.descriptions import Description
from midstream_wire.errors import CloudRefused, MidstreamError
from midstream_wire.frames import Code, GoAway, ServerFrame, Status
from midstream_wire.limits import MAX_MESSAGE_NBYTES
from midstream_wire.messages import read_client, write_server
from midstream_wire.unary import (
    read_describe,
    read_infer,
    read_preparation,
    write_description,
    write_infer,
    write_readiness,
)
from midstream_wire.v1 import midstream_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Midstream"].full_name

#: How often a session is looked at for what is overdue in it.
WATCH_S = 5.0

#: Counts what a peer was refused.
Refuse = Callable[[BaseException], None]


@final
class Midstream:
    """midstream.v1.Midstream on grpc.aio."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reading: dict[Session, asyncio.Task[None]] = {}
        self._serials = itertools.count(1)
        self._draining: Status | None = None
        #: What unary calls may get wrong, as `Session` has it for its requests.
        self._trouble = Rations(burst=TROUBLE_BURST, rate=TROUBLE_RATE)

    async def read(self, context: Any, peer: str) -> bytes:
        """Read the message of a unary call, once its peer may make another one."""
        await self.hold_up(peer)
        return await read_message(context, self._service.limits.idle_s)

    async def hold_up(self, peer: str) -> None:
        """Wait until a peer whose calls were wrong may make another one."""
        wait_s = self._trouble.wait_s(peer, self._service.clock())
        if wait_s > 0:
            await self._service.pause(wait_s)

    def refuse(self, error: Exception, peer: str) -> Status:
        """Count a call that is refused, charge it to its peer, and say why."""
        self._service.statistics.refuse(error, peer)
        status = status_of(error)
        if status.code == Code.INVALID_ARGUMENT:
            self._trouble.spend(peer, 1.0, self._service.clock())
        return status

    async def Session(self, _requests: object, context: Any) -> None:
        # One write at a time: the call takes no second one before the first is done.
        lock = asyncio.Lock()

        async def send(frame: ServerFrame) -> None:
            message = write_server(frame)
            async with lock:
                await context.write(message)

        peer = peer_of_session(context, next(self._serials))
        refuse = partial(self._service.statistics.refuse, peer=peer)
        try:
            self._refuse_draining()
        except CloudRefused as error:
            refuse(error)
            await send(GoAway(status_of(error)))
            return
        session = Session(self._service, send, peer=peer)
        self._service.statistics.open_session()
        reading = asyncio.create_task(
            _converse(session, send, context, self._service.clock, refuse)
        )
        self._reading[session] = reading
        watching = asyncio.create_task(_watch(session, send, self._service.clock, refuse))
        try:
            await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._reading[session]
            session.close()
            self._service.statistics.close_session()
            reading.cancel()
            watching.cancel()
        for task in (reading, watching):
            if task.done() and not task.cancelled():  # by `drain`
                task.result()

    async def Infer(self, data: bytes, peer: str) -> bytes:
        service = self._service
        received_s = service.clock()
        self._refuse_draining()
        hello, request = read_infer(data)
        model = service.repository.find(hello)
        incoming = model.assemble(
            request.first_segment,
            request.tensors,
            transform=request.transform,
            max_nbytes=service.limits.max_request_nbytes,
            codes=codes_for(hello.codecs),
        )
        for piece in request.pieces:
            incoming.feed(piece)
        job = Job(
            model=model,
            first_segment=request.first_segment,
            incoming=incoming,
            received_s=received_s,
            transform=request.transform,
            peer=peer,
            received_nbytes=sum(len(piece.data) for piece in request.pieces),
            claim=service.budget.claim(),
        )
        growth = model.growth(request.first_segment, request.transform)
        job.claim.hold(len(data) + int(growth * incoming.nbytes))
        future = service.tails.submit(job)
        try:
            # A call that breaks off must not cancel the future itself: `abandon` does more.
            answer = await asyncio.shield(asyncio.wrap_future(future))
            service.statistics.answer(answer.timings, job.received_nbytes, answer.nbytes)
            payloads = {name: b"".join(parts) for name, parts in answer.payloads.items()}
            return write_infer(payloads, answer.timings).SerializeToString()
        finally:
            service.tails.abandon(job, future)

    async def Describe(self, data: bytes, _peer: str) -> bytes:
        models = self._service.repository.models
        name = read_describe(data)
        if name and name not in models:
            raise CloudRefused(
                Code.NOT_FOUND,
                f"the model must be one that is served here ({', '.join(sorted(models))}), "
                f"not {name[:64]!r}",
            )
        named = [models[name]] if name else models.values()
        described = tuple(model.describe() for model in named)
        description = Description(self._service.name, described)
        encoded = write_description(description).SerializeToString()
        if not name and len(encoded) > MAX_MESSAGE_NBYTES:  # profiles are asked for by name
            bare = tuple(replace(model, profile="") for model in described)
            encoded = write_description(replace(description, models=bare)).SerializeToString()
        return encoded

    async def Prepare(self, data: bytes, _peer: str) -> bytes:
        self._refuse_draining()
        readiness = self._service.repository.prepare(read_preparation(data))
        return write_readiness(readiness).SerializeToString()

    async def drain(self, reason: Status) -> None:
        """Send GoAway to every session; returns when each has finished what is under way."""
        self._draining = reason

        async def close(session: Session, reading: asyncio.Task[None]) -> None:
            await session.drain(reason)
            reading.cancel()

        closing = [close(*entry) for entry in self._reading.items()]
        await asyncio.gather(*closing, return_exceptions=True)

    def _refuse_draining(self) -> None:
        if self._draining is not None:
            raise CloudRefused(self._draining.code, self._draining.message)


async def _converse(
    session: Session,
    send: Callable[[ServerFrame], Awaitable[None]],
    context: Any,
    clock: Clock,
    refuse: Refuse,
) -> None:
    """Take the stream's messages to its end, or to the first that breaks the protocol.

    Nothing is decoded here, so that the time at which a message is read is the link's doing
    alone, and the edge learns the link's rate from it.
    """
    try:
        while (message := await context.read()) is not grpc.aio.EOF:
            await session.receive(read_client(message), clock())
    except MidstreamError as error:
        refuse(error)
        await send(GoAway(status_of(error)))
        return
    await session.finish()


async def _watch(
    session: Session,
    send: Callable[[ServerFrame], Awaitable[None]],
    clock: Clock,
    refuse: Refuse,
) -> None:
    """End what is overdue in a session; returns when it has to end itself."""
    try:
        while True:
            await asyncio.sleep(WATCH_S)
            await session.expire(clock())
    except MidstreamError as error:
        refuse(error)
        await send(GoAway(status_of(error)))


def handlers(midstream: Midstream) -> grpc.GenericRpcHandler:
    """Return what the server calls, by method.

    Every method is a stream of bytes here, whatever it is on the wire, so that nothing is read
    of a call that is refused, and nothing parsed that has not been looked at.
    """
    methods = {
        "Session": grpc.stream_stream_rpc_method_handler(midstream.Session),
        "Infer": _unary(midstream.Infer, midstream),
        "Describe": _unary(midstream.Describe, midstream),
        "Prepare": _unary(midstream.Prepare, midstream),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _unary(answer: Callable[[bytes, str], Awaitable[bytes]], midstream: Midstream) -> Any:
    """Return the handler of a call that brings one message and gets one, or a status."""

    async def call(_requests: object, context: Any) -> None:
        peer = peer_of(context)
        try:
            reply = await answer(await midstream.read(context, peer), peer)
        except Exception as error:
            await abort(context, midstream.refuse(error, peer))
            return
        await context.write(reply)

    return grpc.stream_stream_rpc_method_handler(call)


@final
class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # untyped base
    """A guard that answers UNAUTHENTICATED to each call without the bearer token, unread.

    Health checks pass: those who ask (load balancers, container engines) have no secrets, and
    learn nothing but whether the server is up.
    """

    def __init__(self, token: str, statistics: Statistics) -> None:
        self._token = token
        self._refusing = grpc.stream_stream_rpc_method_handler(self._refuse)
        self._statistics = statistics

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        open_to_all = details.method.startswith("/grpc.health.v1.")
        if handler is None or open_to_all:
            return handler
        if is_bearer(details.invocation_metadata or (), self._token):
            return handler
        return self._refusing

    async def _refuse(self, _requests: object, context: Any) -> None:
        """Refuse a call of any method; the handler of a unary one would get its message."""
        why = "this server must be given its bearer token: name the file that holds it"
        self._statistics.refuse_as(UNAUTHENTICATED, peer_of(context), why)
        await abort(context, Status(Code.UNAUTHENTICATED, why))
