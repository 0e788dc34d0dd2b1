"""A stand-in for a chain that runs when it is let, and says when it has begun."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from midstream_partitioner.backends.stopping import Stop
from midstream_wire.tensors import Array

PATIENCE_S = 10.0


class Gate:
    """A chain that answers `output`, or fails with `error`, each time that it is let."""

    def __init__(self, output: Array | None = None) -> None:
        self.output = np.zeros((1, 10), np.float32) if output is None else output
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.ran = 0
        self.error: BaseException | None = None

    def run(
        self, state: Mapping[str, Array], first: int, last: int, *, stop: Stop
    ) -> dict[str, Array]:
        self.begun.release()
        assert self.let.acquire(timeout=PATIENCE_S)
        self.ran += 1
        if self.error:
            raise self.error
        return {"y": self.output}
