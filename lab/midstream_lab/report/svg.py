"""Drawing without a library: scales with sensible ticks, and SVG as text.

Colours are variables of the page's style sheet, so that one picture serves light, dark and
print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, final

Tick = tuple[float, str]
Kind = Literal["linear", "log", "root"]


def element(name: str, *content: str, **attributes: object) -> str:
    """One element; `content` is markup already, attributes are escaped (class_ is class)."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(content)}</{name}>"


def _written(value: object) -> str:
    """Coordinates to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def label(x: float, y: float, words: str, **attributes: object) -> str:
    return element("text", escape(words), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def path(points: Iterable[tuple[float, float]], **attributes: object) -> str:
    """A line through all points."""
    steps = " ".join(f"{_written(float(x))},{_written(float(y))}" for x, y in points)
    return element("polyline", points=steps, fill="none", **attributes)


def tooltip(words: str) -> str:
    """Return what a pointer that rests on the element around it is told."""
    return element("title", escape(words, quote=False))


def drawing(width: float, height: float, title: str, *content: str) -> str:
    """A whole picture; `title` is what it shows, for those who cannot see it."""
    return element(
        "svg",
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
        class_="chart",
        # Alone in its row it must not grow until its letters shout.
        style=f"max-width:{1.15 * width:g}px",
    )


@final
@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels: "linear", "log", or "root", which shows small shares beside large."""

    kind: Kind
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        warp = _WARPS[self.kind]
        value = max(value, self.low) if self.kind == "log" else value
        low, high = warp(self.low), warp(self.high)
        share = (warp(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def inside(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the scale, `most` at most."""
        if self.kind == "log":
            return _log_ticks(self.low, self.high, most)
        if self.kind == "root":
            round_ones = [0.0, *(m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5))]
            shown = [value for value in round_ones if self.inside(value)]
            return _spread(shown, self, least=30)
        return _linear_ticks(self.low, self.high, most)


def _signed_root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


_WARPS: dict[Kind, Callable[[float], float]] = {
    "linear": lambda value: value,
    "log": lambda value: math.log(max(value, 1e-300)),
    "root": _signed_root,
}


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [at * step for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them, or more, where few would fit."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) > most and found:
            break
        found = ticks or found
    return found


def _spread(values: Sequence[float], scale: Scale, *, least: float) -> list[float]:
    """Those of `values` with `least` pixels between them: zero, then larger ones first."""
    kept: list[float] = []
    for value in sorted(values, key=lambda value: (value != 0, -abs(value))):
        if all(abs(scale(value) - scale(other)) >= least for other in kept):
            kept.append(value)
    return sorted(kept)


def x_axis(scale: Scale, y: float, top: float, ticks: Sequence[Tick]) -> str:
    """Labels below `y` and faint lines from there up to `top`."""
    parts = []
    for value, words in ticks:
        x = scale(value)
        parts.append(line(x, top, x, y, class_="grid"))
        parts.append(label(x, y + 14, words, class_="tick", text_anchor="middle"))
    return element("g", *parts)


def y_axis(scale: Scale, x: float, right: float, ticks: Sequence[Tick]) -> str:
    """Labels left of `x` and faint lines from there to `right`."""
    parts = []
    for value, words in ticks:
        y = scale(value)
        parts.append(line(x, y, right, y, class_="grid"))
        parts.append(label(x - 6, y + 3.5, words, class_="tick", text_anchor="end"))
    return element("g", *parts)
