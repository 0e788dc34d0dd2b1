"""Frame after frame: each is answered before its deadline, whatever the link does.

    python examples/camera_loop.py              # edge and cloud in this process
    python examples/camera_loop.py HOST:PORT    # a server that `midstream cloud serve` started

Frames are made up here; put your camera into `frames`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

import midstream

MODEL = "digits"
DEADLINE_S = 0.1
EVERY_S = 0.02


def frames(count: int) -> Iterator[np.ndarray]:
    """Yield pictures of 8x8 pixels, one every `EVERY_S` seconds."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        began_s = time.monotonic()
        yield rng.integers(0, 17, (1, 1, 8, 8)).astype(np.float32)
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - began_s)))


def main(server: str | None = None, count: int = 50) -> None:
    part = midstream.partition(MODEL)
    (name,) = (spec.name for spec in part.inputs)
    with contextlib.ExitStack() as stack:
        if server is None:
            measured = midstream.profile(part, runs=5)
            server = str(stack.enter_context(midstream.serve(part, profile=measured)))
        session = stack.enter_context(midstream.connect(part, server, policy="adaptive"))
        wheres: Counter[str] = Counter()
        slowest_s = 0.0
        for frame in frames(count):
            answer = session.infer({name: frame}, deadline_s=DEADLINE_S)
            wheres[answer.where] += 1
            slowest_s = max(slowest_s, answer.timings.total_s)
    told = ", ".join(f"{count} by {where}" for where, count in wheres.items())
    print(f"{told}; the slowest took {1e3 * slowest_s:.1f} ms")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
