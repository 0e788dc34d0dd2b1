"""Rate limits on what costs a peer next to nothing: a burst, then a steady rate."""

from __future__ import annotations

from collections import OrderedDict
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


#: Peers whose rations are kept; of more, those that spent longest ago are forgotten.
MAX_PEERS = 1024


@final
class Rations:
    """A ration for each peer that has spent anything, for calls that have no session."""

    def __init__(self, *, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._until_s: dict[str, float] = {}
        self._rations: OrderedDict[str, Ration] = OrderedDict()

    def wait_s(self, peer: str, now_s: float) -> float:
        """Return for how long `peer` has to be held up, at `now_s`."""
        return max(0.0, self._until_s.get(peer, now_s) - now_s)

    def spend(self, peer: str, cost: float, now_s: float) -> None:
        """Charge `cost` to `peer`."""
        ration = self._rations.pop(peer, None)
        if ration is None:
            ration = Ration(burst=self._burst, rate=self._rate, now_s=now_s)
        self._rations[peer] = ration
        self._until_s[peer] = ration.spend(cost, now_s)
        while len(self._rations) > MAX_PEERS:
            forgotten, _ = self._rations.popitem(last=False)
            del self._until_s[forgotten]
