"""Runs in order, resumed, repeated, interrupted; the running itself is made up here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from midstream_lab.experiment import run as single
from midstream_lab.experiment import runner
from midstream_lab.experiment.prepare import Prepared
from midstream_lab.experiment.run import link_of, settings_of, uplink_of
from midstream_lab.experiment.runner import Outcome, Plan, Progress, plan_runs, run_all
from midstream_lab.experiment.scenario import Experiment, load_experiment
from midstream_lab.processes.folder_lock import locked
from midstream_lab.results.rows import RunKey, RunResult
from midstream_lab.results.run_files import load_run, save_run
from midstream_wire.errors import MidstreamError, UsageError

Plain = Callable[..., RunResult]

SCENARIO = """
duration = "10s"
policies = ["oracle", "adaptive"]
models = ["digits"]
traces = ["8Mbit", {generate = "lte"}]
seeds = [3]
"""
PATIENCE_S = 20.0


def quiet(state: object) -> None:
    """Nobody listens."""


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    table = experiment_of(tmp_path, SCENARIO).scenario.models[0]
    edge, cloud = tmp_path / "edge.json", tmp_path / "cloud.json"
    return Prepared(table, tmp_path, edge, cloud, "0123", ("oracle", "adaptive"))


def experiment_of(folder: Path, text: str) -> Experiment:
    path = folder / "scenario.toml"
    path.write_text(text)
    return load_experiment(path)


def plan_of(prepared: Prepared, count: int, done: Sequence[RunResult] = ()) -> Plan:
    keys = tuple(RunKey("digits", "line", f"p{at}", 0) for at in range(count))
    finished = {each.key for each in done}
    left = tuple(key for key in keys if key not in finished)
    return Plan(keys, {"digits": prepared}, tuple(done), left)


def go(
    plan: Plan,
    folder: Path,
    run: runner.RunOnce,
    *,
    jobs: int = 2,
    expected_s: float = 1.0,
    tell: Callable[[Progress], None] = quiet,
) -> Outcome:
    return run_all(plan, folder, run, jobs=jobs, attempts=2, expected_s=expected_s, tell=tell)


@pytest.fixture
def run(plain: Plain) -> runner.RunOnce:
    def run(key: RunKey, prepared: Prepared) -> RunResult:
        return replace(plain("x", [0.1, 0.2]), key=key)

    return run


def test_every_run_leaves_its_file(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    told: list[Progress] = []
    found = go(plan_of(prepared, 5), tmp_path / "runs", run, tell=told.append)
    names = [each.key.policy for each in found.results]
    assert names == [f"p{at}" for at in range(5)]
    assert len(list((tmp_path / "runs").iterdir())) == 5
    assert told[-1].done == told[-1].total == 5


def test_what_has_finished_is_not_run_again(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    ran: list[str] = []

    def counted(key: RunKey, given: Prepared) -> RunResult:
        ran.append(key.policy)
        return run(key, given)

    first = run(RunKey("digits", "line", "p1", 0), prepared)
    found = go(plan_of(prepared, 3, [first]), tmp_path, counted)
    assert sorted(ran) == ["p0", "p2"]
    assert len(found.results) == 3
    assert found.resumed == 1


def test_a_void_run_is_repeated_and_kept_as_void_if_it_stays_so(
    prepared: Prepared, plain: Plain, tmp_path: Path
) -> None:
    ran: list[str] = []

    def run(key: RunKey, given: Prepared) -> RunResult:
        ran.append(key.policy)
        late = key.policy == "p0" or ran.count("p1") < 2
        return replace(plain("x", [0.1], void="late" if late else None), key=key)

    found = go(plan_of(prepared, 2), tmp_path, run, jobs=1)
    assert ran == ["p0", "p0", "p1", "p1"]
    assert [each.facts.void for each in found.results] == ["late", None]


def test_a_run_that_fails_does_not_stop_the_others(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    def sometimes(key: RunKey, given: Prepared) -> RunResult:
        if key.policy == "p1":
            raise MidstreamError("the cloud process ended")
        return run(key, given)

    found = go(plan_of(prepared, 3), tmp_path, sometimes)
    assert [each.key.policy for each in found.results] == ["p0", "p2"]
    assert [(key.policy, why) for key, why in found.failures] == [
        ("p1", "the cloud process ended")
    ]


def test_what_is_asked_wrongly_stops_everything(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    def wrong(key: RunKey, given: Prepared) -> RunResult:
        raise UsageError("fixed:c9:raw must be a placement")

    with pytest.raises(UsageError, match="p0 on digits over line, seed 0: fixed:c9:raw must"):
        go(plan_of(prepared, 50), tmp_path, wrong, jobs=1)


def test_a_fault_of_our_own_is_not_swallowed(prepared: Prepared, tmp_path: Path) -> None:
    def broken(key: RunKey, given: Prepared) -> RunResult:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        go(plan_of(prepared, 3), tmp_path, broken)


def test_several_run_at_a_time_but_no_more_than_asked_for(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    together = threading.Barrier(3, timeout=PATIENCE_S)  # breaks unless three come at once
    active, most, lock = 0, 0, threading.Lock()

    def meet(key: RunKey, given: Prepared) -> RunResult:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        together.wait()
        with lock:
            active -= 1
        return run(key, given)

    go(plan_of(prepared, 6), tmp_path, meet, jobs=3)
    assert most == 3


def test_an_interrupt_ends_what_runs_and_keeps_what_has_finished(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with real processes: ending them is what makes a run's thread return."""
    ended, cleaned = threading.Event(), threading.Event()
    monkeypatch.setattr(runner, "stop_all", ended.set)

    def slow(key: RunKey, given: Prepared) -> RunResult:
        if key.policy == "p0":
            return run(key, given)
        assert ended.wait(PATIENCE_S)
        cleaned.set()
        raise MidstreamError("the edge process ended")

    def interrupt(state: Progress) -> None:
        if state.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(plan_of(prepared, 5), tmp_path, slow, jobs=1, tell=interrupt)
    assert cleaned.is_set()
    assert len(list(tmp_path.glob("*p0*.json.gz"))) == 1
    assert len(list(tmp_path.glob("*.json.gz"))) == 1


