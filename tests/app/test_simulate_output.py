"""What `midstream simulate` tells people, and what it keeps in a menu."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.app.conftest import Ran

    Run = Callable[[str], Ran]

CROWDED = """
duration = "20s"
[cloud]
queue = 4
[[edges]]
name = "many"
count = 400
menu = "{menu}"
deadline = "400ms"
requests = {{ kind = "every", every = "500ms" }}
[[edges]]
name = "hasty"
menu = "{menu}"
policy = "edge-only"
deadline = "150ms"
requests = {{ kind = "every", every = "50ms" }}
[[edges]]
name = "patient"
menu = "{menu}"
policy = "edge-only"
requests = {{ kind = "every", every = "50ms" }}
"""


def row(out: str, name: str) -> dict[str, str]:
    """The row of a printed table that begins with `name`, by its columns; none is empty."""
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name} "))
    header = next(line for line in reversed(lines[:at]) if "requests" in line)
    names, cells = (re.split(r" {2,}", line.strip()) for line in (header, lines[at]))
    return dict(zip(names, cells, strict=True))


def test_a_run_from_a_menu_is_the_run_that_wrote_it(command: Run, tmp_path: Path) -> None:
    flags = "--trace lte:1 --duration 5s --policy adaptive --policy race --json"
    menu = tmp_path / "menus" / "tiny.json"
    made = command(
        f"simulate tiny.onnx --runs 3 --objective energy --menu-output {menu} {flags}"
    )
    again = command(f"simulate {menu} {flags}")
    assert made.document == again.document
    assert again.document["objective"] == "energy"
    assert again.document["scatter"] > 0


def test_more_requests_than_a_pair_answers_are_told(command: Run) -> None:
    done = command("simulate menu.json --every 50ms --policy edge-only --link 3g")
    assert done.code == 0
    assert "overload: requests came faster than they were answered" in done.out
    assert "(edge-only, oracle)" in done.out
    assert "overload" not in command("simulate menu.json --every 500ms").out


def test_who_did_not_answer_is_told_by_policy(command: Run) -> None:
    line = "simulate menu.json --cut-link 5s:30s --duration 40s --policy cloud-only"
    found = row(command(f"{line} --every 500ms --deadline 300ms").out, "cloud-only")
    told = [found[name] for name in ("cloud", "edge", "cloud failed", "no answer")]
    assert sum(int(each.rstrip("%")) for each in told[:3]) == pytest.approx(100, abs=1)
    assert int(found["cloud failed"].rstrip("%")) > 70
    assert found["no answer"] == "0"


def test_no_request_at_all_is_told(command: Run) -> None:
    done = command("simulate menu.json --poisson 0.0001 --duration 1s")
    assert "no request came: adaptive, oracle" in done.out


def test_a_fleets_overload_misses_and_refusals_are_told(
    command: Run, models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "crowded.toml"
    path.write_text(CROWDED.format(menu=models / "menu.json"))
    out = command(f"simulate {path}").out
    assert "for their turn (patient), and in a longer run" in out
    cloud = next(line for line in out.splitlines() if line.startswith("cloud: "))
    assert re.match(r"cloud: (9\d|100)% busy, 1 replica at most, .*, 14,\d{3} refused", cloud)
    assert int(row(out, "many")["cloud failed"].rstrip("%")) > 80
    hasty = next(line for line in out.splitlines() if line.startswith("hasty"))
    # Missed, by the cloud, by the edge, after a failure; and whose turn came too late.
    found = re.search(r" 9\d\.\d% +0% +\d\d% +0% +(\d+) ", hasty)
    assert found
    assert 150 < int(found[1]) < 250
