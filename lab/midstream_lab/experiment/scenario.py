"""The scenario of an experiment: a TOML file as frozen values.

    duration = "60s"
    policies = ["oracle", "adaptive", "race", "fixed"]
    models = ["resnet18"]
    traces = ["8Mbit", "traces/*.txt", { generate = "lte" }]

    [link]
    rtt = "40ms"

docs/reference/experiments.md has every field.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, final

from pydantic import AfterValidator, BeforeValidator, Field

from midstream_edge.policies.registry import POLICIES, policy_heads
from midstream_lab.results.rows import RunKey
from midstream_lab.scenario_files.quantities import (
    CONFIG,
    Duration,
    Flag,
    Name,
    Points,
    Positive,
    Rate,
    Seeds,
    Share,
    Size,
    Slowdown,
    read_scenario,
    wrong,
)
from midstream_partitioner.codec_plugins import load_codecs
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.units import parse_rate
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

#: Stands for every placement that is best at some bandwidth, held for the whole run.
EVERY_FIXED = "fixed"

#: Longer runs, more of them, or more at a time than anybody means.
MAX_DURATION_S = 24 * 3600.0
MAX_JOBS = 256
MAX_ATTEMPTS = 10

Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]
Jobs = Annotated[int, Field(ge=1, le=MAX_JOBS, strict=True)]
Attempts = Annotated[int, Field(ge=1, le=MAX_ATTEMPTS, strict=True)]


@final
@dataclass(frozen=True, slots=True)
class LinkTable:
    """The emulated link besides its uplink, which a trace gives.

    Without `downlink` the way back follows the trace, too; without `queue` and `congestion`
    they are the emulation's.
    """

    __pydantic_config__ = CONFIG

    rtt_s: Duration = 0.040
    downlink_bps: Rate | None = None
    jitter_s: Duration = 0.0
    loss: Share = 0.0
    queue_nbytes: Size | None = None
    congestion: Name | None = None
    backend: Literal["auto", "kernel", "tun", "proxy"] = "auto"


@final
@dataclass(frozen=True, slots=True)
class SideTable:
    """One side's speed: threads, slowdown, and the backend of its segments."""

    __pydantic_config__ = CONFIG

    threads: Threads = 1
    slowdown: Slowdown = 1.0
    backend: Name | None = None
    provider: Name | None = None
    device: Name | None = None

    def run_by(self) -> tuple[str, ...]:
        """The flags of a backend, as commands take them; none for the default."""
        named = {"--backend": self.backend, "--provider": self.provider}
        named |= {"--device": self.device}
        return tuple(word for flag, value in named.items() if value for word in (flag, value))


def _interval(value: object) -> object:
    return None if value == "back-to-back" else value


@final
@dataclass(frozen=True, slots=True)
class LoadTable:
    """The times of requests: at an interval, or (None) each after the answer before it."""

    __pydantic_config__ = CONFIG

    every_s: Annotated[Duration | None, BeforeValidator(_interval)] = None


@final
@dataclass(frozen=True, slots=True)
class PlanningTable:
    """The placements that are allowed, as the flags of the same names."""

    __pydantic_config__ = CONFIG

    codecs: tuple[Name, ...] = ()
    private: Flag = False
    public: tuple[Name, ...] = ()
    lossless: Flag = False
    max_loss: Points | None = None
    min_agreement: Share | None = None
    max_error: Positive | None = None

    def flags(self) -> tuple[str, ...]:
        """As `midstream edge run` takes them."""
        flags = ["--codecs", ",".join(self.codecs)] if self.codecs else []
        flags += ["--private"] if self.private else []
        flags += [word for name in self.public for word in ("--public", name)]
        flags += ["--lossless"] if self.lossless else []
        flags += ["--max-loss", f"{self.max_loss:g}pt"] if self.max_loss is not None else []
        for name in ("min_agreement", "max_error"):
            bound = getattr(self, name)
            flags += [f"--{name.replace('_', '-')}", f"{bound:g}"] if bound is not None else []
        return tuple(flags)

    def constraints(self) -> Constraints:
        """The same for a planner."""
        return Constraints(
            min_depth=int(self.private),
            public=frozenset(self.public),
            codecs=self.codecs or None,
            lossless=self.lossless,
            max_loss=self.max_loss,
            min_agreement=self.min_agreement,
            max_error=self.max_error,
        )


def _model(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


@final
@dataclass(frozen=True, slots=True)
class ModelTable:
    """A network to be split: what commands take as MODEL, and what is sent through it."""

    __pydantic_config__ = CONFIG

    source: Name
    name: Name = ""
    input: Name | None = None

    def __post_init__(self) -> None:
        if not self.name:
            stem = Path(self.source).name.removesuffix(".onnx").removesuffix(".midstream")
            object.__setattr__(self, "name", stem)


def _trace(value: object) -> object:
    """A string is a rate, or else a file; a table has one source of rates."""
    if isinstance(value, str):
        try:
            parse_rate(value)
        except UsageError:
            return {"file": value}
        return {"rate": value, "name": value.replace(" ", "")}
    if not isinstance(value, Mapping):
        return value
    given = [name for name in ("file", "rate", "generate") if name in value]
    if len(given) != 1:
        came = " and ".join(given) or "none of them"
        raise wrong(f"must have one of file, rate and generate (not {came})")
    named = str(value.get("name") or value[given[0]])
    return value if given == ["file"] else {**value, "name": named}


@final
@dataclass(frozen=True, slots=True)
class TraceTable:
    """The uplink's rate: a file, a constant, or a generator seeded by the run's seed.

    `start` skips the beginning, `scale` multiplies the rates; `rtt` and `downlink` stand in
    for those of the link.
    """

    __pydantic_config__ = CONFIG

    name: Name = ""
    file: Name | None = None
    rate_bps: Rate | None = None
    generate: Name | None = None
    start_s: Duration = 0.0
    scale: Positive = 1.0
    rtt_s: Duration | None = None
    downlink_bps: Rate | None = None


def _waited_for(duration_s: float) -> float:
    if not 1 <= duration_s <= MAX_DURATION_S:
        raise wrong(f'must be from "1s" to "1440min" (not {duration_s:g} s)')
    return duration_s


def _known_policy(name: str) -> str:
    """Its details are looked at by the run, which knows the network."""
    known = policy_heads()
    head = name.partition(":")[0]
    if head not in known or name.endswith(":"):
        near = difflib.get_close_matches(head, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(POLICIES)}"
        raise wrong(f"must be a policy (not {name!r}): {hint}")
    return name


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [each for each, count in Counter(values).items() if count > 1]
    if twice:
        raise wrong(f"must name each once ({twice[0]!r} comes again)")
    return values


_EACH_ONCE = AfterValidator(_each_once)
PolicyName = Annotated[Name, AfterValidator(_known_policy)]


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: the runs and their number. Names in the file are these without units.

    `codec_plugins` are codecs of a user's own, which all processes load.
    """

    __pydantic_config__ = CONFIG

    policies: Annotated[tuple[PolicyName, ...], Field(min_length=1), _EACH_ONCE]
    models: Annotated[
        tuple[Annotated[ModelTable, BeforeValidator(_model)], ...], Field(min_length=1)
    ]
    traces: Annotated[
        tuple[Annotated[TraceTable, BeforeValidator(_trace)], ...], Field(min_length=1)
    ]
    title: Name = "An experiment"
    duration_s: Annotated[Duration, AfterValidator(_waited_for)] = 60.0
    seeds: Annotated[Seeds, _EACH_ONCE] = (0,)
    jobs: Jobs = 1
    attempts: Attempts = 2
    link: LinkTable = LinkTable()
    edge: SideTable = SideTable()
    cloud: SideTable = SideTable()
    load: LoadTable = LoadTable()
    planning: PlanningTable = PlanningTable()
    codec_plugins: Annotated[tuple[Name, ...], _EACH_ONCE] = ()


@final
@dataclass(frozen=True, slots=True)
class Experiment:
    """A scenario where it lies: relative paths made whole, patterns of files spelled out."""

    scenario: Scenario
    text: str

    def keys(self, policies: Mapping[str, Sequence[str]]) -> tuple[RunKey, ...]:
        """All runs; `policies` are those of each model. Policies that are to be compared run
        one after another, so that a machine that warms up or slows down favours none.
        """
        each = self.scenario
        return tuple(
            RunKey(model.name, trace.name, policy, seed)
            for seed in each.seeds
            for model in each.models
            for trace in each.traces
            for policy in policies[model.name]
        )

    def model(self, name: str) -> ModelTable:
        return next(each for each in self.scenario.models if each.name == name)

    def trace(self, name: str) -> TraceTable:
        return next(each for each in self.scenario.traces if each.name == name)


def load_experiment(path: Path) -> Experiment:
    """Read the scenario file at `path`, and load the codecs of a user's own that it names.

    `UsageError` names the first field that is wrong.
    """
    scenario = read_scenario(Scenario, path)
    load_codecs(scenario.codec_plugins)
    folder = path.parent
    try:
        spelled = (_spelled_out(table, folder) for table in scenario.traces)
        traces = tuple(chain.from_iterable(spelled))
        models = tuple(_located(each, folder) for each in scenario.models)
        _check_names("models", [each.name for each in models])
        _check_names("traces", [each.name for each in traces])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    found = replace(scenario, traces=traces, models=models)
    return Experiment(found, read_text(path, "a scenario"))


def _spelled_out(table: TraceTable, folder: Path) -> Iterable[TraceTable]:
    """One table per file that `table` names."""
    if table.file is None:
        return [table]
    pattern = str(folder / Path(table.file).expanduser())
    files = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).is_file() else [])
    if not files:
        raise UsageError(f"traces: a file must exist where it is named (not {pattern!r})")
    if len(files) > 1 and table.name:
        raise UsageError(
            f"traces: {table.file!r} names {len(files)} files, which cannot all be called "
            f"{table.name!r}: leave the name out"
        )
    return [replace(table, file=file, name=table.name or _stem(file)) for file in files]


def _stem(file: str) -> str:
    """lte.txt.gz is called lte, and ATT-LTE.up.gz keeps its direction."""
    return re.sub(r"(\.(txt|csv|tsv|log|gz|trace))+$", "", Path(file).name)


def _located(model: ModelTable, folder: Path) -> ModelTable:
    """Paths that exist beside the scenario are meant; anything else is a built-in name."""
    source, given = folder / model.source, model.input and folder / model.input
    found = str(source) if source.exists() else model.source
    if given and not Path(given).exists():
        raise UsageError(f"models: an input must exist where it is named (not {given!s})")
    return replace(model, source=found, input=str(given) if given else None)


def _check_names(table: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"{table}: each must have a name of its own, and {twice[0]!r} comes twice: add "
            "name to one of them"
        )
