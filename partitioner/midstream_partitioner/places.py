"""Places that results go to, looked at before any work is done for them."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from midstream_wire.errors import UsageError


def check_file(path: Path) -> Path:
    """Return `path`; `UsageError` unless a file can be written there, and folders to it."""
    if path.is_dir():
        raise UsageError(
            f"an output must be a file, and {path} is a folder: name a file in it"
        )
    if path.exists() and not path.is_file():  # a pipe or a terminal: it is not replaced
        if not os.access(path, os.W_OK):
            raise _unwritable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        return path
    if not path.exists():
        _check_writable(path.parent, path)
    elif path.is_file():  # opening a pipe would tell its reader of an end
        try:
            path.open("r+b").close()
        except OSError as error:
            raise _unwritable(path, error) from None
    return path


def check_folder(folder: Path, what: str, own: tuple[str, ...]) -> None:
    """Raise `UsageError` unless `folder` can be filled and holds nothing of anybody else.

    Names of `what` begin with one of `own`, such as "a partition" with "segments".
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{what} is a folder, and {folder} is a file: name another")
    others = sorted(each.name for each in folder.glob("*") if not each.name.startswith(own))
    if others:
        raise UsageError(
            f"{what} must have its folder to itself, and {folder} holds {others[0]}: name "
            "another folder"
        )
    _check_writable(folder, folder)


def _check_writable(folder: Path, path: Path) -> None:
    """Try the nearest folder there is: modes tell nothing to root, and not of the disk."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"an output must be a place that can be written (not {path}: {reason})")
