"""Arrivals of requests: streams of moments, each a function of the one before.

Every process gives the moment of the next request after `now_s`; a closed loop sends the next
one when the last is answered, and so has none by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_wire.errors import UsageError

DAY_S = 86_400.0


@final
@dataclass(frozen=True, slots=True)
class Closed:
    """The next request `think_s` after the answer to the last one."""

    think_s: float = 0.0

    def __post_init__(self) -> None:
        _check("think_s", self.think_s, least=0.0)


@final
@dataclass(frozen=True, slots=True)
class Every:
    """A camera: one each `every_s`, the first at a random point of the first period."""

    every_s: float

    def __post_init__(self) -> None:
        _check("every_s", self.every_s)

    @property
    def mean_hz(self) -> float:
        return 1 / self.every_s

    def first_s(self, draws: Draws) -> float:
        return draws.uniform() * self.every_s

    def next_s(self, now_s: float, draws: Draws) -> float:
        return now_s + self.every_s


@final
@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent requests, `rate_hz` a second in the mean."""

    rate_hz: float

    def __post_init__(self) -> None:
        _check("rate_hz", self.rate_hz)

    @property
    def mean_hz(self) -> float:
        return self.rate_hz

    def first_s(self, draws: Draws) -> float:
        return self.next_s(0.0, draws)

    def next_s(self, now_s: float, draws: Draws) -> float:
        return now_s + draws.exponential(1 / self.rate_hz)


@final
@dataclass(frozen=True, slots=True)
class Bursts:
    """Poisson at `rate_hz` for about `on_s`, nothing for about `off_s`, in turn (both
    exponential): an interrupted Poisson process (Kuczura, Bell System Tech. J. 52, 1973)."""

    rate_hz: float
    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        for name in ("rate_hz", "on_s", "off_s"):
            _check(name, getattr(self, name))

    @property
    def mean_hz(self) -> float:
        return self.rate_hz * self.on_s / (self.on_s + self.off_s)

    def first_s(self, draws: Draws) -> float:
        asleep = draws.uniform() < self.off_s / (self.on_s + self.off_s)
        return self.next_s(draws.exponential(self.off_s) if asleep else 0.0, draws)

    def next_s(self, now_s: float, draws: Draws) -> float:
        """Without memory, so whether the burst ends before the next request is drawn anew."""
        while True:
            gap_s, left_s = draws.exponential(1 / self.rate_hz), draws.exponential(self.on_s)
            if gap_s <= left_s:
                return now_s + gap_s
            now_s += left_s + draws.exponential(self.off_s)


@final
@dataclass(frozen=True, slots=True)
class Diurnal:
    """Poisson whose rate swings by `swing` (a share of `rate_hz`) over `period_s`, least at
    the beginning (thinning: Lewis and Shedler, Naval Research Logistics 26, 1979)."""

    rate_hz: float
    swing: float = 0.8
    period_s: float = DAY_S

    def __post_init__(self) -> None:
        _check("rate_hz", self.rate_hz)
        _check("period_s", self.period_s)
        if not 0 <= self.swing <= 1:
            raise UsageError(f"a swing must be a share from 0 to 1 (not {self.swing!r})")

    @property
    def mean_hz(self) -> float:
        return self.rate_hz

    def first_s(self, draws: Draws) -> float:
        return self.next_s(0.0, draws)

    def next_s(self, now_s: float, draws: Draws) -> float:
        most_hz = self.rate_hz * (1 + self.swing)
        while True:
            now_s += draws.exponential(1 / most_hz)
            turn = math.cos(2 * math.pi * now_s / self.period_s)
            if draws.uniform() * most_hz < self.rate_hz * (1 - self.swing * turn):
                return now_s


Open = Every | Poisson | Bursts | Diurnal
Arrivals = Closed | Open


def _check(name: str, value: float, *, least: float | None = None) -> None:
    good = value > 0 if least is None else value >= least
    if not (good and value < math.inf):
        bound = "above zero" if least is None else f"from {least:g} up"
        raise UsageError(f"{name} of arrivals must be finite and {bound} (not {value!r})")
