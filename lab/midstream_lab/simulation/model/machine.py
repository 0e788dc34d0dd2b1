"""The speed of a simulated edge, and its placement where that is fixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Machine:
    """An edge's speed. `slowdown` stretches its profiled times; `sigma` spreads them (the
    standard deviation of their logarithms)."""

    slowdown: float = 1.0
    sigma: float = 0.0


AS_PROFILED = Machine()


@final
@dataclass(frozen=True, slots=True)
class FixedPlacement:
    """A plan that stays: a placement of the menu, and when to hedge it. The cheap way to
    simulate what never changes: nothing is decided and nothing learnt.
    """

    placement: int
    hedge_after_s: float | None = None
