"""Tables for people: names of any length and of any letters leave their columns straight."""

from __future__ import annotations

import io
import sys

import pytest

from midstream.cli.output import console
from midstream.cli.output.console import NAME_LETTERS, elided, printable

CYRILLIC = "\u0441\u0432\u0451\u0440\u0442\u043a\u0430/" * 20
NAMES = ["conv1", CYRILLIC, "two\nlines\x1b[2J", "brackets[bold]"]


def ascii_output(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Make standard output one that knows no other letters; what is written to it."""
    written = io.BytesIO()
    output = io.TextIOWrapper(written, "ascii", errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    return written


def test_a_long_name_is_elided_in_the_middle_and_a_short_one_is_whole() -> None:
    name = "/model/" + "block/" * 20 + "conv"
    assert len(elided(name)) == NAME_LETTERS
    assert elided(name).startswith("/model/block/")
    assert elided(name).endswith("/block/conv")
    assert elided("conv1") == "conv1"


def test_escapes_count_as_printed_and_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_output(monkeypatch)
    told = elided(CYRILLIC)
    assert NAME_LETTERS - 12 <= len(told) <= NAME_LETTERS
    first, last = told.split("...")
    assert first.encode().decode("unicode_escape") == CYRILLIC[: len(first) // 6]
    assert CYRILLIC.endswith(last.encode().decode("unicode_escape"))


def test_a_terminals_commands_are_told_and_not_obeyed() -> None:
    assert printable("two\nlines\x1b[2J") == r"two\nlines\x1b[2J"
    assert printable("\u0441") == "\u0441"


def test_sentences_keep_their_lines_and_no_terminals_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say("one \u2014 line\nand \x1b[31manother \udc80\r")
    assert capsys.readouterr().out == "one \u2014 line\nand \\x1b[31manother \\udc80\\r\n"


def test_names_that_the_output_lacks_do_not_shift_the_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = ascii_output(monkeypatch)
    rows = console.table("title \u0441", "name", "ms", left=("name",))
    for name in NAMES:
        rows.add_row(elided(name), "7.25")
    console.show(rows)
    title, header, *lines = written.getvalue().decode("ascii").splitlines()
    assert title.strip() == r"title \u0441"
    assert len(lines) == len(NAMES)
    assert {line.index("7.25") for line in lines} == {header.index("  ms")}
