"""Streams that end while a request is under way, wherever that is."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import cast

import numpy as np
from tests.cloud.gate import PATIENCE_S, Gate

from midstream_cloud.budget import Budget
from midstream_cloud.repository import Model, Repository
from midstream_cloud.session import Service, Session
from midstream_cloud.tails import Tails
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.frames import Code, Hello, Piece, Reply, Request, ServerFrame, Status


def test_a_stream_that_ends_at_any_moment_gives_back_all_and_ends_the_drain(
    small: Partition, gate: Gate
) -> None:
    repository = Repository()
    repository.hold(Model("gated", small, cast(Chain, gate)))
    payload = encode_bytes(codec("raw"), np.ones((1, 8, 16, 16), np.float32))
    moments = ("arriving", "waiting", "running", "replying")

    async def talk(moment: str) -> None:
        stuck, full = asyncio.Event(), asyncio.Event()

        async def send(frame: ServerFrame) -> None:
            if isinstance(frame, Reply):
                stuck.set()
                await full.wait()

        with closing(Tails(workers=1)) as tails:
            service = Service("test", repository, tails, Budget(40_000))
            session = Session(service, send)
            await session.receive(Hello("gated", small.digest), service.clock())
            for id in (1, 2) if moment == "waiting" else (1,):
                data = payload[:100] if moment == "arriving" else payload
                request = Request(id, 1, ("a1",), (Piece(0, data),), 0.0)
                await session.receive(request, service.clock())
            if moment != "arriving":
                assert await asyncio.to_thread(gate.begun.acquire, timeout=PATIENCE_S)
            if moment == "replying":
                gate.let.release()
                await stuck.wait()
            assert service.budget.taken_nbytes > 0
            draining = asyncio.create_task(session.drain(Status(Code.UNAVAILABLE, "")))
            await asyncio.sleep(0)
            session.close()
            await draining
            if moment in ("waiting", "running"):
                gate.let.release()
            while service.budget.taken_nbytes:
                await asyncio.sleep(0.01)

    for moment in moments:
        asyncio.run(asyncio.wait_for(talk(moment), PATIENCE_S))
