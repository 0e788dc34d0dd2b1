"""The page of all commands and their flags, as the command line itself has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from midstream.cli.command_table import COMMANDS, load

OPENING = """# Commands and flags

The build of this site makes this page from the command line itself; `midstream COMMAND --help`
says the same. [The command line](cli.md) has examples and the form of values,
[Errors](errors.md) the exit codes.
"""


def command_page() -> str:
    """Return the page as Markdown: a section a command, a table of its flags."""
    sections = (
        "\n".join(_section(name, command))
        for group in COMMANDS
        for name, command in _leaves(group, load(group))
    )
    return "\n".join((OPENING, *sections))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands that run, by their full names: a group's own, or the command itself."""
    if hasattr(command, "commands"):
        for last, each in command.commands.items():
            yield from _leaves(f"{name} {last}", each)
    else:
        yield name, command


def _section(name: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    records = (each.get_help_record(context) for each in command.params)
    rows = [record for record in records if record is not None]  # None: a hidden flag
    yield f"## midstream {name}\n"
    yield f"{_plain(command.help)}\n"
    if command.epilog:
        lines = (line.strip() for line in command.epilog.splitlines())
        yield from (f"    {line}" for line in lines if line.startswith("midstream "))
        yield ""
    if rows:
        yield "| argument or flag | meaning |\n|---|---|"
        yield from (f"| `{names}` | {_cell(meaning)} |" for names, meaning in rows)
        yield ""


def _cell(text: str) -> str:
    """Return `text` for a cell of a table, on one line."""
    return " ".join(_plain(text).split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return `text` without what Markdown would take for HTML, a link or emphasis."""
    for sign in "\\*_[<":
        text = text.replace(sign, f"\\{sign}")
    return text.strip()
