"""The tables of a scenario that name nothing else: the cloud, and when requests come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from pydantic import AfterValidator, Field

from midstream_lab.scenario_files.quantities import (
    CONFIG,
    Duration,
    Share,
    above,
    within,
    wrong,
)
from midstream_lab.simulation.model.arrivals import (
    Arrivals,
    Bursts,
    Closed,
    Diurnal,
    Every,
    Poisson,
)
from midstream_lab.simulation.model.cloud import Autoscaling, Balancing, Replicas
from midstream_lab.simulation.model.replica import Batching

#: More than a year.
MOST_HOURS = 10_000
#: With less than this in a burst, drawing when the next request comes would take for ever.
LEAST_IN_A_BURST = 0.01


def _bounded(seconds: float) -> float:
    if seconds > MOST_HOURS * 3600:
        raise wrong(f'must be at most "{MOST_HOURS}h" (not {seconds:g} s)')
    return seconds


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise wrong('must be above zero, such as "40ms" (not 0 s)')
    return seconds


Delay = Annotated[Duration, AfterValidator(_bounded)]
Span = Annotated[Delay, AfterValidator(_positive)]
Count = Annotated[int, Field(strict=True), within(1, 1_000_000)]
Factor = Annotated[float, Field(strict=True), above(0, 10_000)]
Deviation = Annotated[float, Field(strict=True), within(0, 2)]
Price = Annotated[float, Field(strict=True), within(0, 1_000_000_000)]
Hertz = Annotated[float, Field(strict=True), above(0, 1_000_000)]


@final
@dataclass(frozen=True, slots=True)
class BatchTable:
    """Requests of a kind that a worker runs together."""

    __pydantic_config__ = CONFIG

    most: Count = 1
    wait_s: Delay = 0.0
    marginal: Share = 1.0


@final
@dataclass(frozen=True, slots=True)
class ScalingTable:
    """The rule by which replicas are added and taken away."""

    __pydantic_config__ = CONFIG

    least: Count
    most: Count
    high: Share = 0.7
    low: Share = 0.3
    every_s: Span = 30.0
    start_s: Delay = 20.0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise wrong(f"must have least up to most (not {self.least} and {self.most})")
        if self.low >= self.high:
            raise wrong(f"must have low below high (not {self.low:g} and {self.high:g})")


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

    def __post_init__(self) -> None:
        rule = self.autoscaling
        if rule is not None and not rule.least <= self.replicas <= rule.most:
            raise wrong(
                f"must be from autoscaling's least to its most, {rule.least} to {rule.most}, "
                f"at first (not {self.replicas})",
                "replicas",
            )

    def build(self) -> Replicas:
        batch, scaling = self.batch, self.autoscaling
        return Replicas(
            count=self.replicas,
            workers=self.workers,
            slowdown=self.slowdown,
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
    """The times of requests; `rate` is of one edge, a second."""

    __pydantic_config__ = CONFIG

    kind: Literal["closed", "every", "poisson", "bursts", "diurnal"]
    rate: Hertz | None = None
    every_s: Span | None = None
    think_s: Delay | None = None
    on_s: Span | None = None
    off_s: Span | None = None
    swing: Share | None = None
    period_s: Span | None = None

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
        in_a_burst = (self.rate or 0.0) * (self.on_s or 0.0)
        if self.kind == "bursts" and in_a_burst < LEAST_IN_A_BURST:
            raise wrong(
                f"of kind 'bursts' must have {LEAST_IN_A_BURST} requests a burst or more in "
                f"the mean, which is rate times on (not {in_a_burst:g})"
            )

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
