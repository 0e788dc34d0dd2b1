"""Maps of what wins: a grid, its points, and that it does not matter who computes them."""

from __future__ import annotations

import csv
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.model.link_spec import SOFTWARE_S
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.sweep.checkpoint import MOST_LINE_NBYTES, POINTS, Store
from midstream_lab.simulation.sweep.executors import check_engine, run_all
from midstream_lab.simulation.sweep.map import draw_map, write_table
from midstream_lab.simulation.sweep.sweep import (
    Found,
    Grid,
    Point,
    Task,
    evaluate,
    parse_grid,
    tasks,
)
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import MidstreamError, UsageError

WHOLE_S = 0.1
MENU = Menu(
    (
        Placement("cloud-only", "raw", 0, "cloud-only raw", True,
               0.0, 0.0, 0.0, 0.01, 100_000, 100, WHOLE_S),
        Placement("c5", "half", 1, "after conv with half", True,
               0.02, 0.001, 0.001, 0.008, 5_000, 100, WHOLE_S - 0.02),
        Placement("edge-only", "raw", 2, "edge-only", False,
               WHOLE_S, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
DEVICE = Device("edge", 1)
RTT_S = 0.002
GRID = Grid((0.05e6, 5e6, 500e6), (RTT_S,), (1.0, 3.0), (0.0, 0.5))


def asked(grid: Grid = GRID, seed: int = 0) -> list[Task]:
    return tasks(grid, MENU, DEVICE, machine=Machine(), seed=seed)


def found_at(uplink_bps: float, slowdown: float = 1.0, load: float = 0.0) -> Found:
    return evaluate(Task(Point(uplink_bps, RTT_S, slowdown, load), MENU, DEVICE, Machine(), 0))


#: What nobody would find at the first point, but could.
FIRST = Found(GRID.points()[0], "edge-only", "raw", "edge-only", 0.1, None, 0.1, 16.2, 0.0)


def test_each_placement_wins_where_it_should() -> None:
    assert found_at(0.05e6).label == "edge-only"
    assert found_at(5e6).label == "after conv with half"
    assert found_at(500e6).label == "cloud-only raw"
    assert found_at(500e6, slowdown=3.0).cut == "cloud-only"


def test_a_point_is_the_arithmetic_of_its_stages() -> None:
    found = found_at(5e6)
    # Head, codec, tail, 8 ms up, 0.04 ms down, and a round trip with its fixed cost.
    assert found.mean_s == pytest.approx(0.03 + 0.008 + 0.00004 + RTT_S + SOFTWARE_S, rel=1e-4)
    assert found.edge_only_s == pytest.approx(WHOLE_S)
    # A hundred kilobytes meet slow start only where the line is fast.
    assert found.cloud_only_s == pytest.approx(
        0.01 + 0.16 + 0.00004 + RTT_S + SOFTWARE_S, rel=0.02
    )
    assert found.gain == pytest.approx(WHOLE_S / found.mean_s - 1, rel=1e-5)


@pytest.mark.parametrize(("apart", "tied"), [(1.01, True), (1.03, False)])
def test_placements_that_the_simulation_does_not_tell_apart_are_ties(
    apart: float, tied: bool
) -> None:
    twins = tuple(
        Placement("edge-only", "raw", 2, label, False, seconds, 0.0, 0.0, 0.0, 0, 0, 0.0)
        for label, seconds in (("one", 0.1), ("other", 0.1 * apart))
    )
    task = Task(Point(1e6, 0.02, 1.0, 0.0), Menu(twins), DEVICE, Machine(), 0)
    assert evaluate(task).ties == (("other",) if tied else ())


def stays_of(nbytes: int, *, load: float = 0.0, sigma: float = 0.0) -> Found:
    """Five megabytes over a gigabit: a window that grows and shrinks for many requests."""
    heavy = Placement(
        "cloud-only", "raw", 0, "raw", True, 0.0, 0.0, 0.0, 0.03, nbytes, 100, WHOLE_S
    )
    point = Point(1e9, 0.005, 1.0, load)
    return evaluate(Task(point, Menu((heavy,)), DEVICE, Machine(sigma=sigma), 0))


def test_a_mean_does_not_depend_on_how_many_requests_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first four alone take less: TCP's window has not come to rest."""
    found = stays_of(5_000_000)
    monkeypatch.setattr("midstream_lab.simulation.sweep.sweep.SKIPPED", 200)
    later = stays_of(5_000_000)
    assert found.mean_s == pytest.approx(later.mean_s, rel=0.01)
    monkeypatch.setattr("midstream_lab.simulation.sweep.sweep.SKIPPED", 0)
    monkeypatch.setattr("midstream_lab.simulation.sweep.sweep.REQUESTS", 4)
    assert stays_of(5_000_000).mean_s != pytest.approx(later.mean_s, rel=0.005)


def test_there_are_quantiles_only_where_requests_differ() -> None:
    assert stays_of(50_000).p95_s is None
    assert (stays_of(50_000, sigma=0.1).p95_s or 0.0) > stays_of(50_000).mean_s
    assert (stays_of(50_000, load=0.5).p95_s or 0.0) > stays_of(50_000).mean_s
    sizes = Menu((replace(MENU.placements[0], payloads_nbytes=(50_000, 150_000)),))
    found = evaluate(Task(Point(5e6, RTT_S, 1.0, 0.0), sizes, DEVICE, Machine(), 0))
    assert (found.p95_s or 0.0) == pytest.approx(found.mean_s + 50_000 * 8 / 5e6, rel=0.02)


def test_load_makes_the_cloud_wait() -> None:
    """Others keep it half busy with 10 ms each: an M/M/1 queue waits 10 ms in the mean."""
    waits_s = found_at(500e6, load=0.5).mean_s - found_at(500e6).mean_s
    assert waits_s == pytest.approx(0.01, rel=0.5)


def test_a_grid_is_made_of_ranges_and_lists() -> None:
    grid = parse_grid(["uplink=1Mbit:100Mbit:3", "rtt=5ms,50ms", "slowdown=2", "load=0%,50%"])
    assert grid.uplink_bps == pytest.approx((1e6, 10e6, 100e6))
    assert (grid.rtt_s, grid.slowdown, grid.load) == ((0.005, 0.05), (2.0,), (0.0, 0.5))
    assert len(grid.points()) == 12
    assert parse_grid([]) == Grid()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("downlink=1Mbit", "axis must be uplink, rtt, slowdown, load"),
        ("uplink", "axis must be"),
        ("uplink=fast", "rate must be a number"),
        ("uplink=1Mbit:2Mbit", "FROM:TO:COUNT"),
        ("uplink=2Mbit:1Mbit:3", "must rise"),
        ("uplink=1Mbit:2Mbit:999999", "FROM:TO:COUNT"),
        ("slowdown=slow", "must be numbers"),
        ("slowdown=0", "above zero"),
        ("load=99%", "load must be"),
        ("rtt=1us:1s:99999", "1 to 100000 points"),
        ("rtt=20000s", "round trip must be"),
        ("load=10%,0.1", "values of load must differ"),
    ],
)
def test_what_is_no_axis_is_said(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_grid([text])


def test_one_process_and_many_find_the_same() -> None:
    alone = dict(run_all(evaluate, asked(), jobs=1))
    together = dict(run_all(evaluate, asked(), jobs=2))
    assert [repr(alone[at]) for at in range(12)] == [repr(together[at]) for at in range(12)]


def test_ray_finds_the_same() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'midstream[ray]'")
    alone = dict(run_all(evaluate, asked(), jobs=1))
    there = dict(run_all(evaluate, asked(), engine="ray", jobs=2))
    assert [repr(alone[at]) for at in range(12)] == [repr(there[at]) for at in range(12)]


def test_an_engine_that_there_is_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="must be local or ray"):
        run_all(evaluate, asked(), engine="spark")
    with pytest.raises(UsageError, match="one process or more"):
        run_all(evaluate, asked(), jobs=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs Ray"):
        check_engine("ray")
    with pytest.raises(UsageError, match="needs Ray"):
        run_all(evaluate, asked(), engine="ray")


@pytest.mark.parametrize("address", ["cluster", ":6379", "host:", "host:99999", "host:x"])
def test_an_address_that_is_none_is_said(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="must be given as HOST:PORT"):
        check_engine("ray", address=address)


def test_a_cluster_that_nobody_runs_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_engine("ray", address=f"ray://{address}")
    with pytest.raises(UsageError, match=r"Ray must answer at .* take --engine local"):
        check_engine("ray", address=address)


def _dies(task: Task) -> None:
    os._exit(1)


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(MidstreamError, match=r"one was ended .* fewer --jobs"):
        list(run_all(_dies, asked(), jobs=2))


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    wanted = asked()
    results = dict(run_all(evaluate, wanted, jobs=1))
    store = Store(tmp_path, wanted)
    for at in (3, 0, 7):
        store.add(at, results[at])
    with (tmp_path / POINTS).open("a") as file:
        file.write('{"at": 5, "uplink_b')  # killed in the middle of a line
    again = Store(tmp_path, wanted)
    assert again.missing == [at for at in range(12) if at not in (0, 3, 7)]
    for at in again.missing:
        again.add(at, results[at])
    whole = Store(tmp_path, wanted)
    assert whole.missing == []
    assert whole.results() == [results[at] for at in range(12)]


def begun(folder: Path) -> bytes:
    """What a sweep's file holds after its first point."""
    Store(folder, asked()).add(0, FIRST)
    return (folder / POINTS).read_bytes()


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(UsageError, match="another grid, menu or seed"):
        Store(tmp_path, asked(seed=1))
    assert Store(tmp_path, asked()).done == {0: FIRST}


def test_a_sweep_that_has_found_nothing_yet_is_in_nobodys_way(tmp_path: Path) -> None:
    Store(tmp_path, asked())
    Store(tmp_path, asked(seed=1)).add(0, FIRST)
    assert Store(tmp_path, asked(seed=1)).done == {0: FIRST}


def test_a_sweep_is_of_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    with pytest.raises(UsageError, match=r"is by midstream \d.*take another folder, or rem"):
        Store(tmp_path, asked())


def test_figures_of_another_method_are_another_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path)
    monkeypatch.setattr("midstream_lab.simulation.sweep.checkpoint.METHOD", (1, 0, 4))
    with pytest.raises(UsageError, match="another grid, menu or seed"):
        Store(tmp_path, asked())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a letter\n", "line 1 is not .it is no JSON"),
        (b"a letter that nobody finished", "line 1 is not .it has no end"),
        (bytes(range(256)) * 300, "line 1 is not"),
        (b"\xff\xfe\n\xff", "line 1 is not .it is no JSON"),
        (b"x" * MOST_LINE_NBYTES, "line 1 is not .it has no end"),
        (b'"asked"\n', "line 1 is not .it is a str"),
        (b"[" * 50_000 + b"\n", "line 1 is not .it is no JSON"),
        (b"{}\n", "line 1 is not .it does not say what was asked"),
    ],
    ids=["text", "no line", "binary", "not text", "endless", "string", "deep", "empty"],
)
def test_a_file_of_something_else_is_left_as_it_is(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / POINTS).write_bytes(content)
    with pytest.raises(UsageError, match=f"must be a point of a sweep, and {says}"):
        Store(tmp_path, asked())
    assert (tmp_path / POINTS).read_bytes() == content


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("gain", "much", "gain: Input should be a valid number"),
        ("gain", 1e400, "times must be finite"),
        ("mean_s", None, "mean_s: Input should be a valid number"),
        ("at", 12, "none of this grid's"),
        ("at", -1, "none of this grid's"),
        ("at", 1, "none of this grid's"),
        ("at", "0", "none of this grid's"),
        ("cut", "c99", "none of this grid's"),
        ("rtt_s", [], "point.rtt_s"),
    ],
)
def test_a_line_that_is_no_point_is_said(
    tmp_path: Path, field: str, value: object, says: str
) -> None:
    header, line = begun(tmp_path).splitlines()
    wrong = json.dumps(json.loads(line) | {field: value}).replace("Infinity", "1e400")
    (tmp_path / POINTS).write_bytes(header + b"\n" + wrong.encode() + b"\n")
    with pytest.raises(UsageError, match=f"line 2 is not .*{says}.*remove the file"):
        Store(tmp_path, asked())


def test_results_are_a_table_and_a_picture(tmp_path: Path) -> None:
    results = [evaluate(task) for task in asked()]
    write_table(results, tmp_path / "map.csv")
    draw_map(results, GRID, tmp_path / "map.svg", title="digits")
    rows = list(csv.DictReader((tmp_path / "map.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [each.label for each in results]
    assert float(rows[0]["uplink_bps"]) == 0.05e6
    assert (tmp_path / "map.svg").read_text().startswith("<?xml")
