"""Detection of a CSV's time and rate columns, by names that end in units."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from midstream_partitioner.units import parse_duration, parse_rate
from midstream_wire.errors import UsageError

_BRACKETED = re.compile(r"^(.*?)[\s_]*[\[(]\s*([^\])]+?)\s*[\])]$")
_DELIMITERS = ",;\t"
_MOST_LISTED = 200


@final
@dataclass(frozen=True, slots=True)
class Column:
    """The place of a quantity in a row, and its factor to seconds or bits per second."""

    index: int
    factor: float


def split_line(line: str) -> list[str]:
    """Cells of a row, divided by the first of comma, semicolon, tab it has, or by blanks."""
    delimiter = next((each for each in _DELIMITERS if each in line), None)
    return [cell.strip().strip('"').strip() for cell in line.split(delimiter)]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def find_columns(
    names: Sequence[str], time: str | None, rate: str | None, *, where: str
) -> tuple[Column, Column]:
    """The columns of time and rate under a header of `names`.

    `time` and `rate` are what a user said: "NAME" or "NAME:UNIT". Raises `UsageError` if there
    is none, more than one, or no unit.
    """
    found = (
        _find(names, time, parse_duration, ("time", "s, ms, us, min or h", "time_s", where)),
        _find(names, rate, parse_rate, ("rate", "bit, kbit, Mbit or Gbit", "rate_bps", where)),
    )
    if found[0].index == found[1].index:
        raise UsageError(f"time and rate must be two columns ({where}: {_listed(names)})")
    return found


def _find(
    names: Sequence[str],
    asked: str | None,
    parse: Callable[[str], float],
    words: tuple[str, str, str, str],
) -> Column:
    what, units, example, where = words
    units_found = [_unit_factor(name, parse) for name in names]
    if asked is None:
        with_unit = [at for at, factor in enumerate(units_found) if factor is not None]
        if len(with_unit) == 1:
            return Column(with_unit[0], units_found[with_unit[0]] or 0.0)
        count = "several" if with_unit else "none"
        raise UsageError(
            f"one column must be the {what}, with a unit in its name such as {example} "
            f"({where} has {count}: {_listed(names)}): name it with --{what}-column"
        )
    name, colon, unit = asked.partition(":")
    if asked in names:  # the whole of it may be a name
        name, colon, unit = asked, "", ""
    if name not in names:
        raise UsageError(
            f"--{what}-column must be one of {_listed(names)} (not {name!r}; {where})"
        )
    at = list(names).index(name)
    factor = _factor(unit, parse) if colon else units_found[at]
    if factor is None:
        raise UsageError(
            f"column {name!r} needs a unit of {units} ({where}): write "
            f"--{what}-column '{name}:UNIT'"
        )
    return Column(at, factor)


def _listed(names: Sequence[str]) -> str:
    """A header's names; of what is no table, a line's beginning."""
    text = ", ".join(names)
    return text if len(text) <= _MOST_LISTED else f"{text[: _MOST_LISTED - 3]}..."


def _unit_factor(name: str, parse: Callable[[str], float]) -> float | None:
    """Return what the unit at the end of a column's name makes of its figures; None without
    one.
    """
    bracketed = _BRACKETED.match(name)
    if bracketed:
        return _factor(bracketed[2], parse)
    factor = _factor(re.split(r"[\s_]", name)[-1], parse)
    return factor if factor is not None else _factor(name, parse)


def _factor(unit: str, parse: Callable[[str], float]) -> float | None:
    try:
        return parse(f"1 {unit}")
    except UsageError:
        return None
