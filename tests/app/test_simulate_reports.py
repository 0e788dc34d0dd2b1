"""`midstream simulate` leaves a page behind: of a fleet where asked to, of a sweep always."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from midstream_lab.processes.folder_lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.app.conftest import Ran

    Run = Callable[[str], Ran]

SWEEP = "simulate menu.json --sweep uplink=1Mbit,9Mbit --sweep rtt=9ms --jobs 1"


def test_a_fleets_report_has_the_documents_figures(command: Run, tmp_path: Path) -> None:
    document = command(f"simulate fleet.toml --report {tmp_path} --json").document
    assert json.loads((tmp_path / "summary.json").read_text()) == document
    page = (tmp_path / "report.html").read_text()
    assert "<h1>fleet, simulated</h1>" in page
    assert "[[edges]]" in page


def test_a_sweep_names_the_page_it_wrote(command: Run, tmp_path: Path) -> None:
    document = command(f"{SWEEP} -o {tmp_path} --json").document
    assert document["report"] == str(tmp_path / "report.html")
    assert "<h1>net: what wins where</h1>" in (tmp_path / "report.html").read_text()


def test_an_engine_that_is_not_there_leaves_no_folder_behind(
    command: Run, tmp_path: Path
) -> None:
    said = command(f"{SWEEP} -o {tmp_path / 'sweep'} --engine spark").complaint
    assert said == "an engine must be local or ray (not 'spark')"
    assert not (tmp_path / "sweep").exists()


def test_two_sweeps_do_not_write_into_one_folder(command: Run, tmp_path: Path) -> None:
    with locked(tmp_path):
        assert "one command at a time" in command(f"{SWEEP} -o {tmp_path}").complaint
