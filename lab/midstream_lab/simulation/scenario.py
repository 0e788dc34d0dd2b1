"""A fleet as a TOML file (docs/simulation.md has every field)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import Field

from midstream_edge.pace import TIMEOUT_S
from midstream_lab.conditions import condition
from midstream_lab.experiment.fields import (
    CONFIG,
    Duration,
    Name,
    Seed,
    Share,
    read_scenario,
    wrong,
)
from midstream_lab.simulation.arrivals import (
    Arrivals,
    Bursts,
    Closed,
    Diurnal,
    Every,
    Poisson,
)
from midstream_lab.simulation.cloud import Autoscaling, Balancing, Replicas
from midstream_lab.simulation.edge import Machine
from midstream_lab.simulation.fleet import (
    PLAN,
    Fleet,
    Group,
    LinkFailure,
    ReplicaFailure,
)
from midstream_lab.simulation.menus import read_menu
from midstream_lab.simulation.network import Congestion, Network
from midstream_lab.simulation.operating import Prices
from midstream_lab.simulation.station import Batching
from midstream_lab.traces import Trace, open_trace
from midstream_lab.traces.generators import KINDS
from midstream_wire.errors import UsageError

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Factor = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False, strict=True)]
Deviation = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)]
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Hertz = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]


@final
@dataclass(frozen=True, slots=True)
class BatchTable:
    """Requests of a kind that a worker runs together."""

    __pydantic_config__ = CONFIG

    most: Count = 1
    wait_s: Duration = 0.0
    marginal: Part = 1.0


@final
@dataclass(frozen=True, slots=True)
class ScalingTable:
    """When replicas are added and taken away."""

    __pydantic_config__ = CONFIG

    least: Count
    most: Count
    high: Part = 0.7
    low: Part = 0.3
    every_s: Duration = 30.0
    start_s: Duration = 20.0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise wrong(f"must have least up to most (not {self.least} and {self.most})")
        if self.low >= self.high:
            raise wrong(f"must have low below high (not {self.low} and {self.high})")
        if self.every_s <= 0:
            raise wrong('must look every so often, such as every = "30s" (not every 0s)')


@final
@dataclass(frozen=True, slots=True)
class CloudTable:
    """The replicas, and what they cost."""

    __pydantic_config__ = CONFIG

    replicas: Count = 1
    workers: Count = 1
    slowdown: Factor = 1.0
    queue: Count = 64
    balancing: Balancing = "round-robin"
    batch: BatchTable | None = None
    autoscaling: ScalingTable | None = None
    replica_hour: Price = 0.0
    gigabyte: Price = 0.0

    def build(self) -> Replicas:
        batch, scaling = self.batch, self.autoscaling
        return Replicas(
            count=self.replicas,
            workers=self.workers,
            slowness=self.slowdown,
            most_queued=self.queue,
            batching=Batching(batch.most, batch.wait_s, batch.marginal)
            if batch
            else Batching(),
            balancing=self.balancing,
            autoscaling=None
            if scaling is None
            else Autoscaling(
                scaling.least,
                scaling.most,
                high=scaling.high,
                low=scaling.low,
                every_s=scaling.every_s,
                start_s=scaling.start_s,
            ),
        )


#: What each process of arrivals needs besides its kind, and may have.
_NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "closed": ((), ("think",)),
    "every": (("every",), ()),
    "poisson": (("rate",), ()),
    "bursts": (("rate", "on", "off"), ()),
    "diurnal": (("rate",), ("swing", "period")),
}


@final
@dataclass(frozen=True, slots=True)
class RequestsTable:
    """When requests come; `rate` is of one edge, a second."""

    __pydantic_config__ = CONFIG

    kind: Literal["closed", "every", "poisson", "bursts", "diurnal"]
    rate: Hertz | None = None
    every_s: Duration | None = None
    think_s: Duration | None = None
    on_s: Duration | None = None
    off_s: Duration | None = None
    swing: Share | None = None
    period_s: Duration | None = None

    def __post_init__(self) -> None:
        needs, may = _NEEDS[self.kind]
        values = {
            "rate": self.rate,
            "every": self.every_s,
            "think": self.think_s,
            "on": self.on_s,
            "off": self.off_s,
            "swing": self.swing,
            "period": self.period_s,
        }
        for name, value in values.items():
            if value is None and name in needs:
                raise wrong(f"of kind {self.kind!r} must have {', '.join(needs)}")
            if value is not None and name not in (*needs, *may):
                fields = ", ".join((*needs, *may)) or "nothing else"
                raise wrong(f"of kind {self.kind!r} must have {fields} (not {name!r})")
            if value is not None and value <= 0 and name not in ("think", "swing"):
                raise wrong(f"must have {name} above zero (not {value!r})")

    def build(self) -> Arrivals:
        rate_hz = self.rate or 0.0
        match self.kind:
            case "closed":
                return Closed(self.think_s or 0.0)
            case "every":
                return Every(self.every_s or 0.0)
            case "poisson":
                return Poisson(rate_hz)
            case "bursts":
                return Bursts(rate_hz, self.on_s or 0.0, self.off_s or 0.0)
        given = {"swing": self.swing, "period_s": self.period_s}
        return Diurnal(rate_hz, **{k: v for k, v in given.items() if v is not None})


@final
@dataclass(frozen=True, slots=True)
class LinkTable:
    """The network of a group: one by name, with traces, rates and delays of its own."""

    __pydantic_config__ = CONFIG

    network: Name = "lte"
    up: Name | None = None
    down: Name | None = None
    rtt_s: Duration | None = None
    jitter_s: Duration = 0.0
    loss: Share = 0.0
    congestion: Congestion = "cubic"
    spread: Deviation = 0.0
    scale: Factor = 1.0

    def build(self, folder: Path) -> Network:
        base = Network.of(
            condition(self.network),
            uplink=_trace(self.up, folder),
            downlink=_trace(self.down, folder),
        )
        return Network(
            base.uplink.scaled(self.scale),
            base.downlink.scaled(self.scale),
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
    policy: Name = PLAN
    slowdown: Factor = 1.0
    scatter: Deviation = 0.0
    deadline_s: Duration | None = None
    timeout_s: Duration = TIMEOUT_S
    link: LinkTable = LinkTable()

    def build(self, folder: Path) -> Group:
        offered = read_menu(folder / self.menu)
        return Group(
            name=self.name,
            count=self.count,
            menu=offered.menu,
            device=offered.device,
            network=self.link.build(folder),
            arrivals=self.requests.build(),
            policy=self.policy,
            machine=Machine(self.slowdown, self.scatter),
            spread=self.link.spread,
            deadline_s=self.deadline_s,
            timeout_s=self.timeout_s,
        )


@final
@dataclass(frozen=True, slots=True)
class FailureTable:
    """A replica (numbered from 1), or a share of a group's links, away for a while."""

    __pydantic_config__ = CONFIG

    at_s: Duration
    lasts_s: Duration
    replica: Count | None = None
    edges: Name | None = None
    share: Share = 1.0

    def __post_init__(self) -> None:
        if (self.replica is None) == (self.edges is None):
            raise wrong("must have a replica's number or the edges of a group, one of the two")
        if self.lasts_s <= 0:
            raise wrong("must last for a while (not 0 s)")


