"""Flags that name what is written, refused before any work where it could not be."""

from __future__ import annotations

from pathlib import Path

from midstream_lab.report.page import REPORT, SUMMARY, is_page
from midstream_partitioner.places import check_file, check_folder
from midstream_wire.errors import UsageError

#: What `simulate --report FOLDER` writes.
_REPORTED = ("runs", "results.csv", SUMMARY, REPORT, ".")


def writable(path: Path | None) -> Path | None:
    """For a flag's callback: the file that it names, or `UsageError`."""
    return None if path is None else check_file(path)


def page(path: Path | None) -> Path | None:
    """The same for a report alone."""
    if path is not None and not is_page(path):
        raise UsageError(f"--report must end in .html (not {path.name!r})")
    return writable(path)


def reportable(path: Path | None) -> Path | None:
    """The same for a report: an .html, or a folder for it and its figures."""
    if path is None or is_page(path):
        return writable(path)
    check_folder(path, "a report", _REPORTED)
    return path
