"""Codecs of a user's own, loaded by the names that the user gives.

Only command lines, scenario files and programs name them, never a peer.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from midstream_partitioner.python_names import (
    PYTHON,
    import_function,
    installed,
    load_installed,
)
from midstream_wire.codecs import load_codec
from midstream_wire.errors import UsageError

#: Where installed packages announce codecs of their own, by name.
ENTRY_POINTS = "midstream.codecs"


def load_codecs(names: Iterable[str]) -> tuple[str, ...]:
    """Load what `names` name; return the ids of the codecs with their default settings.

    A name is python:MODULE:NAME, or one that an installed package announces; what it names is
    called with a setting and returns a codec. Raises UsageError for what is none.
    """
    found = []
    for name in names:
        if name.startswith(PYTHON):
            make = import_function(name)
        elif name in (announced := installed(ENTRY_POINTS)):
            make = load_installed("codec", announced[name])
        else:
            close = get_close_matches(name, announced, n=1)
            hint = f": did you mean {close[0]}?" if close else ": install its package"
            raise UsageError(
                "a codec of your own must be named as python:MODULE:NAME, or be announced by "
                f"an installed package (not {name!r}){hint}"
            )
        found.append(load_codec(make).id)
    return tuple(found)


def plugin_flags(names: Iterable[str]) -> list[str]:
    """Return the flags by which another process loads the same."""
    return [word for name in names for word in ("--codec-plugin", name)]
