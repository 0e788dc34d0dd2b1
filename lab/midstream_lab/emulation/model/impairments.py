"""Random impairments of a link: packet loss and jitter. All from a seed."""

from __future__ import annotations

import math
import random
from typing import final

from midstream_lab.emulation.model.spec import Loss


@final
class Losses:
    """Losses, packet by packet: the n-th depends on the seed and n alone."""

    def __init__(self, loss: Loss, seed: str) -> None:
        self._loss = loss
        self._draw = random.Random(seed).random
        self._bad = False

    def strikes(self) -> bool:
        loss = self._loss
        if loss.to_bad > 0:
            change = loss.to_good if self._bad else loss.to_bad
            self._bad ^= self._draw() < change
        return self._draw() < (loss.bad_share if self._bad else loss.good_share)


@final
class Jitter:
    """An extra delay within ± `jitter_s`, as a function of the time since the first packet.

    Uniform draws `SPACING` jitters apart, joined by straight lines: its slope is at most half
    a second per second, so no packet overtakes another and the mean stays zero however dense
    the packets are. (Drawn per packet and then kept in order, dense packets would all wait
    for the latest.)
    """

    SPACING = 4.0

    def __init__(self, jitter_s: float, seed: str) -> None:
        self._jitter_s = jitter_s
        self._spacing_s = self.SPACING * jitter_s
        self._seed = seed
        self._begun_s: float | None = None
        self._knot = -1
        self._from_s = self._to_s = 0.0

    def at(self, now_s: float) -> float:
        if self._begun_s is None:
            self._begun_s = now_s  # counted from the first packet on: the same in every run
        knot, inside_s = divmod(now_s - self._begun_s, self._spacing_s)
        if knot != self._knot:
            self._knot = math.floor(knot)
            self._from_s = self._drawn_s(self._knot)
            self._to_s = self._drawn_s(self._knot + 1)
        return self._from_s + (self._to_s - self._from_s) * inside_s / self._spacing_s

    def _drawn_s(self, knot: int) -> float:
        return self._jitter_s * (2 * random.Random(f"{self._seed}/{knot}").random() - 1)
