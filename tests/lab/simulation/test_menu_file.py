"""Menus as files: what was written is read again, what is wrong is told in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.menu_file import (
    MOST_NBYTES,
    MOST_S,
    MOST_SENT_NBYTES,
    MeasuredModel,
    read_menu,
)
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.pair.pair import Setting, simulate_pair
from midstream_lab.traces.conditions import condition
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Pipeline, Placement
from midstream_partitioner.planning.planner import OBJECTIVES
from midstream_wire.errors import UsageError

REMOTE = Placement("cloud-only", "raw", 0, "cloud-only raw", True,
                0.0, 0.002, 0.001, 0.05, 20_000, 1000, 0.4, (15_000, 25_000))  # fmt: skip
LOCAL = Placement("edge-only", "raw", 1, "edge-only", False,
               0.4, 0.0, 0.0, 0.0, 0, 0, 0.0)  # fmt: skip
MEASURED = MeasuredModel("net", Menu((REMOTE, LOCAL)), Device("pi", 4, slowdown=2.0), 0.07)


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_menu_that_is_written_is_read_as_it_was(tmp_path: Path, objective: str) -> None:
    asked = replace(MEASURED, menu=Menu(MEASURED.menu.placements, objective))
    again = read_menu(write(tmp_path / "menu.json", asked.to_dict()))
    assert again.menu.placements == MEASURED.menu.placements
    assert again.menu.objective == objective
    assert replace(again, menu=MEASURED.menu) == MEASURED


def test_a_file_of_before_objective_and_scatter_is_read(tmp_path: Path) -> None:
    document = MEASURED.to_dict()
    del document["objective"], document["scatter"]
    again = read_menu(write(tmp_path / "menu.json", document))
    assert (again.menu.objective, again.scatter) == ("latency", 0.0)


def test_a_file_needs_only_its_options(tmp_path: Path) -> None:
    again = read_menu(write(tmp_path / "by-hand.json", {"menu": MEASURED.to_dict()["menu"]}))
    assert (again.name, again.device) == ("by-hand", Device("?", 1))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("menu", [], "menu must not be empty"),
        ("menu", 3, "menu must be a list (not 3)"),
        ("menu", ["raw"], "menu[1] must be a table of fields (not 'raw')"),
        ("menus", [], "the menu's file has no field 'menus': did you mean 'menu'?"),
        ("network", {}, "the menu's file has no field 'network': known: menu, model, "),
        ("model", "", "model must be"),
        ("model", 3, "model must be a text (not 3)"),
        ("objective", "cost", "objective must be 'latency', 'throughput' or 'energy' (not 'c"),
        ("scatter", 3.0, "scatter must be from 0 to 2 (not 3.0)"),
        ("scatter", float("nan"), "scatter must be from 0 to 2 (not nan)"),
        ("device", {"name": "pi"}, "device.threads must be given"),
        ("device", {"name": "pi", "threads": "2"}, "device.threads must be a whole number"),
        (
            "device",
            {"name": "pi", "threads": 1, "speed": 2},
            "device has no field 'speed'",
        ),
        ("device", {"name": "pi", "threads": 0}, "a device's threads must be at least 1"),
        (
            "device",
            {"name": "pi", "threads": 1, "slowdown": 0.5},
            "a device's slowdown must be a number from 1 up (not 0.5)",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, field: str, value: Any, sentence: str
) -> None:
    assert_told(write(tmp_path / "menu.json", MEASURED.to_dict() | {field: value}), sentence)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("head", 1.0, "menu[2] has no field 'head': did you mean 'head_s'?"),
        ("head_s", "1", "menu[2].head_s must be a number (not '1')"),
        (
            "head_s",
            -1.0,
            "menu[2].head_s of 'edge-only' must be from 0 to 1,000,000 (no",
        ),
        ("rest_s", 2 * MOST_S, "menu[2].rest_s of 'edge-only' must be from 0 to"),
        ("tail_s", float("nan"), "menu[2].tail_s of 'edge-only' must be from 0 to"),
        (
            "remote",
            True,
            "menu[2].remote of 'edge-only' must be false for edge-only and true f",
        ),
        (
            "cut",
            "layer3",
            "menu[2].remote of 'edge-only' must be false for edge-only and true",
        ),
        ("k", -1, "menu[2].k of 'edge-only' must be from 0 to 1,000,000 (not -1)"),
        ("k", 1.5, "menu[2].k must be a whole number (not 1.5)"),
        ("remote", 1, "menu[2].remote must be true or false (not 1)"),
        ("payload_nbytes", MOST_SENT_NBYTES + 1, "menu[2].payload_nbytes of 'edge-only' must"),
        ("payloads_nbytes", [3, -1], "menu[2].payloads_nbytes of 'edge-only' must be from 0"),
        ("payloads_nbytes", 3, "menu[2].payloads_nbytes must be a list (not 3)"),
        ("reply_nbytes", 10**30, "menu[2].reply_nbytes of 'edge-only' must be from 0 to"),
    ],
)
def test_what_is_wrong_in_an_option_is_named(
    tmp_path: Path, field: str, value: Any, sentence: str
) -> None:
    document = MEASURED.to_dict()
    document["menu"][1][field] = value
    assert_told(write(tmp_path / "menu.json", document), sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "a menu must be JSON (EOF"),
        (b"[]", "the menu's file must be a table of fields (not [])"),
        (b"\xff", "a menu must be text in UTF-8"),
        (b'{"menu": ' + b"[" * 100_000, "a menu must be JSON (recursion limit exceeded"),
        (b'{"menu": "\\ud800"}', "a menu must be JSON"),
        (b'{"scatter": ' + b"9" * 9999 + b"}", "a menu must be JSON (number out of range"),
        (b" " * (MOST_NBYTES + 1), f"a menu must have at most {MOST_NBYTES} bytes"),
    ],
    ids=["nothing", "a list", "no text", "deep", "half a letter", "digits", "large"],
)
def test_what_is_no_menu_is_told(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "menu.json"
    path.write_bytes(content)
    assert_told(path, sentence)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert_told(tmp_path / "gone.json", "a menu must be a readable file")


def test_the_largest_payload_of_a_menu_can_be_simulated(tmp_path: Path) -> None:
    document = MEASURED.to_dict()
    most = dict.fromkeys(("payload_nbytes", "reply_nbytes"), MOST_SENT_NBYTES)
    document["menu"][0]["payloads_nbytes"] = [MOST_SENT_NBYTES]
    document["menu"] = [document["menu"][0] | most]
    measured = read_menu(write(tmp_path / "menu.json", document))
    network = Network.of(condition("900Gbit:1ms"))
    setting = Setting(network, measured.device, duration_s=1.0)
    outcome = simulate_pair(measured.menu, "cloud-only", setting)
    assert outcome.table.payload_nbytes.tolist() == [MOST_SENT_NBYTES]
    assert outcome.uplink_nbytes >= MOST_SENT_NBYTES


def test_a_tail_that_takes_no_time_can_be_simulated(tmp_path: Path) -> None:
    document = MEASURED.to_dict()
    document["menu"][0] |= {"decode_s": 0.0, "tail_s": 0.0}
    measured = read_menu(write(tmp_path / "menu.json", document))
    setting = Setting(Network.of(condition("wifi")), measured.device, duration_s=1.0)
    table = simulate_pair(measured.menu, "adaptive", setting).table
    assert (table.placement == 0).all()
    assert (table.how == 0).all()


def assert_told(path: Path, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_menu(path)
    said = str(caught.value)
    assert sentence in said
    assert str(path) in said
    assert "\n" not in said
    assert len(said) < 400


def test_a_menu_file_knows_how_many_requests_each_stage_works_on(tmp_path: Path) -> None:
    pipeline = Pipeline(threads=2, cores=4, workers=3, window=5)
    asked = replace(MEASURED, menu=replace(MEASURED.menu, pipeline=pipeline))
    path = tmp_path / "menu.json"
    path.write_text(json.dumps(asked.to_dict()))
    assert read_menu(path).menu.pipeline == pipeline

    older = asked.to_dict()
    del older["pipeline"]
    path.write_text(json.dumps(older))
    assert read_menu(path).menu.pipeline == Pipeline()

    path.write_text(json.dumps(older | {"pipeline": {"workers": 0}}))
    with pytest.raises(UsageError, match="at least 1"):
        read_menu(path)
