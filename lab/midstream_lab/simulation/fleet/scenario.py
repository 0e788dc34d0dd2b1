"""A fleet as a TOML file (docs/reference/fleets.md has every field)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from pydantic import AfterValidator, Field

from midstream_edge.policies.registry import policy as policy_of
from midstream_edge.policies.registry import policy_heads
from midstream_edge.session.local_time import TIMEOUT_S
from midstream_lab.scenario_files.quantities import (
    CONFIG,
    Name,
    Seed,
    Share,
    read_scenario,
    wrong,
)
from midstream_lab.simulation.fleet.fleet import (
    ORACLE,
    PLAN,
    Fleet,
    Group,
    LinkFailure,
    ReplicaFailure,
)
from midstream_lab.simulation.fleet.scenario_tables import (
    CloudTable,
    Count,
    Delay,
    Deviation,
    Factor,
    RequestsTable,
    Span,
)
from midstream_lab.simulation.fleet.statistics import Prices
from midstream_lab.simulation.menu_file import MeasuredModel, read_menu
from midstream_lab.simulation.model.congestion_window import Congestion
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.generators import KINDS
from midstream_lab.traces.parsing import open_trace
from midstream_lab.traces.trace import Trace
from midstream_wire.errors import UsageError

#: Of the timeline; and how often autoscaling looks at the cloud.
MOST_INTERVALS, MOST_LOOKS = 100_000, 1_000_000
#: Of all groups; each takes some kilobytes.
MOST_EDGES = 1_000_000
#: Policies that a colon and more may follow.
_WITH_DETAIL = ("fixed", "cloud-only", "periodic", "python")
#: What there is of it where a scenario does not say.
_CLOUD = CloudTable()


def _known_policy(name: str) -> str:
    """Check the policy's form; the menu tells later if its placement exists."""
    heads = {PLAN: PLAN} | dict(policy_heads())
    head, colon, detail = name.partition(":")
    whole = bool(detail) and head in _WITH_DETAIL if colon else head not in ("fixed", "python")
    if head in heads and whole:
        return name
    near = difflib.get_close_matches(head, heads, n=1)
    hint = f": did you mean {heads[near[0]]!r}?" if near else ""
    known = ", ".join(heads.values())
    raise wrong(f"must be one of {known} (not {name!r}){hint}")


def _not_all(loss: float) -> float:
    if loss >= 1:
        raise wrong("must be below 100%, or nothing would ever arrive (not 100%)")
    return loss


PolicyName = Annotated[Name, AfterValidator(_known_policy)]
Loss = Annotated[Share, AfterValidator(_not_all)]


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """A group in the file: its number, counted from 1, and its name."""

    number: int
    name: str

    @contextmanager
    def field(self, name: str) -> Iterator[None]:
        """Return what is raised inside is told of the group's field `name`."""
        where = f"edges[{self.number}].{name} of {self.name!r}"
        try:
            yield
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(
                f"{where} must be readable ({error.filename}: {reason})"
            ) from None


@final
@dataclass(frozen=True, slots=True)
class LinkTable:
    """The network of a group: one by name, with traces, rates and delays of its own."""

    __pydantic_config__ = CONFIG

    network: Name = "lte"
    up: Name | None = None
    down: Name | None = None
    rtt_s: Delay | None = None
    jitter_s: Delay = 0.0
    loss: Loss = 0.0
    congestion: Congestion = "cubic"
    spread: Deviation = 0.0
    scale: Factor = 1.0

    def build(self, folder: Path, place: _Place) -> Network:
        with place.field("link.network"):
            named = condition(self.network)
        with place.field("link.up"):
            uplink = _trace(self.up, folder)
        with place.field("link.down"):
            downlink = _trace(self.down, folder)
        base = Network.of(named, uplink=uplink, downlink=downlink)
        with place.field("link.scale"):
            up, down = base.uplink.scaled(self.scale), base.downlink.scaled(self.scale)
        return Network(
            up,
            down,
            base.rtt_s if self.rtt_s is None else self.rtt_s,
            jitter_s=self.jitter_s,
            loss=self.loss,
            congestion=self.congestion,
            share=base.share,
        )


@final
@dataclass(frozen=True, slots=True)
class EdgesTable:
    """A group of edges alike."""

    __pydantic_config__ = CONFIG

    name: Name
    menu: Name
    requests: RequestsTable
    count: Count = 1
    policy: PolicyName = PLAN
    slowdown: Factor = 1.0
    scatter: Deviation | None = None
    deadline_s: Span | None = None
    timeout_s: Span = TIMEOUT_S
    link: LinkTable = LinkTable()

    def build(self, folder: Path, number: int) -> Group:
        place = _Place(number, self.name)
        with place.field("menu"):
            measured = read_menu(folder / self.menu)
        network = self.link.build(folder, place)
        with place.field("policy"):
            _try_policy(self.policy, measured, network)
        scatter = measured.scatter if self.scatter is None else self.scatter
        return Group(
            name=self.name,
            count=self.count,
            menu=measured.menu,
            device=measured.device,
            network=network,
            arrivals=self.requests.build(),
            policy=self.policy,
            machine=Machine(self.slowdown, scatter),
            spread=self.link.spread,
            deadline_s=self.deadline_s,
            timeout_s=self.timeout_s,
        )


