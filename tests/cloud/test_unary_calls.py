"""Calls without a session: held up when wrong, counted, and rid of what they held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np
import pytest
from tests.cloud.gate import PATIENCE_S, Gate

from midstream_cloud import tails as tails_module
from midstream_cloud.budget import Budget
from midstream_cloud.models import Model
from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_cloud.service import Midstream
from midstream_cloud.session import TROUBLE_BURST, TROUBLE_RATE, Limits, Service
from midstream_cloud.statistics import Statistics
from midstream_cloud.tails import Tails
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.errors import CloudRefused, MidstreamError, ProtocolError
from midstream_wire.frames import Code, Status
from midstream_wire.v1 import midstream_pb2 as pb

if TYPE_CHECKING:
    from tests.cloud.conftest import Client


def test_wrong_calls_are_answered_ever_later_and_refusals_for_lack_of_room_are_not() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    with closing(Tails(workers=1)) as tails:
        service = Service("test", Repository(), tails, clock=lambda: 100.0, pause=pause)
        midstream = Midstream(service)
        for _ in range(int(TROUBLE_BURST) + 32):
            full = midstream.refuse(CloudRefused(Code.RESOURCE_EXHAUSTED, "full"), "busy")
            wrong = midstream.refuse(ProtocolError("nonsense"), "wrong")
        assert (full.code, wrong.code) == (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT)
        asyncio.run(midstream.hold_up("busy"))
        asyncio.run(midstream.hold_up("honest"))
        assert pauses == []
        asyncio.run(midstream.hold_up("wrong"))
        assert pauses == [32 / TROUBLE_RATE]
    assert service.statistics.refused == {"overload": 96, "invalid": 96}


@pytest.fixture
def service(small: Partition, gate: Gate) -> Iterator[Service]:
    """One worker, one place in the queue, room for some requests of 16 KiB in the budget."""
    repository = Repository()
    repository.hold(Model("small", small, cast(Chain, gate)))
    with closing(Tails(workers=1, max_queued=1)) as tails:
        yield Service("test", repository, tails, Budget(100_000))


def _request(small: Partition, *, damaged: bool = False, name: str = "a1") -> bytes:
    payload = bytearray(encode_bytes(codec("raw"), np.ones((1, 8, 16, 16), np.float32)))
    payload[-1] ^= damaged
    return pb.InferRequest(
        hello=pb.Hello(model="small", partition_digest=small.digest),
        first_segment=1,
        tensors=[pb.Tensor(name=name, payload=bytes(payload))],
    ).SerializeToString()


async def _occupy(service: Service, gate: Gate, data: bytes) -> list[asyncio.Task[bytes]]:
    """Have calls run and wait until the queue is full."""
    tasks = []
    for _ in range(2):
        tasks.append(asyncio.create_task(Midstream(service).Infer(data, "busy")))
        await asyncio.sleep(0)
        if len(tasks) == 1:
            assert await asyncio.to_thread(gate.begun.acquire, timeout=PATIENCE_S)
    return tasks


def test_an_answer_is_counted_and_gives_back_what_the_call_held(
    service: Service, gate: Gate, small: Partition
) -> None:
    gate.let.release()
    reply = pb.InferReply.FromString(
        asyncio.run(Midstream(service).Infer(_request(small), "peer"))
    )
    counts = service.statistics
    sent = sum(len(tensor.payload) for tensor in reply.tensors)
    received = len(encode_bytes(codec("raw"), np.ones((1, 8, 16, 16), np.float32)))
    assert (counts.answered, counts.received_nbytes) == (1, received)
    assert counts.sent_nbytes == sent > 0
    assert counts.tail_s == pytest.approx(reply.timings.tail_s)
    assert service.budget.taken_nbytes == 0


def _too_much_work(monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate) -> None:
    def refuse(*_: object) -> None:
        raise CloudRefused(Code.RESOURCE_EXHAUSTED, "too much", kind="work")

    monkeypatch.setattr(Tails, "_check_work", refuse)


def _stopped(monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate) -> None:
    service.tails.close()


def _no_room(monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate) -> None:
    monkeypatch.setattr(service.budget, "nbytes", 10_000)


def _no_room_for_the_answer(
    monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate
) -> None:
    gate.let.release()
    monkeypatch.setattr(tails_module.Answer, "nbytes", 1_000_000)


def _fails(error: BaseException) -> Callable[[pytest.MonkeyPatch, Service, Gate], None]:
    def prepare(monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate) -> None:
        gate.error = error
        gate.let.release()

    return prepare


def _nothing(monkeypatch: pytest.MonkeyPatch, service: Service, gate: Gate) -> None:
    gate.let.release()


@pytest.mark.parametrize(
    ("prepare", "changes"),
    [
        (_too_much_work, {}),
        (_stopped, {}),
        (_no_room, {}),
        (_no_room_for_the_answer, {}),
        (_fails(ZeroDivisionError()), {}),
        (_fails(MemoryError()), {}),
        (_nothing, {"damaged": True}),
        (_nothing, {"name": "b7"}),
    ],
)
def test_a_call_that_is_refused_gives_back_what_it_held(
    service: Service,
    gate: Gate,
    small: Partition,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[pytest.MonkeyPatch, Service, Gate], None],
    changes: dict[str, object],
) -> None:
    prepare(monkeypatch, service, gate)
    data = _request(small, **changes)  # type: ignore[arg-type]
    with pytest.raises((MidstreamError, ArithmeticError, MemoryError)):
        asyncio.run(Midstream(service).Infer(data, "peer"))
    assert service.budget.taken_nbytes == 0
    assert service.statistics.answered == 0


def test_a_call_that_finds_the_queue_full_or_breaks_off_gives_back_what_it_held(
    service: Service, gate: Gate, small: Partition
) -> None:
    async def main() -> None:
        data = _request(small)
        running, waiting = await _occupy(service, gate, data)
        taken = service.budget.taken_nbytes
        with pytest.raises(CloudRefused) as caught:
            await Midstream(service).Infer(data, "busy")
        assert caught.value.kind == "queue"
        assert service.budget.taken_nbytes == taken > 0
        waiting.cancel()
        await asyncio.wait([waiting])
        assert service.budget.taken_nbytes == taken / 2
        running.cancel()
        await asyncio.wait([running])
        assert service.budget.taken_nbytes == taken / 2  # its tail still runs on it
        gate.let.release()
        while service.budget.taken_nbytes:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


@pytest.mark.parametrize("method", ["Infer", "Describe", "Prepare"])
def test_a_call_without_its_message_ends_and_is_counted(
    repository: Repository, connect: Callable[..., Client], method: str
) -> None:
    statistics, over = Statistics(), threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE_S)
        yield from ()

    settings = Settings(limits=Limits(idle_s=0.1))
    with serving(repository, settings=settings, statistics=statistics) as address:
        channel = connect(address).channel
        call = channel.stream_stream(f"/midstream.v1.Midstream/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            next(call(nothing(), timeout=PATIENCE_S))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        over.set()
        assert statistics.refused == {"stalled": 1}


def test_a_session_that_comes_while_the_server_stops_is_counted(
    repository: Repository,
) -> None:
    sent: list[bytes] = []

    async def write(message: bytes) -> None:
        sent.append(message)

    async def main(midstream: Midstream) -> None:
        await midstream.drain(Status(Code.UNAVAILABLE, "stopping"))
        context = SimpleNamespace(write=write, peer=lambda: "peer", auth_context=dict)
        await midstream.Session(None, context)

    with closing(Tails(workers=1)) as tails:
        service = Service("test", repository, tails)
        asyncio.run(main(Midstream(service)))
    assert pb.ServerMessage.FromString(bytes(sent[0])).go_away.reason.message == "stopping"
    assert service.statistics.refused == {"unavailable": 1}
