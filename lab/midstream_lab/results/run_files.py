"""Files of runs: one document a run, tables of many."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, final

from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from midstream_lab.results.rows import (
    COLUMN_KINDS,
    STRICT,
    Facts,
    Kind,
    Rows,
    RunKey,
    RunResult,
    column_array,
)
from midstream_wire.errors import UsageError

FORMAT = 1


@final
@checked_dataclass(frozen=True, config=STRICT)
class _Document:
    """A run's file."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    key: RunKey
    facts: Facts
    columns: dict[str, list[Any]]


_DOCUMENT = TypeAdapter(_Document)


def save_run(result: RunResult, folder: Path) -> Path:
    """Write the run's file into `folder`, whole or not at all."""
    columns = {name: _plain(column) for name, column in result.rows.columns.items()}
    content = _DOCUMENT.dump_json(_Document(FORMAT, result.key, result.facts, columns))
    path = folder / result.key.filename
    with whole(path, "wb") as file:
        file.write(gzip.compress(content, compresslevel=6, mtime=0))
    return path


def _plain(column: NDArray[Any]) -> list[Any]:
    """JSON's values: what is no number is null."""
    if column.dtype.kind != "f":
        return list(column.tolist())
    return [value if math.isfinite(value) else None for value in column.tolist()]


def load_run(path: Path) -> RunResult:
    """Read a run's file; `UsageError` says what to do where it is none."""
    try:
        found = _DOCUMENT.validate_json(gzip.decompress(path.read_bytes()))
        lengths = {name: len(found.columns.get(name, ())) for name in COLUMN_KINDS}
        if len(set(lengths.values())) != 1:
            raise UsageError("its columns must all be there and equally long")
    except (ValidationError, UsageError, EOFError, OSError, ValueError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"{path} must be a run that this version wrote ({first}): remove it, and it is "
            "run again"
        ) from None
    columns = {
        name: column_array(kind, found.columns[name]) for name, kind in COLUMN_KINDS.items()
    }
    return RunResult(found.key, found.facts, Rows(columns))


def load_runs(folder: Path) -> Iterator[RunResult]:
    """All finished runs in `folder`, by name."""
    for path in sorted(folder.glob("*.json.gz")):
        yield load_run(path)


def write_table(results: Iterable[RunResult], path: Path) -> None:
    """All requests of all runs as CSV, compressed where the name ends in .gz."""
    with whole(path, "wb") as raw:
        packs = path.suffix == ".gz"
        file = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if packs else raw
        with io.TextIOWrapper(file, "utf-8", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(["model", "trace", "policy", "seed", *COLUMN_KINDS])
            for each in results:
                key = (each.key.model, each.key.trace, each.key.policy, each.key.seed)
                columns = [
                    _cells(each.rows[name], COLUMN_KINDS[name]) for name in COLUMN_KINDS
                ]
                writer.writerows((*key, *row) for row in zip(*columns, strict=True))


def _cells(column: NDArray[Any], kind: Kind) -> Iterable[object]:
    if kind == "number":
        return ("" if math.isnan(value) else f"{value:.9g}" for value in column.tolist())
    if kind == "flag":
        return (int(value) for value in column.tolist())
    return list(column.tolist())


@contextmanager
def whole(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    """A file that takes its name only once all of it is written and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
