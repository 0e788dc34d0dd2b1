"""Text files as people save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream_wire.errors import UsageError
from midstream_wire.foreign_text import harmless
from midstream_wire.text import read_text


def told(path: Path, *, max_nbytes: int = 100) -> str:
    with pytest.raises(UsageError) as caught:
        read_text(path, "a feed", max_nbytes=max_nbytes)
    return str(caught.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "f.txt"
    path.write_bytes(mark + "Kätzchen\r\n".encode())
    assert read_text(path, "a feed") == "Kätzchen\r\n"


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_other_codings_are_refused_by_name_or_by_byte(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "f.txt"
    path.write_bytes("kätzchen".encode(coding))
    said = told(path)
    assert "a feed must be text in UTF-8" in said
    assert "save it as UTF-8" in said
    if coding in ("utf-16", "utf-32"):
        assert coding.upper() in said


def test_zeros_betray_utf_16_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_bytes("plain".encode("utf-16-le"))
    assert "zero bytes, as UTF-16 has" in told(path)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("x" * 101)
    assert "at most 100 bytes" in told(path)
    assert "at most 100 bytes" in told(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["none", ".", "nul\0"])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert f"a feed must be a readable file ({harmless(str(path))}: " in told(path)
