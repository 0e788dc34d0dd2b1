"""Words of peers and files: shown, they command no terminal; as names, they stay put."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.errors import MAX_MESSAGE_CHARS, CloudRefused, UsageError
from midstream_wire.foreign_text import file_name, harmless, one_line


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


@pytest.mark.parametrize("times", [150, 100_000])
def test_a_long_sentence_keeps_its_beginning_and_its_end(times: int) -> None:
    line = one_line("there must be a model; " + "x" * times + "y" * times + ": name one")
    assert line.startswith("there must be a model; xxx")
    assert "x...y" in line
    assert line.endswith("yyy: name one")
    assert len(line) == 200


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


@pytest.mark.parametrize("make", [UsageError, lambda text: CloudRefused(5, text)])
def test_an_error_is_one_line_whatever_it_quotes(make: Callable[[str], Exception]) -> None:
    said = str(make("no \x1b[2J such\nmodel: " + "name, " * 100_000))
    assert said.startswith("no \\x1b[2J such model: name, name")
    assert len(said) == MAX_MESSAGE_CHARS
