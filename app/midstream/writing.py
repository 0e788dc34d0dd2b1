"""Answers written to files while they come: .jsonl, .npz, or a folder.

Whatever ends the run, what is in the files by then can be read: a line is whole, an archive
has its directory, a file of a folder appears under its name when it is complete.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final
from urllib.parse import quote

import numpy as np

from midstream_partitioner.places import check_file
from midstream_partitioner.python_names import import_function
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

#: The lines of a folder, one for every answer.
INDEX = "answers.jsonl"
#: What names keep beside letters and digits; a slash must not lead out of a folder.
_SAFE = " []()+,@:"
#: What an archive's directory takes for an entry beside its name, and for its end.
_ENTRY_NBYTES = 128
#: Letters of an input's name that the name of its file keeps.
_NAME_LETTERS = 80


@final
@dataclass(frozen=True, slots=True)
class Written:
    """One answer as it is written: what is said of it, and its arrays by name."""

    number: int
    line: Mapping[str, Any]
    arrays: Mapping[str, Array]


class Sink(Protocol):
    """A writer of answers, one after the other; raises `OSError` where there is no room."""

    def take(self, answer: Written) -> None: ...


def check_sink(path: Path) -> None:
    """Raise `UsageError` where no answers can be written, before any work is done for them."""
    if path.is_dir():
        if any(path.iterdir()):
            raise UsageError(
                f"--output must be a new or an empty folder, and {path} holds other things: "
                "name another, or empty it"
            )
    elif path.suffix.lower() not in _KINDS:
        raise UsageError(
            f"--output must end in .jsonl or .npz, or name a folder (not {path.name!r})"
        )
    else:
        check_file(path)


@contextmanager
def opened_sink(path: Path) -> Iterator[Sink]:
    """Open what `path` names: .jsonl, .npz, or a folder that is new or empty.

    Raises `UsageError` where it cannot be written, before any answer is computed.
    """
    check_sink(path)
    open_kind = _folder if path.is_dir() else _KINDS[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opening = open_kind(path)
        sink = opening.__enter__()
    except OSError as error:
        raise UsageError(
            f"--output must be a place that can be written (not {path}: {error.strerror})"
        ) from None
    try:
        yield sink
    finally:
        opening.__exit__(None, None, None)


@contextmanager
def _lines(path: Path) -> Iterator[Sink]:
    with _Whole(path, "w+b") as file:
        yield _Lines(file, with_arrays=True)


@contextmanager
def _archive(path: Path) -> Iterator[Sink]:
    partial = path.with_name(f"{path.name}.partial")
    with _Whole(partial, "w+b") as file:
        archive = _Archive(file)
        try:
            yield archive
        finally:
            archive.close()
            partial.replace(path)


@contextmanager
def _folder(path: Path) -> Iterator[Sink]:
    path.mkdir(exist_ok=True)
    with _Whole(path / INDEX, "w+b") as index:
        yield _Folder(path, _Lines(index, with_arrays=False))


#: How what a name ends in is opened; without an ending it is a folder's.
_KINDS = {".jsonl": _lines, ".npz": _archive, "": _folder}


@final
class _Whole(io.FileIO):
    """A file without a buffer, which writes all it is given or raises: a buffer would keep
    what there was no room for, and try to write it again for ever.
    """

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        nbytes = len(left)
        while left:
            left = left[super().write(left) or 0 :]
        return nbytes


@final
class _Lines:
    """A JSON line for every answer."""

    def __init__(self, file: _Whole, *, with_arrays: bool) -> None:
        self._file = file
        self._with_arrays = with_arrays

    def take(self, answer: Written) -> None:
        line = dict(answer.line)
        if self._with_arrays and "result" not in line:
            line["outputs"] = {name: array.tolist() for name, array in answer.arrays.items()}
        data = json.dumps(jsonable(line), allow_nan=False).encode() + b"\n"
        begin = self._file.tell()
        try:
            self._file.write(data)
        except BaseException:  # the disk is full, or Ctrl-C came: no half a line stays
            with suppress(OSError):
                self._file.truncate(begin)
            raise


@final
class _Archive:
    """A zip of .npy files, NUMBER/OUTPUT.npy, and the inputs' names, as numpy loads it."""

    def __init__(self, file: _Whole) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._names: list[str] = []
        self._full = False

    def take(self, answer: Written) -> None:
        for name, array in answer.arrays.items():
            self._add(f"{answer.number}/{quote(name, safe=_SAFE)}", array)
        self._names.append(str(answer.line["input"]))

    def close(self) -> None:
        """Write the names and the directory, which make it readable."""
        if self._full:
            self._make_room()
        else:
            with suppress(OSError):
                self._add("inputs", np.array(self._names, dtype=np.str_))
        self._file.truncate(self._zip.start_dir)
        self._zip.close()

    def _make_room(self) -> None:
        """Give up the last arrays, as many as the directory of the others takes."""
        entries, end = self._zip.filelist, self._zip.start_dir
        wanted_nbytes = sum(_ENTRY_NBYTES + 2 * len(each.filename) for each in entries)
        while entries and end - self._zip.start_dir < wanted_nbytes:
            self._zip.start_dir = entries.pop().header_offset

    def _add(self, name: str, array: Array) -> None:
        known, end = len(self._zip.filelist), self._zip.start_dir
        try:
            self._zip.writestr(f"{name}.npy", _npy(array))
        except BaseException as error:  # no half an entry may stand before the directory
            del self._zip.filelist[known:]
            self._zip.start_dir = end
            self._full = isinstance(error, OSError)  # and not Ctrl-C, which takes no room
            raise


def _npy(array: Array) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    return content.getvalue()


@final
class _Folder:
    """An .npz for every answer, and a line that says what it belongs to."""

    def __init__(self, path: Path, index: _Lines) -> None:
        self._path = path
        self._index = index

    def take(self, answer: Written) -> None:
        named = quote(str(answer.line["input"]), safe=_SAFE)[:_NAME_LETTERS]
        name = f"{answer.number:06d}-{named}.npz"
        partial = self._path / f".{name}.partial"
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
                for output, array in answer.arrays.items():
                    file.writestr(f"{quote(output, safe=_SAFE)}.npy", _npy(array))
            partial.replace(self._path / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._index.take(Written(answer.number, {**answer.line, "file": name}, {}))


def jsonable(value: Any) -> Any:
    """Return `value` with null for what is no number in JSON; arrays become lists."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    raise TypeError(f"a {type(value).__name__} is none of these")


@final
@dataclass(frozen=True, slots=True)
class Postprocess:
    """A user's function of an answer's outputs, arrays by name."""

    name: str
    function: Callable[..., Any]

    @staticmethod
    def named(name: str) -> Postprocess:
        """Import what python:module:function names; raises `UsageError`."""
        return Postprocess(name, import_function(name))

    def __call__(self, outputs: Mapping[str, Array], source: str) -> Any:
        """Return the function's result as plain values; `UsageError` for any other."""
        try:
            result = self.function(dict(outputs))
        except Exception as error:  # whatever the user's function raises
            raise UsageError(
                f"{self.name} must take the outputs of {source}, and raised "
                f"{type(error).__name__}: {error}"
            ) from None
        try:
            return jsonable(result)
        except TypeError as error:
            raise UsageError(
                f"{self.name} must return numbers, texts, arrays, or lists and dicts of them "
                f"({error})"
            ) from None
