"""grpc.health.v1 out of a fixed table, for peers without a token.

A call costs the server next to nothing: its name is looked up and not kept, and the calls at a
time are limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from midstream_cloud.calls import abort, peer_of, read_message
from midstream_cloud.session import status_of
from midstream_cloud.statistics import Statistics
from midstream_wire.errors import CloudRefused, MidstreamError, ProtocolError
from midstream_wire.frames import Code

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

#: Calls at a time, a quarter of what the smallest server takes: these need no token, and must
#: leave room for those that do. A load balancer has one, or one for each of its processes.
MAX_CALLS = 16

#: How long a call may wait for its message.
PATIENCE_S = 5.0

#: Length of a request; the longest name in the table takes 23 bytes.
MAX_NBYTES = 1024

_Status = health_pb2.HealthCheckResponse


@final
class Health:
    """A table of `names` that tells of each if it is served, and that others are unknown."""

    def __init__(self, names: Iterable[str], statistics: Statistics) -> None:
        self._names = frozenset(names)
        self._statistics = statistics
        self._serving = False
        self._changed = asyncio.Event()
        self._calls = 0

    def tell(self, *, serving: bool) -> None:
        """Set if the names are being served from now on."""
        self._serving = serving
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, _requests: object, context: Any) -> None:
        await self._answer(context, self._check)

    async def Watch(self, _requests: object, context: Any) -> None:
        await self._answer(context, self._watch)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what the server calls, by method; messages stay bytes."""
        stream = grpc.stream_stream_rpc_method_handler
        methods = {"Check": stream(self.Check), "Watch": stream(self.Watch)}
        return grpc.method_handlers_generic_handler(NAME, methods)

    async def _answer(self, context: Any, method: Callable[[Any], Awaitable[None]]) -> None:
        """Answer a call by `method`; a refusal is counted and becomes the call's status."""
        try:
            with self._admit():
                await method(context)
        except MidstreamError as error:
            self._statistics.refuse(error, peer_of(context))
            await abort(context, status_of(error))

    async def _check(self, context: Any) -> None:
        if not await self._is_known(context):
            names = ", ".join(map(repr, sorted(self._names)))
            raise CloudRefused(
                Code.NOT_FOUND,
                f"a health check must name one of {names} (not another): ask for one of these",
            )
        await context.write(self._status(known=True))

    async def _watch(self, context: Any) -> None:
        known = await self._is_known(context)
        while True:
            changed = self._changed
            await context.write(self._status(known=known))
            await changed.wait()

    def _status(self, *, known: bool) -> bytes:
        status = _Status.SERVING if self._serving else _Status.NOT_SERVING
        reply = _Status(status=status if known else _Status.SERVICE_UNKNOWN)
        encoded: bytes = reply.SerializeToString()
        return encoded

    @contextmanager
    def _admit(self) -> Iterator[None]:
        if self._calls >= MAX_CALLS:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"at most {MAX_CALLS} health calls may be under way: ask again later",
            )
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def _is_known(self, context: Any) -> bool:
        """Return True if the name that is asked for is in the table; it is not kept."""
        message = await read_message(context, PATIENCE_S)
        if len(message) > MAX_NBYTES:
            raise ProtocolError(
                f"a health call's message must have at most {MAX_NBYTES} bytes (not "
                f"{len(message)}): ask for a name"
            )
        try:
            return health_pb2.HealthCheckRequest.FromString(message).service in self._names
        except DecodeError:
            raise ProtocolError(
                "a health call's message must be protobuf of grpc.health.v1: use its client"
            ) from None
