"""Sizes that people give: one for a dimension, or several that costs are measured at.

`--size seq=128` fixes a dimension. `--size seq=8..512`, or several `--size`, span it: costs
are measured at a few buckets between, and interpolated (`curves.py`). Dimensions that always
have one size together are tied with another "=": `--size ids:1=mask:1=8..512`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TypeGuard

from midstream_partitioner.costs.sizes import Sizes
from midstream_wire.errors import UsageError

#: A dimension's name, or several tied by "=", and its size or sizes, by name.
Spans = tuple[tuple[str, int | tuple[int, ...]], ...]

#: No dimension is larger; keeps a typing error from asking for all memory.
MAX_SIZE = 1 << 31

#: Buckets that a range is measured at, and that all dimensions make together: each takes as
#: long to profile as a network without open dimensions does.
MOST_IN_RANGE, MOST_BUCKETS = 7, 16

#: Sizes that may be given for one dimension.
_MOST_GIVEN = 64


def parse_sizes(texts: Iterable[str]) -> Spans:
    """Read NAME=N and NAME=LOW..HIGH, several with commas between; raises `UsageError`.

    A name that comes again adds sizes to its dimension.
    """
    found: dict[str, list[int]] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, size = part.strip().rpartition("=")
        sizes = _parsed(size)
        if not name or not sizes:
            raise UsageError(
                "--size must be a dimension's name and a whole number or a range (not "
                f"{part!r}): write --size height=480,width=640, or --size seq=8..512"
            )
        found.setdefault(name, []).extend(sizes)
    return checked_sizes(found)


def checked_sizes(sizes: Mapping[str, object]) -> Spans:
    """`sizes` by name: whole numbers, lists of them, or ranges as text ("8..512").

    Raises `UsageError` unless a dimension may have them.
    """
    found: dict[str, int | tuple[int, ...]] = {}
    for name, given in sizes.items():
        values = _parsed(given) if isinstance(given, str) else given
        listed = list(values) if isinstance(values, (list, tuple)) else [values]
        distinct = sorted({size for size in listed if _is_size(size)})
        if not distinct or len(listed) > _MOST_GIVEN or not all(map(_is_size, listed)):
            raise UsageError(
                f"the size of {name} must be a whole number from 0 to {MAX_SIZE}, a list of "
                f'them, or a range such as "8..512" (not {given!r}): give the sizes that '
                "inputs usually have"
            )
        found[name] = tuple(distinct) if len(distinct) > 1 else distinct[0]
    return tuple(sorted(found.items()))


def nominal_sizes(spans: Spans) -> Sizes:
    """One size for each dimension: of several the middle one, the larger of two."""
    return _bound((name, _values(sizes)[len(_values(sizes)) // 2]) for name, sizes in spans)


def several(spans: Spans) -> Spans:
    """Those of `spans` that give more than one size."""
    return tuple((name, sizes) for name, sizes in spans if not isinstance(sizes, int))


def buckets(spans: Spans) -> tuple[Sizes, ...]:
    """The bindings that costs are measured at: every combination, `MOST_BUCKETS` at most.

    Where there are more, each dimension keeps its ends and fewer sizes between them.
    """
    names = [name for name, _ in spans]
    lists = [_values(sizes) for _, sizes in spans]
    most = max(map(len, lists), default=1)
    while math.prod(map(len, lists)) > MOST_BUCKETS and most > 1:
        most -= 1
        lists = [_thinned(values, most) for values in lists]
    return tuple(_bound(zip(names, values, strict=True)) for values in product(*lists))


def tied_names(spans: Spans) -> tuple[str, ...]:
    """The names of all dimensions, tied ones one by one."""
    return tuple(each for name, _ in spans for each in name.split("="))


def _bound(sizes: Iterable[tuple[str, int]]) -> Sizes:
    return tuple(sorted((each, size) for name, size in sizes for each in name.split("=")))


def _parsed(text: str) -> list[int]:
    """One size, or those that stand for a range; [] for what is neither."""
    low, dots, high = text.partition("..")
    if not _is_number(low) or (dots and not _is_number(high)):
        return []
    if not dots:
        return [int(low)]
    return _geometric(int(low), int(high)) if int(low) < int(high) <= MAX_SIZE else []


def _geometric(low: int, high: int) -> list[int]:
    """Sizes from `low` to `high`, each 2, 4, 8, ... times the one before."""
    first = max(low, 1)
    step = max(1, math.ceil(math.log2(max(high / first, 1)) / (MOST_IN_RANGE - 1)))
    between = [first << at for at in range(0, 64, step) if (first << at) * 4 <= high * 3]
    return sorted({low, *between, high})


def _values(sizes: int | tuple[int, ...]) -> Sequence[int]:
    return (sizes,) if isinstance(sizes, int) else sizes


def _thinned(values: Sequence[int], most: int) -> Sequence[int]:
    if len(values) <= most:
        return values
    if most == 1:
        return values[len(values) // 2 :][:1]
    last = len(values) - 1
    return [values[round(at * last / (most - 1))] for at in range(most)]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE
