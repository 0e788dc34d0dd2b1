"""All runs of an experiment: several at a time, resumed where they were left, surely ended.

A finished run is a file; what has its file is not run again. Runs that the emulation found
void are repeated, at once and whenever the experiment is run again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from pydantic import JsonValue

from midstream_lab.experiment.prepare import Prepared, cut_all, prepare
from midstream_lab.experiment.run import link_of, run_once, settings_of
from midstream_lab.experiment.scenario import Experiment
from midstream_lab.processes.pair import Say
from midstream_lab.processes.process import stop_all
from midstream_lab.results.rows import RunKey, RunResult
from midstream_lab.results.run_files import load_run, load_runs, save_run
from midstream_wire.errors import MidstreamError, UsageError

RUNS, MODELS = "runs", "models"

#: What a run takes beside its requests, until one has been timed: processes start, the cloud
#: is profiled, the link is measured.
OVERHEAD_S = 15.0
#: How often progress is told.
TICK_S = 0.5
#: An interrupted run gets this long to take its link down before it is left behind.
STOP_S = 15.0


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of an experiment. `remaining_s` is a guess from the runs so far."""

    total: int
    done: int
    resumed: int
    failed: int
    void: int
    active: tuple[RunKey, ...]
    remaining_s: float


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an experiment: the runs that finished, and why others did not."""

    results: tuple[RunResult, ...]
    resumed: int
    failures: tuple[tuple[RunKey, str], ...] = ()


RunOnce = Callable[[RunKey, Prepared], RunResult]
Tell = Callable[[Progress], None]


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of an experiment, those that are done already, and those that are to be run."""

    keys: tuple[RunKey, ...]
    prepared: Mapping[str, Prepared]
    done: tuple[RunResult, ...]
    open: tuple[RunKey, ...]


def plan_runs(experiment: Experiment, folder: Path, *, fresh: bool, say: Say) -> Plan:
    """Prepare all models in `folder` and see which runs are there already.

    Raises `UsageError` where a run is there of another scenario, unless `fresh`, which throws
    such runs away, and where a link cannot be emulated.
    """
    scenario, inside = experiment.scenario, folder / MODELS
    for trace in scenario.traces:
        for seed in scenario.seeds:
            link_of(experiment, RunKey("", trace.name, "", seed))  # raises before any work
    partitions = cut_all(scenario.models, inside)
    prepared = {}
    for model in scenario.models:
        say(f"preparing {model.name}")
        part = partitions[model.name]
        prepared[model.name] = prepare(scenario, model, inside, partition=part)
    keys = experiment.keys({name: each.policies for name, each in prepared.items()})
    done = []
    for key in keys:
        found = _found(folder / RUNS / key.filename, fresh=fresh)
        if found is not None:
            now = settings_of(experiment, key, prepared[key.model])
            if not fresh:
                _check_same(found, now)
            if found.facts.void is None and found.facts.settings == now:
                done.append(found)
    finished = {each.key for each in done}
    return Plan(keys, prepared, tuple(done), tuple(key for key in keys if key not in finished))


def _found(path: Path, *, fresh: bool) -> RunResult | None:
    if not path.exists():
        return None
    try:
        return load_run(path)
    except UsageError:
        if not fresh:
            raise
        return None


def _check_same(found: RunResult, now: Mapping[str, JsonValue]) -> None:
    """`UsageError` naming the first setting that is not what it was."""
    before = found.facts.settings
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"runs of one experiment must be of one scenario, and {name} was "
                f"{before.get(name)!r} when {found.key} ran and is {now.get(name)!r} now: "
                "give --fresh to run it again, or --output for another folder"
            )


def run_all(
    plan: Plan,
    folder: Path,
    run: RunOnce,
    *,
    jobs: int,
    attempts: int,
    expected_s: float,
    tell: Tell,
) -> Outcome:
    """Run what is open and write each run's file as it finishes.

    A run that fails does not stop the others; one that was asked wrongly does. On an interrupt
    all that was started is ended, and what has finished stays.
    """
    crew = _Crew(plan, folder, run, attempts)
    threads = [
        threading.Thread(target=crew.work, name=f"run-{number}", daemon=True)
        for number in range(min(jobs, len(plan.open)))
    ]
    try:
        for thread in threads:
            thread.start()
        while len(crew.finished) + len(crew.failures) < len(plan.open):
            crew.wait(TICK_S)
            tell(crew.progress(expected_s, jobs))
    finally:
        _dismiss(crew, threads)
    results = sorted([*plan.done, *crew.finished], key=lambda each: each.key)
    return Outcome(tuple(results), len(plan.done), tuple(crew.failures))


def _dismiss(crew: _Crew, threads: Sequence[threading.Thread]) -> None:
    """End what still runs. Ending a run's processes is what makes its thread clean up."""
    crew.stopped.set()
    until_s = time.monotonic() + STOP_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < until_s:
        stop_all()
        for thread in threads:
            if thread.ident is not None:
                thread.join(0.2)


def run_experiment(
    experiment: Experiment, folder: Path, *, jobs: int, fresh: bool, say: Say, tell: Tell
) -> Outcome:
    """Everything of `experiment` that is not in `folder` yet."""
    plan = plan_runs(experiment, folder, fresh=fresh, say=say)
    return run_all(
        plan,
        folder / RUNS,
        lambda key, prepared: run_once(experiment, key, prepared, say=lambda words: None),
        jobs=jobs,
        attempts=experiment.scenario.attempts,
        expected_s=experiment.scenario.duration_s + OVERHEAD_S,
        tell=tell,
    )


def stored_runs(folder: Path) -> list[RunResult]:
    """All runs that have finished in the experiment's `folder`."""
    return list(load_runs(folder / RUNS))


@final
@dataclass(eq=False)
class _Crew:
    """State that the threads share; it changes under a lock."""

    plan: Plan
    folder: Path
    run: RunOnce
    attempts: int
    stopped: threading.Event = field(default_factory=threading.Event)
    finished: list[RunResult] = field(default_factory=list)
    failures: list[tuple[RunKey, str]] = field(default_factory=list)
    active: dict[RunKey, float] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._open: queue.SimpleQueue[RunKey] = queue.SimpleQueue()
        self._wrong: Exception | None = None
        self._changed = threading.Event()
        for key in self.plan.open:
            self._open.put(key)

    def work(self) -> None:
        """A thread's life: take a run, run it, until none is left."""
        while not self.stopped.is_set():
            try:
                key = self._open.get_nowait()
            except queue.Empty:
                return
            self._take(key)
            self._changed.set()

    def _take(self, key: RunKey) -> None:
        began_s = time.monotonic()
        with self._lock:
            self.active[key] = began_s
        try:
            result = self._attempt(key)
            save_run(result, self.folder)
        except UsageError as error:
            self._give_up(UsageError(f"{key}: {error}"))
        except (MidstreamError, OSError) as error:
            with self._lock:
                self.failures.append((key, str(error)))
        except Exception as error:  # a fault of ours, which must not die with its thread
            self._give_up(error)
        else:
            with self._lock:
                self.finished.append(result)
                self.took_s.append(time.monotonic() - began_s)
        finally:
            with self._lock:
                del self.active[key]

    def _give_up(self, error: Exception) -> None:
        """Let nothing more begin; the first reason is told."""
        with self._lock:
            self._wrong = self._wrong or error
        self.stopped.set()

    def _attempt(self, key: RunKey) -> RunResult:
        """Again while the network was not as configured, as often as was asked for."""
        for _ in range(self.attempts):
            result = self.run(key, self.plan.prepared[key.model])
            if result.facts.void is None or self.stopped.is_set():
                break
        return result

    def wait(self, timeout_s: float) -> None:
        """Wait until something has finished; raises why nothing more can."""
        self._changed.wait(timeout_s)
        self._changed.clear()
        if self._wrong is not None:
            raise self._wrong

    def progress(self, expected_s: float, jobs: int) -> Progress:
        with self._lock:
            now_s = time.monotonic()
            each_s = sum(self.took_s) / len(self.took_s) if self.took_s else expected_s
            spent_s = sum(min(now_s - began_s, each_s) for began_s in self.active.values())
            ended = len(self.finished) + len(self.failures)
            left_s = (len(self.plan.open) - ended) * each_s - spent_s
            return Progress(
                total=len(self.plan.keys),
                done=len(self.plan.done) + ended,
                resumed=len(self.plan.done),
                failed=len(self.failures),
                void=sum(each.facts.void is not None for each in self.finished),
                active=tuple(self.active),
                remaining_s=left_s / max(1, min(jobs, len(self.plan.open))),
            )