@final
@dataclass(frozen=True, slots=True)
class FleetScenario:
    """The whole file."""

    __pydantic_config__ = CONFIG

    duration_s: Duration
    edges: Annotated[tuple[EdgesTable, ...], Field(min_length=1, max_length=1000)]
    cloud: CloudTable = CloudTable()
    failures: tuple[FailureTable, ...] = ()
    seed: Seed = 0
    interval_s: Duration = 60.0

    def __post_init__(self) -> None:
        names = [group.name for group in self.edges]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise wrong(f"must have edges of different names ({name!r} comes twice)")
        most = self.cloud.replicas
        for failure in self.failures:
            if failure.edges is not None and failure.edges not in names:
                known = ", ".join(names)
                raise wrong(f"must have failures of edges in {known} (not {failure.edges!r})")
            if failure.replica is not None and failure.replica > most:
                raise wrong(
                    f"must have failures of replicas 1 to {most} (not {failure.replica})"
                )

    @property
    def prices(self) -> Prices:
        return Prices(self.cloud.replica_hour, self.cloud.gigabyte)

    def build(self, folder: Path) -> Fleet:
        """The fleet; menus and traces are looked for beside the file."""
        return Fleet(
            groups=tuple(each.build(folder) for each in self.edges),
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
            yield LinkFailure(each.edges, each.at_s, each.lasts_s, each.share)


def _trace(text: str | None, folder: Path) -> Trace | None:
    if text is None:
        return None
    kind = text.partition(":")[0]
    return open_trace(text if kind in KINDS else str(folder / text))
