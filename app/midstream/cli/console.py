"""What a command says: tables and sentences for people, one JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from midstream_partitioner.measure import Progress as OnProgress

#: Results go to standard output, everything else to standard error.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any]) -> None:
    """One document on standard output, nothing else beside it."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_json_line(document: Mapping[str, Any]) -> None:
    """One line of a stream of documents, at once."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


def table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """A table whose figures stand right and whose words (`left`) stand left."""
    made = Table(
        title=title, title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right")
    return made


@contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """A bar on standard error while something is measured, gone when it is done."""
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def ms(seconds: float) -> str:
    """Milliseconds for a table: three figures, never more than two decimals."""
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
