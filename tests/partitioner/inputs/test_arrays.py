"""Arrays from files: what a header or an archive claims is bounded before it is believed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from midstream_partitioner.inputs import arrays
from midstream_partitioner.inputs.arrays import ONLY, load_arrays
from midstream_wire.errors import UsageError


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, fields)
    return file.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as told:
        load_arrays(path)
    return str(told.value)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_what_numpy_saved_is_loaded(tmp_path: Path, name: str) -> None:
    path, x = tmp_path / name, np.arange(6, dtype=np.float32).reshape(2, 3)
    (np.save if name == "a.npy" else np.savez_compressed)(path, x)
    found = load_arrays(path)
    assert list(found) == [ONLY]
    np.testing.assert_array_equal(found[ONLY], x)


def test_one_array_of_many_is_read_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3), labels=np.arange(3))
    assert list(load_arrays(tmp_path / "a.npz", only="labels")) == ["labels"]
    assert load_arrays(tmp_path / "a.npz", only="nothing") == {}


def test_a_header_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.npy"
    path.write_bytes(header((1 << 60,)) + bytes(64))
    assert "fewer are there" in refusal(path)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", header((1 << 40, 1 << 40)) + bytes(64))
    assert "fewer are there" in refusal(tmp_path / "huge.npz")


def test_an_archive_that_unfolds_beyond_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "usable_memory_nbytes", lambda: 1 << 20)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 20, np.float32))
    assert "at most half of this machine's memory" in refusal(tmp_path / "bomb.npz")
    np.save(tmp_path / "large.npy", np.zeros(1 << 20, np.float32))
    assert "would take 0.00391 GiB: give fewer samples" in refusal(tmp_path / "large.npy")


def test_members_that_are_no_arrays_and_objects_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "a letter")
    assert "must be an .npz or .npy of plain numbers" in refusal(tmp_path / "notes.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    assert "Python objects" in refusal(tmp_path / "objects.npy")
    (tmp_path / "text.npy").write_text("a letter")
    assert "must be an .npz or .npy" in refusal(tmp_path / "text.npy")
