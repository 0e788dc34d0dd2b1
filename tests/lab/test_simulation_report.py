"""Simulated pairs told by the code that tells experiments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_lab.conditions import condition
from midstream_lab.experiment.report import REPORT, SUMMARY
from midstream_lab.experiment.results import load_runs
from midstream_lab.simulation.figures import missed_share
from midstream_lab.simulation.menus import Offered
from midstream_lab.simulation.network import Network
from midstream_lab.simulation.pair import Setting, simulate_pair
from midstream_lab.simulation.reporting import result_of, write_report
from midstream_lab.simulation.source import Cut
from midstream_lab.traces import generate
from midstream_partitioner.device import Device

WHOLE_S = 0.2
MENU = Menu(
    (
        Option("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.001, 0.02, 30_000, 400, WHOLE_S),
        Option("edge-only", "raw", 1, "edge-only", False,
               WHOLE_S, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
OFFERED = Offered("net", MENU, Device("edge", 1))
NETWORK = Network.of(condition("lte"), uplink=generate("lte", seed=1))
SETTING = Setting(NETWORK, OFFERED.device, duration_s=20.0, seed=3)


def test_a_report_holds_every_policy_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    names = ("adaptive", "edge-only", "oracle")
    outcomes = [simulate_pair(MENU, name, SETTING) for name in names]
    write_report(outcomes, OFFERED, SETTING, folder=tmp_path, command="midstream simulate")
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


def test_rows_come_in_the_order_in_which_requests_were_due() -> None:
    result = result_of(simulate_pair(MENU, "adaptive", SETTING), OFFERED, SETTING)
    assert (np.diff(result.rows["at_s"]) >= 0).all()
    assert result.facts.answered == result.facts.requests == len(result.rows)
    stages = ("head_s", "encode_s", "uplink_s", "queue_s", "decode_s", "tail_s", "downlink_s")
    cloud = result.rows["where"] == "cloud"
    total = sum(result.rows[name][cloud] for name in stages)
    assert total == pytest.approx(result.rows["latency_s"][cloud], rel=1e-5)


def test_what_nobody_answered_is_lost() -> None:
    parted = Menu((replace(MENU.options[0], rest_s=None),))
    setting = Setting(NETWORK, OFFERED.device, duration_s=5.0, cuts=(Cut(1.0, 1.0),))
    outcome = simulate_pair(parted, "cloud-only:jpeg", setting)
    result = result_of(outcome, OFFERED, setting)
    assert result.facts.lost > 0
    assert np.isnan(result.rows["latency_s"]).sum() == result.facts.lost
    assert set(result.rows["failed"].tolist()) == {"", "nobody answered"}


def test_who_takes_exactly_the_deadline_has_kept_it() -> None:
    """Nothing is quicker or slower than the edge alone here; a float of four bytes is."""
    whole_s = 0.3
    steady_menu = Menu((replace(MENU.options[1], head_s=whole_s),))
    setting = replace(SETTING, deadline_s=whole_s)
    table = simulate_pair(steady_menu, "edge-only", setting).table
    assert float(table.latency_s.max()) > whole_s
    assert missed_share(table, whole_s) == 0
    assert missed_share(table, whole_s - 1e-6) == 1
    assert missed_share(table, None) is None
