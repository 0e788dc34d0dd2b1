"""Text files as people save them, and words of peers that are shown or become paths."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.errors import UsageError
from midstream_wire.text import file_name, harmless, one_line, read_text


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
    assert f"a feed must be a readable file ({tmp_path / name}: " in told(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31mred", "\\x9b31mred"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\rb\x00c", "a\\rb\\x00c"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("слой 網 über 😀", "слой 網 über 😀"),
    ],
)
def test_what_commands_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text())
def test_no_text_keeps_a_control_character(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert not {unicodedata.category(each) for each in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_a_long_sentence_is_cut_and_says_so() -> None:
    assert one_line("no " * 100_000) == ("no " * 66)[:197] + "..."


@given(st.text(), st.text())
def test_a_name_leads_out_of_no_folder_and_two_names_never_meet(one: str, other: str) -> None:
    name = file_name(one)
    assert name.isascii()
    assert not set("/\\~ \0") & set(name)
    assert not name.startswith(".")
    assert (file_name(other) == name) == (other == one)


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/abs", "..", "C:\\x", ".hidden"])
def test_a_path_is_no_path_as_a_name(name: str, tmp_path: Path) -> None:
    assert (tmp_path / file_name(name)).parent == tmp_path
    assert Path(file_name(name)).name == file_name(name) != name