@final
@dataclass(frozen=True, slots=True)
class FailureTable:
    """A replica (numbered from 1), or a share of a group's links, away for a while."""

    __pydantic_config__ = CONFIG

    at_s: Delay
    lasts_s: Span
    replica: Count | None = None
    edges: Name | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        if (self.replica is None) == (self.edges is None):
            raise wrong("must have a replica's number or the edges of a group, one of the two")
        if self.replica is not None and self.share is not None:
            raise wrong("is of a group's edges: a replica fails as a whole", "share")


@final
@dataclass(frozen=True, slots=True)
class FleetScenario:
    """The whole file."""

    __pydantic_config__ = CONFIG

    duration_s: Span
    edges: Annotated[tuple[EdgesTable, ...], Field(min_length=1, max_length=1000)]
    cloud: CloudTable = _CLOUD
    failures: tuple[FailureTable, ...] = ()
    seed: Seed = 0
    interval_s: Span = 60.0

    def __post_init__(self) -> None:
        self._check_edges()
        for at, failure in enumerate(self.failures):
            self._check_failure(failure, at)
        self._check_steps(self.interval_s, MOST_INTERVALS, "interval")
        rule = self.cloud.autoscaling
        if rule is not None:
            self._check_steps(rule.every_s, MOST_LOOKS, "cloud", "autoscaling", "every")

    def _check_edges(self) -> None:
        names = [group.name for group in self.edges]
        for at, name in enumerate(names):
            if name in names[:at]:
                first = names.index(name) + 1
                sentence = f"must be no other group's ({name!r} is that of edges[{first}])"
                raise wrong(sentence, "edges", at, "name")
        count = sum(group.count for group in self.edges)
        if count > MOST_EDGES:
            raise wrong(f"must be at most {MOST_EDGES:,} together (not {count:,})", "edges")

    def _check_failure(self, failure: FailureTable, at: int) -> None:
        names, most = [group.name for group in self.edges], self.cloud.replicas
        where = ("failures", at)
        if failure.edges is not None and failure.edges not in names:
            known = ", ".join(names)
            raise wrong(f"must be one of {known} (not {failure.edges!r})", *where, "edges")
        if failure.replica is not None and failure.replica > most:
            sentence = f"must be from 1 to cloud.replicas, {most} (not {failure.replica})"
            raise wrong(sentence, *where, "replica")
        if failure.at_s >= self.duration_s:
            end, begin = f"{self.duration_s:g} s", f"{failure.at_s:g} s"
            raise wrong(f"must be before the end at {end} (not {begin})", *where, "at")

    def _check_steps(self, step_s: float, most: int, *where: str) -> None:
        if self.duration_s / step_s > most:
            raise wrong(
                f"must divide the duration into at most {most:,} parts (not "
                f"{self.duration_s:g} s into parts of {step_s:g} s): take a longer one",
                *where,
            )

    @property
    def prices(self) -> Prices:
        return Prices(self.cloud.replica_hour, self.cloud.gigabyte)

    def build(self, folder: Path) -> Fleet:
        """The fleet; menus and traces are looked for beside the file."""
        return Fleet(
            groups=tuple(each.build(folder, at) for at, each in enumerate(self.edges, 1)),
            replicas=self.cloud.build(),
            duration_s=self.duration_s,
            seed=self.seed,
            interval_s=self.interval_s,
            replica_failures=tuple(_replica_failures(self.failures)),
            link_failures=tuple(_link_failures(self.failures)),
        )


def read_fleet(path: Path) -> tuple[FleetScenario, Fleet]:
    """The scenario in the TOML file at `path`, and its fleet.

    Raises `UsageError` for the first thing that is wrong, naming the field.
    """
    scenario = read_scenario(FleetScenario, path)
    try:
        return scenario, scenario.build(path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _replica_failures(tables: Iterable[FailureTable]) -> Iterable[ReplicaFailure]:
    for each in tables:
        if each.replica is not None:
            yield ReplicaFailure(each.replica - 1, each.at_s, each.lasts_s)


def _link_failures(tables: Iterable[FailureTable]) -> Iterable[LinkFailure]:
    for each in tables:
        if each.edges is not None:
            share = 1.0 if each.share is None else each.share
            yield LinkFailure(each.edges, each.at_s, each.lasts_s, share)


def _trace(text: str | None, folder: Path) -> Trace | None:
    if text is None:
        return None
    kind = text.partition(":")[0]
    return open_trace(text if kind in KINDS else str(folder / text))


def _try_policy(name: str, measured: MeasuredModel, network: Network) -> None:
    """Raises `UsageError` where the policy names what the menu does not have."""
    if name not in (PLAN, ORACLE):
        policy_of(name, measured.menu, link=network.mean_link(), device=measured.device)
