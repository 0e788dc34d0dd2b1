"""Simulated pairs told by the code that tells experiments."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.report.report import REPORT, SUMMARY
from midstream_lab.results.run_files import load_runs
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.model.arrivals import Poisson
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.model.workload import Cut
from midstream_lab.simulation.output.statistics import missed_share
from midstream_lab.simulation.pair.pair import Setting, simulate_pair
from midstream_lab.simulation.pair.report import result_of, write_report
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.generators import generate
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement

WHOLE_S = 0.2
MENU = Menu(
    (
        Placement("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.001, 0.02, 30_000, 400, WHOLE_S),
        Placement("edge-only", "raw", 1, "edge-only", False,
               WHOLE_S, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
MEASURED = MeasuredModel("net", MENU, Device("edge", 1))
NETWORK = Network.of(condition("lte"), uplink=generate("lte", seed=1))
SETTING = Setting(NETWORK, MEASURED.device, duration_s=20.0, seed=3)


def test_a_report_holds_every_policy_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    names = ("adaptive", "edge-only", "oracle")
    outcomes = [simulate_pair(MENU, name, SETTING) for name in names]
    write_report(outcomes, MEASURED, SETTING, place=tmp_path, command="midstream simulate")
    page = (tmp_path / REPORT).read_text()
    assert "Simulated" in page
    assert "midstream simulate" in page
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["kind"] == "simulated"
    assert summary["policies"].keys() >= set(names)
    runs = {run.key.policy: run for run in load_runs(tmp_path / "runs")}
    for outcome in outcomes:
        latency_s = runs[outcome.policy].rows["latency_s"]
        assert np.sort(latency_s) == pytest.approx(np.sort(outcome.table.latency_s))


def reported(folder: Path, setting: Setting, *names: str, menu: Menu = MENU) -> str:
    """The page, as people read it: without style, pictures and script."""
    outcomes = [simulate_pair(menu, name, setting) for name in names]
    write_report(outcomes, MEASURED, setting, place=folder, command="midstream simulate")
    page = (folder / REPORT).read_text().split("</style>")[1].split("<script")[0]
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """What the page's script draws from."""
    data = (folder / REPORT).read_text().split('id="data">')[1].split("</script>")[0]
    found: list[dict[str, Any]] = json.loads(data)["runs"]
    return found


def test_a_page_claims_nothing_that_a_simulation_does_not_have(tmp_path: Path) -> None:
    text = reported(tmp_path, SETTING, "adaptive", "oracle")
    assert '<p class="kicker">Simulated · 2 runs' in text
    for word in ("emulated link", "begun", "unknown", "backend", "deadline", "link cut"):
        assert word not in text
    assert "The command" in text
    assert "net: what could be chosen, by the profiles" in text


def test_a_page_has_what_the_policy_believed(tmp_path: Path) -> None:
    assert "as the policy believed it to be" in reported(tmp_path, SETTING, "adaptive")
    (run,) = runs_of(tmp_path)
    assert len(run["b"]) == len(run["t"])
    assert all(
        low < believed < high
        for low, believed, high in zip(run["lo"], run["b"], run["hi"], strict=True)
    )
    result = result_of(simulate_pair(MENU, "adaptive", SETTING), MEASURED, SETTING)
    carries = result.rows["uplink_bps"] > 0
    ratio = result.rows["belief_bps"][carries] / result.rows["uplink_bps"][carries]
    assert 0.5 < np.median(ratio) < 2.0
    assert result.rows["belief_rtt_s"] == pytest.approx(NETWORK.rtt_s, abs=0.05)


