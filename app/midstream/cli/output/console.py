"""Output of a command: tables and sentences for people, JSON for machines."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from midstream_wire.foreign_text import harmless

if TYPE_CHECKING:
    from midstream_partitioner.profiling.profiler import Progress as OnProgress


@final
class _Terminal(Console):
    """Prints words of networks, files and peers as they are, and lets none command it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text` for a terminal, its control characters as escapes."""
        return super().render_str(harmless(text), **options)


#: Results go to standard output, everything else to standard error. Names of layers and
#: tensors are printed as they are, brackets included.
out = _Terminal()
err = _Terminal(stderr=True)


#: Longer names burst a table.
NAME_LETTERS = 48


#: What is to be said behind the results.
_NOTES: list[str] = []


def note(sentence: str) -> None:
    """Keep what readers of the results must know, until these are there."""
    if sentence not in _NOTES:
        _NOTES.append(sentence)


def say_notes() -> None:
    """Say on standard error what was kept, each once: at the end of what went well."""
    while _NOTES:
        say(_NOTES.pop(0), to=err, style="dim")


def print_json(document: Mapping[str, Any]) -> None:
    """One document on standard output, nothing else beside it."""
    _write(json.dumps(_finite(document), indent=2, allow_nan=False))


def print_json_line(document: Mapping[str, Any]) -> None:
    """One line of a stream of documents, at once."""
    _write(json.dumps(_finite(document), allow_nan=False))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    """`value` with null for what is no number in JSON: a user's network may well give NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def examples(*commands: str) -> str:
    """The end of a command's --help: lines that can be copied."""
    return "\n\n".join(["Examples:", *(f"  {command}" for command in commands)])


@final
class Rows(Table):
    """A table whose texts are in letters that the output has before it is laid out."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row; its texts are `printable`."""
        told = (printable(each) if isinstance(each, str) else each for each in cells)
        super().add_row(*told, **options)


def table(title: str, *columns: str, left: Sequence[str] = ()) -> Rows:
    """A table whose figures stand right and whose words (`left`) stand left."""
    made = Rows(
        title=printable(title),
        title_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right")
    return made


def printable(text: str) -> str:
    """Return `text` with an escape for each letter that the output lacks, or does not print.

    A name out of a file may hold line feeds and a terminal's commands.
    """
    return "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return letter.encode(encoding, "backslashreplace").decode(encoding)
    return letter.encode("unicode_escape").decode("ascii")


def elided(name: str) -> str:
    """Return a name for a table, a long one without its middle (`--json` has all of it).

    Escapes are counted as they are printed, and stay whole.
    """
    letters = list(map(_escaped, name))
    if sum(map(len, letters)) <= NAME_LETTERS:
        return "".join(letters)
    kept = NAME_LETTERS - 3
    return f"{_first(letters, kept // 2)}...{_first(letters, kept - kept // 2, last=True)}"


def _first(letters: Sequence[str], room: int, *, last: bool = False) -> str:
    """As many of the first, or of the last, `letters` as there is room for."""
    ordered = letters[::-1] if last else letters
    ends = itertools.accumulate(map(len, ordered))
    count = sum(end <= room for end in ends)
    return "".join(letters[len(letters) - count :] if last else letters[:count])


def show(rows: Rows) -> None:
    """Print a table at its own width.

    A narrow terminal breaks its lines, and a pipe has no width; squeezed to 80 columns, a plan
    would lose its figures.
    """
    free = out.options.update(max_width=10_000)
    width = max(out.width, Measurement.get(out, free, rows).maximum)
    _Terminal(width=width).print(rows, crop=False)


def say(sentence: str, *, to: Console = out, style: str | None = None) -> None:
    """Print a sentence; where there is no terminal to fill, in one line."""
    to.print(sentence, style=style, soft_wrap=not to.is_terminal)


@contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """A bar on the terminal while something is measured, gone when it is done.

    Where standard error is no terminal, nothing: a log has no use for a bar.
    """
    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn())
    hidden = not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def ms(seconds: float) -> str:
    """Milliseconds for a table: three figures, never more than two decimals."""
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
