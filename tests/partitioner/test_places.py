"""Places that results go to are looked at before any work is done for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from midstream_partitioner.places import check_file, check_folder
from midstream_wire.errors import UsageError


def test_a_file_may_be_new_old_or_in_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("kept", encoding="utf-8")
    for path in (old, tmp_path / "new", tmp_path / "a" / "b" / "new"):
        assert check_file(path) == path
    assert old.read_text(encoding="utf-8") == "kept"
    assert [each.name for each in tmp_path.iterdir()] == ["old"]


def test_a_pipe_and_a_terminal_are_places_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/stdout"), Path("/dev/null")):
        assert check_file(path) == path


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"must be a file, and .* is a folder"):
        check_file(tmp_path)
    with pytest.raises(UsageError, match="must be a place that can be written"):
        check_file(tmp_path / "file" / "in-it")
    with pytest.raises(UsageError, match="must be a place that can be written"):
        check_file(Path("/proc/nowhere/x"))


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert check_file(pipe) == pipe
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"still open")
        assert os.read(reader, 64) == b"still open"
        os.close(writer)
    finally:
        os.close(reader)
    assert check_file(Path("/dev/null")) == Path("/dev/null")


def test_a_folder_may_be_new_empty_or_ones_own(tmp_path: Path) -> None:
    check_folder(tmp_path, "a sweep", ("points",))
    check_folder(tmp_path / "a" / "b", "a sweep", ("points",))
    (tmp_path / "points.jsonl").write_text("", encoding="utf-8")
    check_folder(tmp_path, "a sweep", ("points",))
    (tmp_path / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"to itself, and .* holds thesis\.tex"):
        check_folder(tmp_path, "a sweep", ("points",))


def test_a_folder_that_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"a sweep is a folder, and .* is a file"):
        check_folder(tmp_path / "file", "a sweep", ())
    with pytest.raises(UsageError, match="must be a place that can be written"):
        check_folder(tmp_path / "file" / "in-it", "a sweep", ())
