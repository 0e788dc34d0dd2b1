"""Many requests at a time from one event loop.

python examples/asyncio_client.py
"""

from __future__ import annotations

import asyncio

import midstream


async def main(count: int = 20) -> None:
    part = midstream.partition("digits")
    given = [midstream.inputs(part, seed=seed)[0] for seed in range(count)]
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, (1, "raw")) as session,
    ):
        answers = await asyncio.gather(*(session.ainfer(each) for each in given))
    slowest_s = max(answer.timings.total_s for answer in answers)
    print(f"{len(answers)} answers, the slowest within {1e3 * slowest_s:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
