"""One session without a socket: what is under way, cancelled, refused, drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from tests.cloud.gate import PATIENCE_S, Gate

from midstream_cloud import tails as tails_module
from midstream_cloud.budget import Budget
from midstream_cloud.repository import Model, Repository
from midstream_cloud.session import Limits, Service, Session
from midstream_cloud.tails import Tails
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import Profile, Stat
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.errors import CloudRefused, ModelError, ProtocolError, UsageError
from midstream_wire.frames import (
    Cancel,
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
from midstream_wire.limits import MIB

#: For two requests of 8 KiB, encoded and decoded, and their answers, not for three.
_ROOM = 40_000


class Clock:
    """Real time, and what was added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.pauses_s: list[float] = []

    async def pause(self, seconds: float) -> None:
        """Let so much time go by at once, and note it."""
        self.pauses_s.append(seconds)
        self.ahead_s += seconds

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Hall:
    """A session with its other side's ear."""

    def __init__(self, service: Service, digest: str) -> None:
        self.budget, self.clock = service.budget, service.clock
        self.heard: asyncio.Queue[ServerFrame] = asyncio.Queue()
        self.session = Session(service, self.heard.put)
        self._digest = digest

    async def open(self) -> None:
        await self.session.receive(Hello("gated", self._digest), time.monotonic())
        assert isinstance(await self.hear(), Welcome)

    async def ask(self, id: int, *, budget_s: float = 0.0) -> None:
        payload = encode_bytes(codec("raw"), np.ones((1, 8, 16, 16), np.float32))
        await self.send(id, payload, budget_s=budget_s)

    async def send(self, id: int, data: bytes, *, budget_s: float = 0.0) -> None:
        request = Request(id, 1, ("a1",), (Piece(0, data),), budget_s)
        await self.session.receive(request, self.clock())

    async def later(self, seconds: float) -> None:
        """So much time goes by, and the session is looked at."""
        assert isinstance(self.clock, Clock)
        self.clock.ahead_s += seconds
        await self.session.expire(self.clock())

    async def hear(self) -> ServerFrame:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)

    async def status(self) -> tuple[int, int]:
        reply = await self.hear()
        assert isinstance(reply, Reply)
        return reply.id, reply.status.code


Meet = Callable[[Callable[[Hall], Awaitable[None]]], None]


@pytest.fixture
def meet(gate: Gate, small: Partition) -> Meet:
    """Runs a conversation with a session that was welcome; one worker, two in flight."""
    repository = Repository()
    repository.hold(Model("gated", small, cast(Chain, gate)))

    @asynccontextmanager
    async def hall() -> AsyncIterator[Hall]:
        tails, clock = Tails(workers=1), Clock()
        service = Service(
            "test", repository, tails, Budget(_ROOM), Limits(max_in_flight=2), clock
        )
        service = replace(service, pause=clock.pause)
        hall = Hall(service, small.digest)
        await hall.open()
        try:
            yield hall
        finally:
            hall.session.close()
            tails.close()

    def run(talk: Callable[[Hall], Awaitable[None]]) -> None:
        async def main() -> None:
            async with hall() as opened:
                await talk(opened)

        asyncio.run(main())

    return run


def test_requests_in_flight_are_counted_until_their_reply(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1)
        await hall.ask(2)
        await hall.ask(3)
        assert await hall.status() == (3, Code.RESOURCE_EXHAUSTED)
        gate.let.release(2)
        assert [await hall.status(), await hall.status()] == [(1, Code.OK), (2, Code.OK)]
        await asyncio.wait_for(hall.session.finish(), PATIENCE_S)
        await hall.ask(4)
        gate.let.release()
        assert await hall.status() == (4, Code.OK)

    meet(talk)


def test_a_cancelled_request_is_dropped_from_the_queue_and_not_answered(
    meet: Meet, gate: Gate
) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1)
        await hall.ask(2)
        await hall.session.receive(Cancel(2), time.monotonic())
        gate.let.release(5)
        assert await hall.status() == (1, Code.OK)
        await asyncio.wait_for(hall.session.finish(), PATIENCE_S)
        assert hall.heard.empty()
        assert gate.ran == 1

    meet(talk)


def test_a_request_that_runs_when_it_is_cancelled_is_not_answered(
    meet: Meet, gate: Gate
) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1)
        await hall.session.receive(Cancel(1), time.monotonic())
        await asyncio.wait_for(hall.session.finish(), PATIENCE_S)
        gate.let.release(5)
        await hall.ask(2)
        assert await hall.status() == (2, Code.OK)

    meet(talk)


