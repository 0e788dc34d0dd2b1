"""What a peer may ask for that costs it next to nothing: so much at once, then at a rate."""

from __future__ import annotations

from typing import final


@final
class Ration:
    """An allowance of `burst` that refills at `rate` a second, both in the unit of the costs.

    Who spends more is not refused but held up, until what was spent has been earned.
    """

    __slots__ = ("_at_s", "_burst", "_left", "_rate")

    def __init__(self, *, burst: float, rate: float, now_s: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._at_s = now_s

    def spend(self, cost: float, now_s: float) -> float:
        """Spend `cost` at `now_s`; returns from when on more may be asked for."""
        earned = self._rate * max(0.0, now_s - self._at_s)
        self._left = min(self._burst, self._left + earned) - cost
        self._at_s = now_s
        return now_s if self._left >= 0 else now_s - self._left / self._rate
