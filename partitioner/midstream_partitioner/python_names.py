"""Functions of a user's own, by name: python:module:function, or an installed package's word.

Names come from the command line and from files that a user runs; never from a peer.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from midstream_wire.errors import UsageError

#: Names a Python function where a file is expected: python:module:function.
PYTHON = "python:"


def import_function(name: str) -> Callable[..., Any]:
    """Return what python:module:function names; modules in the working directory are found,
    too.
    """
    module_name, colon, function_name = name.removeprefix(PYTHON).partition(":")
    if not (name.startswith(PYTHON) and colon and module_name and function_name):
        raise UsageError(f"a function must be named as python:module:function (not {name!r})")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # whatever the user's module raises
        raise UsageError(
            f"the module {module_name!r} of {name} must import "
            f"({type(error).__name__}: {error})"
        ) from None
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise UsageError(f"{module_name} must have a function {function_name} ({name})")
    function: Callable[..., Any] = found
    return function


def installed(group: str) -> Mapping[str, EntryPoint]:
    """Return what installed packages announce in a group of entry points, by name."""
    return {each.name: each for each in entry_points(group=group)}


def load_installed(what: str, entry: EntryPoint) -> Callable[..., Any]:
    """Return what an installed package announces; `what` says in errors what it is to be."""
    try:
        found = entry.load()
    except Exception as error:  # whatever the package raises
        raise UsageError(
            f"the {what} {entry.name!r} of an installed package must load "
            f"({type(error).__name__}: {error})"
        ) from None
    if not callable(found):
        raise UsageError(f"the {what} {entry.name!r} of an installed package must be callable")
    function: Callable[..., Any] = found
    return function
