"""A sweep's points in a folder, kept as they are found, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, final

from pydantic import TypeAdapter, ValidationError

from midstream_lab.results.run_files import whole
from midstream_lab.simulation.sweep.sweep import AXES, METHOD, Found, Task
from midstream_wire.errors import UsageError

POINTS = "points.jsonl"
#: A sweep's points are of one version of what makes them: numpy's draws may change as well.
PACKAGES = ("midstream", "numpy")
#: A line is some 400 bytes long; whatever is longer than this is no point's.
MOST_LINE_NBYTES = 1 << 16

_FOUND = TypeAdapter(Found)
_TIMES = ("mean_s", "p95_s", "edge_only_s", "cloud_only_s", "gain")


@final
class Store:
    """The points that are done, a line each in `FOLDER/points.jsonl`.

    The first line says what was asked, by digest, and of which versions. A file with points of
    another question, or with anything but points, raises `UsageError`; one without points is
    replaced. Of a line that was being written when it all ended nothing is kept. Whoever opens
    a store has the folder for itself (`locked`).
    """

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        self._path = folder / POINTS
        self._tasks = tasks
        self._placements = {(each.cut, each.codec) for each in tasks[0].menu.placements}
        self._header = header(tasks)
        self.done: dict[int, Found] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._lines() if self._path.exists() else []
        if lines:
            self._check(lines[0], empty=len(lines) == 1)
        for number, line in enumerate(lines[1:], 2):
            self._take(number, line)
        if self.done:
            os.truncate(self._path, sum(map(len, lines)))
        else:
            with whole(self._path, "w") as file:
                file.write(json.dumps(self._header) + "\n")

    @property
    def missing(self) -> list[int]:
        """Numbers of the points that are still to do."""
        return [at for at in range(len(self._tasks)) if at not in self.done]

    def add(self, at: int, found: Found) -> None:
        """Keep the point of that number."""
        self.done[at] = found
        line = json.dumps({"at": at, **found.to_dict()}, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def results(self) -> list[Found]:
        """All points in the grid's order."""
        return [self.done[at] for at in range(len(self._tasks))]

    def _lines(self) -> list[bytes]:
        """The file's whole lines, without what is behind the last of them."""
        lines: list[bytes] = []
        with self._path.open("rb") as file:
            while line := file.readline(MOST_LINE_NBYTES):
                if line.endswith(b"\n"):
                    lines.append(line)
                elif len(line) == MOST_LINE_NBYTES or not lines:
                    self._refuse(len(lines) + 1, "it has no end")
        return lines

    def _check(self, line: bytes, *, empty: bool) -> None:
        found = self._document(1, line)
        if "asked" not in found:
            self._refuse(1, "it does not say what was asked")
        if found != self._header and not empty:
            versions = [f"{name} {found.get(name, 'older')}" for name in PACKAGES]
            same = all(found.get(name) == self._header[name] for name in PACKAGES)
            other = "of another grid, menu or seed" if same else f"by {', '.join(versions)}"
            raise UsageError(
                f"a folder must hold one sweep by one version ({self._path} is {other}): take "
                "another folder, or remove the file"
            )

    def _take(self, number: int, line: bytes) -> None:
        document = self._document(number, line)
        try:
            at = document.pop("at")
            point = {name: document.pop(name) for name in AXES}
            text = json.dumps({"point": point, **document})
            found = _FOUND.validate_json(text, strict=True)
            task = self._tasks[at] if isinstance(at, int) and at >= 0 else None
        except (KeyError, IndexError):
            self._refuse(number, "it is none of this grid's")
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            self._refuse(number, f"{where}: {first['msg']}")
        numbers = (getattr(found, name) for name in _TIMES)
        if not all(math.isfinite(each) for each in numbers if each is not None):
            self._refuse(number, "its times must be finite")
        placement = (found.cut, found.codec)
        if task is None or found.point != task.point or placement not in self._placements:
            self._refuse(number, "it is none of this grid's")
        self.done[at] = found

    def _document(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            self._refuse(number, "it is no JSON")
        if not isinstance(document, dict):
            self._refuse(number, f"it is a {type(document).__name__}")
        return document

    def _refuse(self, number: int, why: str) -> NoReturn:
        raise UsageError(
            f"every line of {self._path} must be a point of a sweep, and line {number} is not "
            f"({why}): remove the file and sweep again, or take another folder"
        )


def header(tasks: Sequence[Task]) -> dict[str, str]:
    """Return what a sweep depends on: the question, as a digest, and who answers it."""
    first = tasks[0]
    question = {
        "points": [asdict(task.point) for task in tasks],
        "menu": [asdict(placement) for placement in first.menu.placements],
        "machine": asdict(first.machine),
        "seed": first.seed,
        "method": METHOD,
    }
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    return {"asked": digest} | {name: metadata.version(name) for name in PACKAGES}
