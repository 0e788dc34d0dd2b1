"""`midstream experiment` as a user has it: real processes, a link, a folder of results."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 60.0
#: Everywhere to be had, and quick.
SCENARIO = """
title = "A trial"
duration = "1s"
attempts = 1
policies = ["oracle", "adaptive"]
models = ["digits"]
traces = ["20Mbit"]
link.backend = "proxy"
link.rtt = "5ms"
"""

Start = Callable[[str], Any]
Run = Callable[..., Any]


@pytest.fixture
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "trial.toml"
    path.write_text(SCENARIO)
    return path


def test_an_experiment_runs_reports_and_has_nothing_left_to_do(
    start: Start, command: Run, schema: Any, scenario: Path
) -> None:
    out = scenario.parent / "out"
    line = f"experiment {scenario} -o {out} --json"
    first = start(line)
    said, err = first.process.communicate(timeout=2 * PATIENCE_S)
    assert first.process.returncode == 0, err
    assert (first.everyone(), first.leftovers()) == ([], [])
    found = json.loads(said)
    schema.check(found, schema.documents["midstream experiment"])
    # A busy machine may be late for its own link, and such a run does not count.
    assert found["runs"] + len(found["void"]) == 2
    assert found["failures"] == []
    report = Path(found["report"]).read_text()
    assert "A trial" in report
    assert (out / "summary.json").is_file()
    assert (out / "results.csv.gz").is_file()
    again = command(f"{line} --report-only")
    assert again.document | {"resumed": 0} == found | {"resumed": 0}


@pytest.mark.parametrize(
    ("number", "count"),
    [(signal.SIGTERM, 2), (signal.SIGINT, 4)],
    ids=["SIGTERM while it prepares", "Ctrl-C in a run"],
)
def test_an_experiment_that_is_interrupted_leaves_nothing_running(
    start: Start, scenario: Path, number: signal.Signals, count: int
) -> None:
    out = scenario.parent / "out"
    scenario.write_text(SCENARIO.replace('"1s"', '"60s"'))
    begun = start(f"experiment {scenario} -o {out}")
    begun.wait_for(count)  # itself and a command; or the link, the cloud and the edge
    begun.process.send_signal(number)
    said, err = begun.process.communicate(timeout=PATIENCE_S)
    assert begun.process.returncode == 130
    end_s = time.monotonic() + PATIENCE_S  # a child that was told may take a moment to end
    while begun.everyone() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert (begun.everyone(), begun.leftovers()) == ([], [])
    assert said == ""
    assert "Traceback" not in err
    assert "the same command goes on from there" in err
    assert list(out.rglob("*.partial")) == []
    assert list(out.glob("runs/*")) == []


def test_a_wrong_scenario_is_one_sentence(command: Run, scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("proxy", "carrier pigeon"))
    done = command(f"experiment {scenario} -o {scenario.parent / 'out'}")
    assert done.code == 2
    assert "link.backend must be 'auto', 'kernel', 'tun' or 'proxy'" in done.complaint


def test_a_report_on_nothing_is_refused(command: Run, scenario: Path) -> None:
    done = command(f"experiment {scenario} -o {scenario.parent / 'out'} --report-only")
    assert done.code == 2
    assert "must hold finished runs to report on" in done.complaint
