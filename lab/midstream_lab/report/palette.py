"""Colours and dashes of policies and placements, alike in every picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from midstream_lab.results.comparison import BEST_FIXED, ORACLE, RACE, is_fixed

Rgb = tuple[int, int, int]

#: Variables of the style sheet, which has them for light and for dark pages.
_NAMED: Mapping[str, str] = {
    ORACLE: "--oracle",
    "adaptive": "--chief",
    RACE: "--race",
    BEST_FIXED: "--best-fixed",
    "edge-only": "--edge",
}
_CYCLE = tuple(f"--policy-{number}" for number in range(7))
_DASHES: Mapping[str, str] = {ORACLE: "6 3", BEST_FIXED: "2 2.5"}

#: From all on the edge (blue) to all in the cloud (green), readable on light and dark pages;
#: after the colour-blind safe scales of Paul Tol.
_RAMP: tuple[Rgb, ...] = ((74, 112, 190), (152, 116, 190), (214, 140, 70), (64, 150, 96))


@final
@dataclass(frozen=True, slots=True)
class Look:
    """The look of a policy in pictures."""

    colour: str
    dash: str | None
    width: float


def looks(policies: Iterable[str]) -> dict[str, Look]:
    """A look for every policy; those that matter most stand out."""
    made: dict[str, Look] = {}
    cycle = 0
    for policy in policies:
        variable = _NAMED.get(policy)
        if variable is None:
            variable = _CYCLE[cycle % len(_CYCLE)]
            cycle += 1
        wide = 2.4 if policy == "adaptive" else 1.8 if policy in _NAMED else 1.3
        dash = _DASHES.get(policy, "4 2" if is_fixed(policy) else None)
        made[policy] = Look(f"var({variable})", dash, wide)
    return made


def placement_colours(placements: Iterable[str]) -> dict[str, str]:
    """Colours for placements that come from the edge's end to the cloud's."""
    listed = list(placements)
    last = max(len(listed) - 1, 1)
    return {each: _ramp(at / last) for at, each in enumerate(listed)}


def _ramp(share: float) -> str:
    at = share * (len(_RAMP) - 1)
    first = min(int(at), len(_RAMP) - 2)
    rest = at - first
    mixed = (
        round(low + rest * (high - low))
        for low, high in zip(_RAMP[first], _RAMP[first + 1], strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)
