"""Coroutines without a task: begun at once, gone on with in order, ended once."""

from __future__ import annotations

import asyncio

from midstream_cloud.eager import Eager


def test_it_runs_at_once_waits_and_ends_once() -> None:
    async def main() -> None:
        ends: list[BaseException | None] = []
        seen: list[str] = []
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            seen.append("begun")
            await asyncio.sleep(0)
            seen.append(await gate)

        Eager(work(), lambda _, error: ends.append(error)).step()
        assert seen == ["begun"]  # before the loop has had a turn
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ends == []
        gate.set_result("gone on")
        await asyncio.sleep(0)
        assert (seen, ends) == (["begun", "gone on"], [None])

    asyncio.run(main())


def test_what_it_raises_is_told() -> None:
    async def main() -> None:
        ends: list[BaseException | None] = []

        async def fail(wait: asyncio.Future[None]) -> None:
            await wait

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        Eager(fail(future), lambda _, error: ends.append(error)).step()
        future.set_exception(OSError("gone"))
        await asyncio.sleep(0)
        assert [str(error) for error in ends] == ["gone"]

    asyncio.run(main())


def test_one_that_is_closed_cleans_up_and_tells_nothing() -> None:
    async def main() -> None:
        ends: list[BaseException | None] = []
        seen: list[str] = []
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await gate
            finally:
                seen.append("left")

        eager = Eager(work(), lambda _, error: ends.append(error))
        eager.step()
        eager.close()
        gate.set_result(None)
        await asyncio.sleep(0)
        assert (seen, ends) == (["left"], [])

    asyncio.run(main())
