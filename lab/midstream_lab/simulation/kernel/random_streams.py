"""Random numbers in blocks from one seed, so that one costs no call of numpy's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np
import numpy.typing as npt

#: A call of numpy costs as much as ten draws; larger blocks of a thousand streams would not
#: stay in the processor's cache, which costs more.
_BLOCK = 64


@final
class Draws:
    """One stream; `key` divides a seed into independent ones (numpy's SeedSequence)."""

    __slots__ = ("_exponentials", "_generator", "_normals", "_uniforms")

    def __init__(self, seed: int, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64([seed, *key]))
        self._exponentials: list[float] = []
        self._normals: list[float] = []
        self._uniforms: list[float] = []

    def exponential(self, mean: float) -> float:
        if not self._exponentials:
            self._fill(self._exponentials, self._generator.standard_exponential)
        return self._exponentials.pop() * mean

    def uniform(self) -> float:
        """From 0 up to, but not with, 1."""
        if not self._uniforms:
            self._fill(self._uniforms, self._generator.random)
        return self._uniforms.pop()

    def below(self, bound: int) -> int:
        """A whole number from 0 up to, but not with, `bound`."""
        return int(self.uniform() * bound)

    def heads(self, coins: int) -> int:
        """Return how many of so many coins show heads; of very many, half do."""
        return self.below(1 << coins).bit_count() if coins <= 50 else coins // 2

    def factor(self, sigma: float) -> float:
        """Log-normal around a median of 1; 1 itself for a sigma of 0."""
        if sigma == 0.0:
            return 1.0
        if not self._normals:
            self._fill(self._normals, self._generator.standard_normal)
        return math.exp(self._normals.pop() * sigma)

    def _fill(
        self, block: list[float], make: Callable[[int], npt.NDArray[np.float64]]
    ) -> None:
        block.extend(make(_BLOCK).tolist())
