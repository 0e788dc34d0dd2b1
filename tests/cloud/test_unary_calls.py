"""Calls without a session: a peer whose calls are wrong is held up, and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import closing

from midstream_cloud.repository import Repository
from midstream_cloud.service import Midstream
from midstream_cloud.session import TROUBLE_BURST, TROUBLE_RATE, Service
from midstream_cloud.tails import Tails
from midstream_wire.errors import CloudRefused, ProtocolError
from midstream_wire.frames import Code


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