def test_a_drained_session_finishes_what_it_began_and_refuses_the_rest(
    meet: Meet, gate: Gate
) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1)
        reason = Status(Code.UNAVAILABLE, "stopping")
        draining = asyncio.create_task(hall.session.drain(reason))
        assert await hall.hear() == GoAway(reason)
        await hall.ask(2)
        assert await hall.status() == (2, Code.UNAVAILABLE)
        assert not draining.done()
        gate.let.release()
        assert await hall.status() == (1, Code.OK)
        await asyncio.wait_for(draining, PATIENCE_S)

    meet(talk)


def test_a_fault_of_the_cloud_is_answered_without_its_details(
    meet: Meet, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(hall: Hall) -> None:
        gate.error = RuntimeError("secret path /root/model")
        gate.let.release(2)
        await hall.ask(1)
        reply = await hall.hear()
        assert isinstance(reply, Reply)
        assert reply.status.code == Code.INTERNAL
        assert "secret" not in reply.status.message
        gate.error = None
        await hall.ask(2)
        assert await hall.status() == (2, Code.OK)

    meet(talk)
    assert "secret path" in caplog.text  # whoever runs the server can find out


def test_a_time_budget_that_ran_out_is_answered(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1, budget_s=1e-9)
        gate.let.release()
        assert await hall.status() == (1, Code.DEADLINE_EXCEEDED)

    meet(talk)


def test_a_closed_session_drops_what_was_queued(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        await hall.ask(1)
        await hall.ask(2)
        hall.session.close()
        gate.let.release(2)
        await asyncio.wait_for(hall.session.finish(), PATIENCE_S)
        assert hall.heard.empty()

    meet(talk)


def test_a_session_that_was_not_welcome_cannot_go_on(meet: Meet) -> None:
    async def talk(hall: Hall) -> None:
        with pytest.raises(ProtocolError, match="one Hello"):
            await hall.session.receive(Hello("gated", ""), time.monotonic())

    meet(talk)


def test_a_model_is_found_by_name_and_digest_only(small: Partition, gate: Gate) -> None:
    repository = Repository()
    with pytest.raises(CloudRefused, match="served here \\(none\\)"):
        repository.find(Hello("gated", small.digest))
    model = Model("gated", small, cast(Chain, gate))
    repository.hold(model)
    assert repository.find(Hello("gated", small.digest)) is model
    with pytest.raises(CloudRefused, match="the same partition"):
        repository.find(Hello("gated", ""))
    with pytest.raises(UsageError, match="'gated' again"):
        repository.hold(model)


def test_a_profile_of_another_partition_is_refused(small: Partition, model: Model) -> None:
    device = this_device()
    stat = Stat(0.1, 0.1, 0.1, 1)
    profile = Profile(device, small.graph_digest, "0" * 64, (stat,) * 3, (), (40,) * 3)
    with pytest.raises(ModelError, match="measure it again"):
        Repository().add("small", small, profile=profile)
    fitting = replace(profile, partition_digest=small.digest)
    described = Repository().add("small", small, profile=fitting).describe()
    assert Profile.from_json(described.profile) == fitting


_PAYLOAD = encode_bytes(codec("raw"), np.ones((1, 8, 16, 16), np.float32))


def test_what_requests_hold_is_bounded_and_comes_back(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        other = hall.budget.claim()  # of another session
        other.hold(_ROOM // 2)
        await hall.ask(1)
        await hall.ask(2)  # its header and its pieces do not fit beside those of the first
        assert await hall.status() == (2, Code.RESOURCE_EXHAUSTED)
        gate.let.release()
        assert await hall.status() == (1, Code.OK)
        assert hall.budget.taken_nbytes == _ROOM // 2
        await hall.ask(3)
        gate.let.release()
        assert await hall.status() == (3, Code.OK)

    meet(talk)


@pytest.mark.parametrize("end", ["cancel", "damage", "finish", "close"])
def test_a_request_that_ends_early_gives_back_what_it_held(
    meet: Meet, gate: Gate, end: str
) -> None:
    async def talk(hall: Hall) -> None:
        await hall.send(1, _PAYLOAD[:100])  # a header is enough to claim what it says
        assert hall.budget.taken_nbytes > 8192
        if end == "cancel":
            await hall.session.receive(Cancel(1), hall.clock())
        elif end == "damage":
            await hall.session.receive(More(1, (Piece(7, b"?"),)), hall.clock())
        elif end == "finish":
            await hall.session.finish()
        else:
            hall.session.close()
        assert hall.budget.taken_nbytes == 0

    meet(talk)


def test_a_cancelled_request_gives_back_what_it_held_with_its_worker_busy(
    meet: Meet, gate: Gate
) -> None:
    async def talk(hall: Hall) -> None:
        small = Request(1, 1, ("a1",), (Piece(0, _PAYLOAD),))
        await hall.session.receive(small, hall.clock())
        while not gate.begun.acquire(blocking=False):
            await asyncio.sleep(0.001)
        assert hall.budget.taken_nbytes > 8192
        await hall.session.receive(Cancel(1), hall.clock())
        gate.let.release()
        while hall.budget.taken_nbytes:
            await asyncio.sleep(0.001)

    meet(talk)


def test_a_request_that_does_not_go_on_is_ended_in_band(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        await hall.send(1, _PAYLOAD[:100])
        await hall.later(29.0)
        assert hall.heard.empty()
        await hall.session.receive(More(1, (Piece(0, _PAYLOAD[100:101]),)), hall.clock())
        await hall.later(2.0)  # a byte is not worth another half minute
        assert await hall.status() == (1, Code.DEADLINE_EXCEEDED)
        assert hall.budget.taken_nbytes == 0
        await hall.send(2, _PAYLOAD[:100], budget_s=1.0)
        await hall.later(1.5)  # nobody waits for it any more
        assert await hall.status() == (2, Code.DEADLINE_EXCEEDED)

    meet(talk)


def test_a_session_that_is_idle_too_long_is_ended_and_one_at_work_is_not(
    meet: Meet, gate: Gate
) -> None:
    async def talk(hall: Hall) -> None:
        await hall.later(590.0)
        await hall.ask(1)
        await hall.later(1000.0)  # its tail runs
        gate.let.release()
        assert await hall.status() == (1, Code.OK)
        with pytest.raises(CloudRefused, match="idle for 600 s"):
            await hall.later(0.0)

    meet(talk)


def test_a_lack_of_memory_is_answered_in_band(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        gate.error = MemoryError("Unable to allocate 9.00 GiB")
        gate.let.release(2)
        await hall.ask(1)
        assert await hall.status() == (1, Code.RESOURCE_EXHAUSTED)
        gate.error = None
        await hall.ask(2)
        assert await hall.status() == (2, Code.OK)

    meet(talk)


def test_a_peer_that_asks_for_much_padding_is_held_up_and_answered(meet: Meet) -> None:
    async def talk(hall: Hall) -> None:
        clock = cast(Clock, hall.clock)
        for id in range(8):
            await hall.session.receive(Ping(id, b"", 2 * MIB), clock())
        for id in range(8):
            pong = await hall.hear()
            assert isinstance(pong, Pong)
            assert (pong.id, len(pong.padding)) == (id, 2 * MIB)
        assert sum(clock.pauses_s) < 1.0  # 16 MiB at once are free, the pings nearly
        for id in range(8, 12):
            await hall.session.receive(Ping(id, b"", 2 * MIB), clock())
        assert 2.0 < sum(clock.pauses_s) < 5.0  # 2 MiB a second after that

    meet(talk)


def test_a_peer_that_asks_for_too_much_work_is_held_up(
    meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails_module, "expected", lambda points, nbytes: 99.0)

    async def talk(hall: Hall) -> None:
        for id in range(1, 121):
            await hall.ask(id)
            assert await hall.status() == (id, Code.RESOURCE_EXHAUSTED)
        assert 2.0 < sum(cast(Clock, hall.clock).pauses_s) < 6.0

    meet(talk)


def test_a_peer_whose_requests_are_wrong_is_held_up(meet: Meet, gate: Gate) -> None:
    async def talk(hall: Hall) -> None:
        clock = cast(Clock, hall.clock)
        damaged = _PAYLOAD[:-1] + b"!"
        for id in range(1, 121):  # half of them wrong at once, half when they are decoded
            await hall.send(id, damaged if id % 2 else b"?" * 100)
            assert await hall.status() == (id, Code.INVALID_ARGUMENT)
        assert 2.0 < sum(clock.pauses_s) < 6.0  # 64 at once, 16 a second after that
        await hall.ask(121)
        gate.let.release()
        assert await hall.status() == (121, Code.OK)

    meet(talk)
