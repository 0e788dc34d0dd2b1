"""Arrays out of .npy and .npz files, whose sizes are known and bounded before they are read.

A header of 100 bytes may claim exabytes, and an archive of a kilobyte may unfold to gigabytes
(numpy takes the memory first): https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from midstream_partitioner.machine import usable_memory_nbytes
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

#: What an .npy's array is called, as in an .npz that was given none.
ONLY = "arr_0"

#: Share of this machine's memory that one file's arrays may take.
_MEMORY_SHARE = 0.5

_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[Any, ...]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # the same, but for names of fields
}


def load_arrays(path: Path, *, only: str | None = None) -> dict[str, Array]:
    """Return the arrays of an .npz by name, or that of an .npy as `ONLY`.

    Of an .npz, `only` names the one that is wanted; what is not there is left out. Raises
    `UsageError` where there is no such file, it holds anything but plain numbers and text, or
    its arrays would take more than half of this machine's memory.
    """
    try:
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            if not zipped:
                return {ONLY: _read(file, path.stat().st_size, path)}
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, path, only)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        raise UsageError(
            f"{path} must be an .npz or .npy of plain numbers ({error})"
        ) from None


def _read_archive(archive: zipfile.ZipFile, path: Path, only: str | None) -> dict[str, Array]:
    entries = {
        each.filename.removesuffix(".npy"): each
        for each in archive.infolist()
        if only is None or each.filename == f"{only}.npy"
    }
    _check_room(sum(each.file_size for each in entries.values()), path)
    found: dict[str, Array] = {}
    for name, entry in entries.items():
        with archive.open(entry) as member:
            found[name] = _read(member, entry.file_size, path)
    return found


def _read(file: IO[bytes], file_nbytes: int, path: Path) -> Array:
    """The array in the `file_nbytes` of `file`, if they are as many as its header says."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format has version {version}")
    shape, _, dtype = _HEADERS[version](file)
    nbytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if nbytes > file_nbytes - file.tell():
        raise ValueError(f"its array would take {nbytes} bytes, and fewer are there")
    _check_room(nbytes, path)
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _check_room(nbytes: int, path: Path) -> None:
    most_nbytes = int(_MEMORY_SHARE * usable_memory_nbytes())
    if nbytes > most_nbytes:
        raise UsageError(
            "arrays may take at most half of this machine's memory, "
            f"{most_nbytes / 2**30:.3g} GiB; those of {path} would take "
            f"{nbytes / 2**30:.3g} GiB: give fewer samples"
        )
