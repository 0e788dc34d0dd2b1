"""The rate of one direction as a function of time: what holds now, and until when."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import final

from midstream_lab.emulation.model.spec import Rate, mean_bps


@final
class Rates:
    """A constant, or a trace from the moment it is started; until then, the trace's mean."""

    def __init__(self, rate: Rate) -> None:
        self._mean_bps = mean_bps(rate)
        self._origin_s: float | None = None
        self._edges_s: list[float] = []
        self._rates_bps: list[float] = []
        if not isinstance(rate, float | int):
            self._edges_s = [float(each) for each in rate.times_s]
            self._rates_bps = [float(each) for each in rate.rates_bps]

    def start(self, now_s: float) -> None:
        """Let the trace's time be 0 at `now_s`."""
        self._origin_s = now_s

    def at(self, now_s: float) -> tuple[float, float]:
        """Bits per second at a moment, and the moment until which they hold."""
        if self._origin_s is None or not self._edges_s:
            return self._mean_bps, math.inf
        duration_s = self._edges_s[-1]
        rounds, inside_s = divmod(max(0.0, now_s - self._origin_s), duration_s)
        step = min(bisect_right(self._edges_s, inside_s), len(self._rates_bps)) - 1
        begun_s = self._origin_s + rounds * duration_s
        until_s = begun_s + self._edges_s[step + 1]
        if until_s <= now_s:  # an edge that rounding put behind us: the step after it holds
            step = (step + 1) % len(self._rates_bps)
            length_s = self._edges_s[step + 1] - self._edges_s[step]
            until_s = max(math.nextafter(now_s, math.inf), until_s + length_s)
        return self._rates_bps[step], until_s
