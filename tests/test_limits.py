"""The limits that docs/reference/limits.md lists are those of the code."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from midstream_wire import limits

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(
    r"^\| [^|]+ \| `([\w.]+)` \| ([^|]+) \|",
    (ROOT / "docs/reference/limits.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
UNITS = {
    "": 1.0,
    "s": 1.0,
    "bytes": 1.0,
    "MB": 1e6,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}


def value_of(name: str) -> Any:
    """The constant, or the default of a dataclass's field, that a dotted name stands for."""
    home, _, last = name.rpartition(".")
    parent, _, owner = home.rpartition(".")
    if owner[0].isupper():
        defaults = getattr(importlib.import_module(parent), owner)()
        return getattr(defaults, last)
    return getattr(importlib.import_module(home), last)


@pytest.mark.parametrize(("name", "told"), ROWS, ids=[name for name, _ in ROWS])
def test_limit_has_the_value_that_the_page_tells(name: str, told: str) -> None:
    number, _, unit = told.partition(" ")
    exact = int(number.replace(",", ""))
    if unit == "%":
        assert value_of(name) == pytest.approx(exact / 100)
    else:
        assert value_of(name) == exact * UNITS[unit]


def test_every_bound_of_the_wire_is_told() -> None:
    tree = ast.parse(Path(limits.__file__).read_text(encoding="utf-8"))
    assigned = (node.target for node in tree.body if isinstance(node, ast.AnnAssign))
    bounds = {
        f"{limits.__name__}.{each.id}"
        for each in assigned
        if isinstance(each, ast.Name) and each.id.startswith(("MAX_", "MIN_"))
    }
    assert bounds
    assert bounds <= {name for name, _ in ROWS}


def test_no_limit_is_told_twice() -> None:
    names = [name for name, _ in ROWS]
    assert sorted(set(names)) == sorted(names)