def test_a_run_that_a_signal_cut_short_is_no_finished_run(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its edge ends in good order, so that there are figures: of a part of the run."""
    monkeypatch.setattr(single, "emulate", lambda spec, backend: nullcontext())
    monkeypatch.setattr(
        single,
        "run_policy",
        lambda *given, **named: {"trace_origin_s": 0.0, "interrupted": True},
    )
    experiment = experiment_of(tmp_path, SCENARIO)
    (key,) = (
        each for each in experiment.keys({"digits": ("adaptive",)}) if "lte" in str(each)
    )
    found = go(
        Plan((key,), {"digits": prepared}, (), (key,)),
        tmp_path / "runs",
        lambda key, given: single.run_once(experiment, key, given, say=quiet),
    )
    assert found.results == ()
    assert [why for _, why in found.failures] == [
        "a run must last its 10 s, and a signal ended this one before: give the command again "
        "to repeat it"
    ]
    assert not (tmp_path / "runs").exists()


def test_the_time_left_is_told_from_the_runs_so_far(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path
) -> None:
    told: list[Progress] = []
    go(plan_of(prepared, 4), tmp_path, run, jobs=1, expected_s=1000.0, tell=told.append)
    assert told[-1].remaining_s < 100.0  # not the 1,000 s that were expected
    assert {key.policy for state in told for key in state.active} <= {
        f"p{n}" for n in range(4)
    }


def test_two_commands_do_not_write_into_one_folder(tmp_path: Path) -> None:
    told = pytest.raises(UsageError, match="one command at a time")
    with locked(tmp_path), told, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.fixture
def stored(
    prepared: Prepared, run: runner.RunOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Plan]:
    """What is planned by a scenario once all runs of `SCENARIO` are there."""
    monkeypatch.setattr(runner, "prepare", lambda scenario, model, folder, partition: prepared)
    monkeypatch.setattr(runner, "cut_all", lambda models, folder: {"digits": folder})
    first = experiment_of(tmp_path, SCENARIO)
    (tmp_path / runner.RUNS).mkdir()
    for key in first.keys({"digits": prepared.policies}):
        made = run(key, prepared)
        facts = replace(made.facts, settings=settings_of(first, key, prepared))
        save_run(replace(made, facts=facts), tmp_path / runner.RUNS)

    def plan(text: str, *, fresh: bool = False) -> Plan:
        return plan_runs(experiment_of(tmp_path, text), tmp_path, fresh=fresh, say=quiet)

    return plan


def test_every_model_that_cannot_be_cut_is_named_before_any_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "prepare", lambda *given, **more: pytest.fail("it measures"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}", encoding="utf-8")
    found = experiment_of(tmp_path, SCENARIO.replace('["digits"]', '["one", "two"]'))
    with pytest.raises(MidstreamError, match=r"models: one: a partition's .*; two: a part"):
        plan_runs(found, tmp_path, fresh=False, say=quiet)


def test_a_trace_that_cannot_be_followed_is_told_before_any_model_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "cut_all", lambda models, folder: pytest.fail("it cuts"))
    (tmp_path / "bad.txt").write_text("no trace", encoding="utf-8")
    found = experiment_of(tmp_path, SCENARIO.replace('"8Mbit"', '{file = "bad.txt"}'))
    with pytest.raises(MidstreamError, match=r"bad\.txt"):
        plan_runs(found, tmp_path, fresh=False, say=quiet)


def test_the_same_scenario_has_nothing_left_to_run(stored: Callable[..., Plan]) -> None:
    found = stored(SCENARIO)
    assert (len(found.done), len(found.open)) == (4, 0)


def test_a_trace_or_seed_more_leaves_the_finished_runs_alone(
    stored: Callable[..., Plan],
) -> None:
    more = SCENARIO.replace("[3]", "[3, 4]").replace('"8Mbit",', '"8Mbit", "2Mbit",')
    found = stored(more)
    assert (len(found.done), len(found.open)) == (4, 8)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"10s"', '"12s"', "duration was 10.0 when .* ran and is 12.0 now"),
        ("seeds", 'load.every = "1s"\nseeds', "load.every was None"),
        ("seeds", 'link.rtt = "50ms"\nseeds', "link.rtt_s was 0.04"),
        ("seeds", "edge.slowdown = 2\nseeds", "edge.slowdown was 1.0"),
        ('"8Mbit"', '{rate = "9Mbit", name = "8Mbit"}', "traces.rate_bps was 8000000.0"),
    ],
)
def test_a_change_of_the_scenario_is_noticed_and_named(
    stored: Callable[..., Plan], old: str, new: str, said: str
) -> None:
    text = SCENARIO.replace(old, new)
    with pytest.raises(UsageError, match=f"{said}.*--fresh"):
        stored(text)
    assert len(stored(text, fresh=True).open) > 0


def test_void_runs_are_run_again_by_the_next_command(
    stored: Callable[..., Plan], tmp_path: Path
) -> None:
    path = next((tmp_path / runner.RUNS).glob("*oracle*"))
    found = load_run(path)
    save_run(replace(found, facts=replace(found.facts, void="late")), path.parent)
    assert stored(SCENARIO).open == (found.key,)


def test_a_link_that_cannot_be_emulated_is_told_before_anything_runs(
    stored: Callable[..., Plan],
) -> None:
    with pytest.raises(UsageError, match="jitter_s must lie within 0 and delay_s"):
        stored(SCENARIO + '\n[link]\njitter = "30ms"')


def test_a_trace_is_cut_scaled_and_made_up_as_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("0 1\n1 2\n2 3\n3 4\n")
    text = SCENARIO.replace(
        '"8Mbit",',
        '{file = "t.txt", start = "1s", scale = 10, rtt = "80ms", downlink = "1Mbit"},',
    )
    found = experiment_of(tmp_path, text)
    link = link_of(found, RunKey("digits", "t", "adaptive", 3))
    assert list(link.uplink.rates_bps) == [20e6, 30e6, 40e6]  # type: ignore[union-attr]
    assert (link.delay_s, link.downlink, link.seed) == (0.04, 1e6, 3)
    made = [
        uplink_of(found.trace("lte"), seed=seed, duration_s=10.0).rates_bps.tolist()
        for seed in (3, 3, 4)
    ]
    assert made[0] == made[1] != made[2]


def test_a_start_behind_the_end_of_a_trace_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("0 1\n1 2\n")
    found = experiment_of(
        tmp_path, SCENARIO.replace('"8Mbit",', '{file = "t.txt", start = "1min"},')
    )
    with pytest.raises(UsageError, match="the start of t must lie within its 2 s"):
        link_of(found, RunKey("digits", "t", "adaptive", 0))
