"""grpc.health.v1 out of a fixed table, for peers without a token.

Whoever asks gets no more of the server than a byte or two: names are looked up and not kept,
and the calls at a time are limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

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
    """Says of `names` whether they are being served, and of others that it knows none such."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._serving = False
        self._changed = asyncio.Event()
        self._calls = 0

    def tell(self, *, serving: bool) -> None:
        """From now on the names are being served, or not."""
        self._serving = serving
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, _requests: object, context: Any) -> None:
        with self._admit() as admitted:
            known = await self._read(context, admitted=admitted)
            if not known:
                await context.abort(
                    grpc.StatusCode.NOT_FOUND,
                    f"a health check must name one of {', '.join(sorted(self._names))}",
                )
            await context.write(self._status(known=True))

    async def Watch(self, _requests: object, context: Any) -> None:
        with self._admit() as admitted:
            known = await self._read(context, admitted=admitted)
            while True:
                changed = self._changed
                await context.write(self._status(known=known))
                await changed.wait()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what the server calls, by method; messages stay bytes."""
        stream = grpc.stream_stream_rpc_method_handler
        methods = {"Check": stream(self.Check), "Watch": stream(self.Watch)}
        return grpc.method_handlers_generic_handler(NAME, methods)

    def _status(self, *, known: bool) -> bytes:
        status = _Status.SERVING if self._serving else _Status.NOT_SERVING
        reply = _Status(status=status if known else _Status.SERVICE_UNKNOWN)
        encoded: bytes = reply.SerializeToString()
        return encoded

    @contextmanager
    def _admit(self) -> Iterator[bool]:
        self._calls += 1
        try:
            yield self._calls <= MAX_CALLS
        finally:
            self._calls -= 1

    async def _read(self, context: Any, *, admitted: bool) -> bool:
        """Return True if the name that is asked for is in the table; it is not kept."""
        if not admitted:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"at most {MAX_CALLS} health calls may be under way: ask again later",
            )
        try:
            message = await asyncio.wait_for(context.read(), PATIENCE_S)
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"a health call must bring its message within {PATIENCE_S:g} s",
            )
        if message is grpc.aio.EOF or len(message) > MAX_NBYTES:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a health call must bring one message of at most {MAX_NBYTES} bytes",
            )
        try:
            return health_pb2.HealthCheckRequest.FromString(message).service in self._names
        except DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "a health call's message must be protobuf of grpc.health.v1",
            )
        return False