def test_a_page_has_the_deadline_who_missed_it_and_the_cuts(tmp_path: Path) -> None:
    setting = replace(SETTING, deadline_s=0.15, cuts=(Cut(3.0, 1.5), Cut(9.0, 0.5)))
    text = reported(tmp_path, setting, "edge-only", "adaptive", "oracle")
    assert "<dt>link cut</dt><dd>at 3 s for 1.5 s, at 9 s for 500 ms</dd>" in text
    assert "<dt>deadline</dt><dd>150 ms</dd>" in text
    assert "over the deadline of 150 ms</span>" in text
    assert "Over the deadline of 150 ms, or without an answer: adaptive " in text
    assert "Where the ground is red, the link was cut." in text
    assert all(run["cuts"] == [[3.0, 4.5], [9.0, 9.5]] for run in runs_of(tmp_path))
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["deadline_s"] == 0.15
    assert summary["policies"]["edge-only"]["missed"] == 1.0
    assert 0 < summary["policies"]["adaptive"]["missed"] < 1


def test_connections_are_counted_when_they_come_about() -> None:
    """Two cuts that overlap are mended once."""
    cuts = (Cut(2.0, 2.0), Cut(3.0, 2.0), Cut(8.0, 0.5))
    setting = replace(SETTING, cuts=cuts)
    result = result_of(simulate_pair(MENU, "adaptive", setting), MEASURED, setting)
    assert result.facts.reconnects == 2


def test_a_run_without_requests_has_a_page_that_says_so(tmp_path: Path) -> None:
    setting = replace(SETTING, arrivals=Poisson(1e-4), duration_s=1.0)
    text = reported(tmp_path, setting, "adaptive", "oracle")
    assert "No request came: there is nothing to compare." in text
    assert 'id="setting"' in text
    assert 'id="regret"' not in text


def test_a_run_whose_requests_all_failed_has_a_page_that_says_so(tmp_path: Path) -> None:
    parted = Menu((replace(MENU.placements[0], rest_s=None),))
    setting = replace(SETTING, duration_s=2.0, deadline_s=0.001)
    text = reported(tmp_path, setting, "cloud-only:jpeg", menu=parted)
    assert re.search(r"None of [\d,]+ requests was answered: there is nothing", text)


def test_who_never_got_an_answer_is_not_left_out_of_what_was_lost(tmp_path: Path) -> None:
    parted = Menu((replace(MENU.placements[0], rest_s=None), MENU.placements[1]))
    setting = replace(SETTING, duration_s=5.0, deadline_s=0.001)
    text = reported(tmp_path, setting, "cloud-only:jpeg", "edge-only", menu=parted)
    assert re.search(r"Of [\d,]+ requests [\d,]+ got no answer", text)


def test_rows_come_in_the_order_in_which_requests_were_due() -> None:
    result = result_of(simulate_pair(MENU, "adaptive", SETTING), MEASURED, SETTING)
    assert (np.diff(result.rows["at_s"]) >= 0).all()
    assert result.facts.answered == result.facts.requests == len(result.rows)
    stages = ("head_s", "encode_s", "uplink_s", "queue_s", "decode_s", "tail_s", "downlink_s")
    cloud = result.rows["where"] == "cloud"
    total = sum(result.rows[name][cloud] for name in stages)
    assert total == pytest.approx(result.rows["latency_s"][cloud], rel=1e-5)


def test_what_nobody_answered_is_lost() -> None:
    parted = Menu((replace(MENU.placements[0], rest_s=None),))
    setting = Setting(NETWORK, MEASURED.device, duration_s=5.0, cuts=(Cut(1.0, 1.0),))
    outcome = simulate_pair(parted, "cloud-only:jpeg", setting)
    result = result_of(outcome, MEASURED, setting)
    assert result.facts.lost > 0
    assert np.isnan(result.rows["latency_s"]).sum() == result.facts.lost
    assert set(result.rows["failed"].tolist()) == {"", "nobody answered"}


def test_who_takes_exactly_the_deadline_has_kept_it() -> None:
    """Nothing is quicker or slower than the edge alone here; a float of four bytes is."""
    whole_s = 0.3
    steady_menu = Menu((replace(MENU.placements[1], head_s=whole_s),))
    setting = replace(SETTING, deadline_s=whole_s)
    table = simulate_pair(steady_menu, "edge-only", setting).table
    assert float(table.latency_s.max()) > whole_s
    assert missed_share(table, whole_s) == 0
    assert missed_share(table, whole_s - 1e-6) == 1
    assert missed_share(table, None) is None
