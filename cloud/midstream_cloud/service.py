"""The gRPC shell around sessions, requests and descriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, final

import grpc
import grpc.aio

from midstream_cloud.session import Service, Session, status_of
from midstream_cloud.tails import Answer, Clock, Job
from midstream_wire.credentials import is_bearer
from midstream_wire.descriptions import Description
from midstream_wire.errors import CloudRefused, MidstreamError
from midstream_wire.frames import GoAway, ServerFrame, Status
from midstream_wire.messages import read_client, write_server
from midstream_wire.unary import (
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

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@final
class Midstream:
    """midstream.v1.Midstream on grpc.aio."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reading: dict[Session, asyncio.Task[None]] = {}
        self._draining: Status | None = None

    async def Session(self, _requests: object, context: Any) -> None:
        # One write at a time: the call takes no second one before the first is done.
        lock = asyncio.Lock()

        async def send(frame: ServerFrame) -> None:
            message = write_server(frame)
            async with lock:
                await context.write(message)

        if self._draining is not None:
            await send(GoAway(self._draining))
            return
        session = Session(self._service, send)
        reading = asyncio.create_task(_converse(session, send, context, self._service.clock))
        self._reading[session] = reading
        watching = asyncio.create_task(_watch(session, send, self._service.clock))
        try:
            await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._reading[session]
            session.close()
            reading.cancel()
            watching.cancel()
        for task in (reading, watching):
            if task.done() and not task.cancelled():  # by `drain`
                task.result()

    async def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferReply:
        try:
            answer = await self._infer(request)
        except Exception as error:
            status = status_of(error)
            await context.abort(_STATUS_CODES[status.code], status.message)
        payloads = {name: b"".join(pieces) for name, pieces in answer.payloads.items()}
        return write_infer(payloads, answer.timings)

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeReply:
        models = self._service.repository.models
        if request.model and request.model not in models:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"the model must be one that is served here ({', '.join(sorted(models))}), "
                f"not {request.model[:64]!r}",
            )
        named = [models[request.model]] if request.model else models.values()
        described = tuple(model.describe() for model in named)
        return write_description(Description(self._service.name, described))

    async def Prepare(self, request: pb.PrepareRequest, context: Any) -> pb.PrepareReply:
        try:
            if self._draining is not None:
                raise CloudRefused(self._draining.code, self._draining.message)
            readiness = self._service.repository.prepare(read_preparation(request))
        except Exception as error:
            status = status_of(error)
            await context.abort(_STATUS_CODES[status.code], status.message)
        return write_readiness(readiness)

    async def drain(self, reason: Status) -> None:
        """Say GoAway to every session; returns when each has finished what is under way."""
        self._draining = reason

        async def close(session: Session, reading: asyncio.Task[None]) -> None:
            await session.drain(reason)
            reading.cancel()

        closing = [close(*entry) for entry in self._reading.items()]
        await asyncio.gather(*closing, return_exceptions=True)

    async def _infer(self, message: pb.InferRequest) -> Answer:
        service = self._service
        received_s = service.clock()
        if self._draining is not None:
            raise CloudRefused(self._draining.code, self._draining.message)
        hello, request = read_infer(message)
        model = service.repository.find(hello)
        incoming = model.assemble(
            request.first_segment,
            request.tensors,
            transform=request.transform,
            max_nbytes=service.limits.max_request_nbytes,
        )
        for piece in request.pieces:
            incoming.feed(piece)
        job = Job(
            model=model,
            first_segment=request.first_segment,
            incoming=incoming,
            received_s=received_s,
            transform=request.transform,
            claim=service.budget.claim(),
        )
        growth = model.growth(request.first_segment, request.transform)
        job.claim.hold(message.ByteSize() + int(growth * incoming.nbytes))
        future = service.tails.submit(job)
        try:
            # A call that breaks off must not cancel the future itself: `abandon` does more.
            return await asyncio.shield(asyncio.wrap_future(future))
        finally:
            service.tails.abandon(job, future)


async def _converse(
    session: Session,
    send: Callable[[ServerFrame], Awaitable[None]],
    context: Any,
    clock: Clock,
) -> None:
    """Take the stream's messages to its end, or to the first that breaks the protocol.

    Nothing is decoded here, so that the time at which a message is read is the link's doing
    alone, and the edge learns the link's rate from it.
    """
    try:
        while (message := await context.read()) is not grpc.aio.EOF:
            await session.receive(read_client(message), clock())
    except MidstreamError as error:
        await send(GoAway(status_of(error)))
        return
    await session.finish()


async def _watch(
    session: Session, send: Callable[[ServerFrame], Awaitable[None]], clock: Clock
) -> None:
    """End what is overdue in a session; returns when it has to end itself."""
    try:
        while True:
            await asyncio.sleep(WATCH_S)
            await session.expire(clock())
    except MidstreamError as error:
        await send(GoAway(status_of(error)))


def handlers(midstream: Midstream) -> grpc.GenericRpcHandler:
    """What the server calls, by method. A session's messages come and go as bytes, since
    `messages` leaves payloads where they lie."""
    infer, describe = pb.InferRequest.FromString, pb.DescribeRequest.FromString
    prepare = pb.PrepareRequest.FromString
    methods = {
        "Session": grpc.stream_stream_rpc_method_handler(midstream.Session),
        "Infer": grpc.unary_unary_rpc_method_handler(
            midstream.Infer, infer, pb.InferReply.SerializeToString
        ),
        "Describe": grpc.unary_unary_rpc_method_handler(
            midstream.Describe, describe, pb.DescribeReply.SerializeToString
        ),
        "Prepare": grpc.unary_unary_rpc_method_handler(
            midstream.Prepare, prepare, pb.PrepareReply.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


@final
class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # untyped base
    """Answers UNAUTHENTICATED to every call that does not carry the bearer token.

    Health checks pass: those who ask (load balancers, container engines) have no secrets, and
    learn nothing but whether the server is up.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        open_to_all = details.method.startswith("/grpc.health.v1.")
        if handler is None or open_to_all:
            return handler
        if is_bearer(details.invocation_metadata or (), self._token):
            return handler
        return _refusing(handler)


def _refusing(handler: Any) -> Any:
    """A handler of the same kind that only says why not."""

    async def refuse(_request: object, context: Any) -> None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "this server must be given its bearer token: name the file that holds it",
        )

    make = grpc.unary_unary_rpc_method_handler
    if handler.response_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
    return make(refuse, handler.request_deserializer, handler.response_serializer)
