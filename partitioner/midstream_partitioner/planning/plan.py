"""Plans: which segments run on the edge and how what crosses is encoded, with the prediction.

Edge-only, cloud-only with the raw input and cloud-only with the compressed input are
candidates like any cut. When one of them is best, it is what the plan says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import final

from midstream_partitioner.costs.calibration import (
    Budget,
    Calibration,
)
from midstream_partitioner.costs.confidence_bounds import CONFIDENCE
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import (
    UNCONSTRAINED,
    Constraints,
)
from midstream_partitioner.planning.placements import (
    Assessment,
    Pipeline,
    Placement,
    assess,
)
from midstream_partitioner.units import format_duration
from midstream_wire.errors import PlanError, UsageError
from midstream_wire.limits import MAX_IN_FLIGHT

OBJECTIVES = ("latency", "throughput", "energy")


@final
@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement with its prediction over one link."""

    assessment: Assessment
    estimate: Estimate
    energy_j: float
    throughput_hz: float

    @property
    def placement(self) -> Placement:
        """The placement that is priced."""
        return self.assessment.placement

    @property
    def cut(self) -> str:
        """The cut's id."""
        return self.placement.cut

    @property
    def codec(self) -> str:
        """The codec of what crosses."""
        return self.placement.codec

    @property
    def k(self) -> int:
        """The number of segments on the edge."""
        return self.placement.k

    @property
    def label(self) -> str:
        """The placement for people."""
        return self.placement.label

    @property
    def latency_s(self) -> float:
        """The predicted total of one request."""
        return self.estimate.total_s

    def value(self, objective: str) -> float:
        """Return what `objective` makes small: seconds, seconds between two answers, or
        joules.
        """
        if objective == "energy":
            return self.energy_j
        return self.latency_s if objective == "latency" else 1 / self.throughput_hz


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """The best candidate, all others best first, and those that the constraints rule out.

    `chosen` may be replaced by another of the candidates; `explain` then says so. `accuracy`
    says in words what the plan keeps to, and `budget` in figures where there are any.
    """

    chosen: Candidate
    runner_up: Candidate | None
    candidates: tuple[Candidate, ...]
    link: Link
    objective: str
    rejected: tuple[tuple[Candidate, str], ...]
    accuracy: str
    budget: Budget | None = None

    def explain(self) -> str:
        """In one or two sentences: what wins, and by how much over what else there is."""
        best = self.chosen
        first = self.candidates[0]
        if best != first:
            asked = f"{best.label[:1].upper()}{best.label[1:]} was asked for"
            return (
                f"{asked}, with {self._figure(best)}; the best would be {first.label}, "
                f"with {self._figure(first)}."
            )
        text = f"{best.label[:1].upper()}{best.label[1:]} wins with {self._figure(best)}"
        others = [self._compared(other) for other in self._rivals()]
        if others:
            text += ": " + ", ".join(others)
        trivial = (CLOUD_ONLY, EDGE_ONLY)
        if best.cut in trivial and any(c.cut not in trivial for c in self.candidates):
            text += ". No cut inside the model is better here"
        return text + "."

    def scaled(self) -> str:
        """Tell the codecs whose times were scaled on a side, not measured; "" if all were."""
        said = []
        for side, field in (("edge", "encode_scale"), ("cloud", "decode_scale")):
            found = [(c.codec, getattr(c.assessment, field)) for c in self.candidates]
            scales = {codec: scale for codec, scale in found if scale is not None}
            if scales:
                least, most = min(scales.values()), max(scales.values())
                said.append(
                    f"of {', '.join(scales)} on the {side}, {least:.2g} to {most:.2g} times "
                    "those of the machine that measured them"
                )
        return "; ".join(said)

    def _rivals(self) -> list[Candidate]:
        """Return what the choice is compared with: the runner-up and the best trivial
        placements.
        """
        kinds: tuple[Callable[[Candidate], bool], ...] = (
            lambda c: c is self.runner_up,
            lambda c: c.cut == EDGE_ONLY,
            lambda c: c.cut == CLOUD_ONLY and c.codec != "raw",
            lambda c: c.cut == CLOUD_ONLY and c.codec == "raw",
        )
        firsts = [next(filter(kind, self.candidates), self.chosen) for kind in kinds]
        return [c for c in dict.fromkeys(firsts) if c is not self.chosen]

    def _figure(self, candidate: Candidate) -> str:
        if self.objective == "latency":
            return format_duration(candidate.latency_s)
        if self.objective == "energy":
            return f"{candidate.energy_j:.3g} J"
        return f"{candidate.throughput_hz:.3g} answers/s"

    def _compared(self, other: Candidate) -> str:
        more, times = _WORSE[self.objective]
        best, rival = (c.value(self.objective) for c in (self.chosen, other))
        ratio = rival / best if best > 0 else inf
        if ratio < 1.0005:
            return f"{other.label} is level ({self._figure(other)})"
        by = f"{ratio:.3g} {times}" if ratio >= 2 else f"{(ratio - 1) * 100:.2g} % {more}"
        return f"{other.label} takes {by} ({self._figure(other)})"


_WORSE = {
    "latency": ("longer", "times as long"),
    "throughput": ("longer per answer", "times as long per answer"),
    "energy": ("more energy", "times the energy"),
}


@final
class Planner:
    """A planner of one partition on two devices, made once; `plan` then only prices a link.

    With a `calibration` on data, the partition's own unless another is given, every codec that
    keeps to the budget is a candidate; without one, only those of which it is known
    beforehand. `window` requests of a session may be under way at a time; how many tails run
    at once is the cloud device's `workers`. What is planned are inputs of the edge's sizes,
    on both sides; `at` plans others. Raises `UsageError` for an unknown
    objective, for profiles or a calibration of another partition, for a budget that nothing
    was calibrated for, and where no profile has measured any of the codecs named.
    """

    def __init__(
        self,
        partition: Partition,
        edge: Profile,
        cloud: Profile,
        *,
        objective: str = "latency",
        constraints: Constraints = UNCONSTRAINED,
        calibration: Calibration | None = None,
        window: int = MAX_IN_FLIGHT,
    ) -> None:
        if objective not in OBJECTIVES:
            raise UsageError(
                f"an objective must be one of {', '.join(OBJECTIVES)} (not {objective!r})"
            )
        self.objective = objective
        self._curves = Curve(edge), Curve(cloud)
        self._of = partial(
            Planner,
            partition,
            objective=objective,
            constraints=constraints,
            calibration=calibration,
            window=window,
        )
        self.sizes = edge.sizes
        cloud = self._curves[1].at(edge.sizes)
        self.device: Device = edge.device
        self.pipeline = Pipeline.of(edge.device, cloud.device, window)
        self.deadline_s = inf if constraints.deadline_s is None else constraints.deadline_s
        calibration = calibration or partition.calibration
        found = assess(partition, edge, cloud, calibration)
        _check_codecs(constraints, found)
        self.budget = constraints.budget(calibration)
        self.accuracy = _accuracy(constraints, self.budget, calibration)
        secret = constraints.secret_of(partition)
        judged = [
            (each, constraints.objection(each, self.budget, calibration, secret=secret))
            for each in found
        ]
        self._allowed = tuple(each for each, objection in judged if objection is None)
        self._refused = tuple((each, why) for each, why in judged if why is not None)
        #: By k. Where edge-only is refused, the edge cannot run what is behind a cut, either.
        self.allowed = tuple(each.placement for each in self._allowed)
        if all(placement.remote for placement in self.allowed):
            self.allowed = tuple(replace(each, rest_s=None) for each in self.allowed)

    def at(self, sizes: Sizes) -> Planner:
        """The same for inputs whose open dimensions have `sizes`, on both sides."""
        edge, cloud = (curve.at(sizes) for curve in self._curves)
        planner = self._of(edge, cloud)
        planner._curves = self._curves
        return planner

    def only(self, placements: Collection[tuple[str, str]]) -> Planner:
        """The same with no more than these cuts and codecs, which makes `at` faster.

        All of it, where a side has not measured one of them: its time is then scaled by all.
        """
        profiles = [curve.profile.only(placements) for curve in self._curves]
        remote = {(cut, codec) for cut, codec in placements if cut != EDGE_ONLY}
        if any({(c.cut, c.codec) for c in found.codecs} != remote for found in profiles):
            return self
        return self._of(*profiles)

    @property
    def buckets(self) -> tuple[Sizes, ...]:
        """The sizes that the edge was measured at besides those that are planned."""
        return tuple(sizes for sizes in self._curves[0].sizes if sizes != self.sizes)

    @property
    def told(self) -> str:
        """Return where the figures go beyond the sizes that were measured; "" where they do
        not.
        """
        edge, cloud = self._curves
        said = edge.told(self.sizes, "the edge's") or cloud.told(self.sizes, "the cloud's")
        return said and f"figures go on as the costs do: {said}"

    def plan(self, link: Link, *, queue_s: float = 0.0) -> Plan:
        """The best of all candidates over `link`; `PlanError` if the constraints leave none.

        Equals are ordered by latency, then by fewer segments on the edge, then as measured.
        """
        priced = [self._candidate(each, link, queue_s) for each in self._allowed]
        kept = [c for c in priced if c.latency_s <= self.deadline_s]
        late = [c for c in priced if c.latency_s > self.deadline_s]
        deadline = format_duration(self.deadline_s)
        rejected = [
            (4, c, f"takes {format_duration(c.latency_s)}, {deadline} allowed") for c in late
        ]
        rejected += [
            (stage, self._candidate(each, link, queue_s), reason)
            for each, (stage, reason) in self._refused
        ]
        rejected.sort(key=lambda entry: (-entry[0], *self._rank(entry[1])))
        if not kept:
            raise _no_plan(rejected)
        kept.sort(key=self._rank)
        return Plan(
            chosen=kept[0],
            runner_up=kept[1] if len(kept) > 1 else None,
            candidates=tuple(kept),
            link=link,
            objective=self.objective,
            rejected=tuple((candidate, reason) for _, candidate, reason in rejected),
            accuracy=self.accuracy,
            budget=self.budget,
        )

    def _candidate(self, found: Assessment, link: Link, queue_s: float) -> Candidate:
        period_s = found.placement.period_s(link, self.pipeline, queue_s)
        return Candidate(
            found,
            found.placement.estimate(link, queue_s),
            energy_j=found.placement.energy_j(self.device, link, queue_s),
            throughput_hz=1 / period_s if period_s > 0 else inf,
        )

    def _rank(self, candidate: Candidate) -> tuple[float, float]:
        return candidate.value(self.objective), candidate.latency_s


def plan(
    partition: Partition,
    edge: Profile,
    cloud: Profile,
    link: Link,
    *,
    objective: str = "latency",
    constraints: Constraints = UNCONSTRAINED,
    calibration: Calibration | None = None,
    queue_s: float = 0.0,
    window: int = MAX_IN_FLIGHT,
) -> Plan:
    """The best placement of `partition` over `link`: a `Planner` used once.

    Raises `PlanError` if the constraints leave no candidate, `UsageError` as `Planner` does.
    """
    planner = Planner(
        partition,
        edge,
        cloud,
        objective=objective,
        constraints=constraints,
        calibration=calibration,
        window=window,
    )
    return planner.plan(link, queue_s=queue_s)


def _accuracy(
    constraints: Constraints, budget: Budget | None, calibration: Calibration | None
) -> str:
    """Return what plans under these constraints keep to, in a sentence without a full stop."""
    if constraints.lossless:
        return "lossless: only codecs that change nothing"
    if budget is not None and calibration is not None:
        return _budgeted(budget, calibration)
    if constraints.codecs is not None:
        return "codecs as named, whatever they lose"
    return (
        "not calibrated: lossless codecs and half precision; of a picture, JPEG and WebP as "
        "people send them"
    )


def _budgeted(budget: Budget, calibration: Calibration) -> str:
    whose = "by default" if budget.default else "as asked"
    count, needed = calibration.samples, budget.samples_needed(calibration)
    text = (
        f"{budget.describe(calibration.metric)} ({whose}), with {CONFIDENCE * 100:g} % "
        f"confidence on {count} samples of {calibration.data}"
    )
    if needed == inf:
        return f"{text}; no number of samples proves that nothing at all changes"
    if count < needed:
        text += f"; {needed:.0f} or more are needed to show that: calibrate with more samples"
    return text


def _check_codecs(constraints: Constraints, found: Sequence[Assessment]) -> None:
    sendable = [each.placement for each in found if not each.obstacle]
    measured = sorted({placement.codec for placement in sendable if placement.remote})
    if constraints.codecs and measured and not set(constraints.codecs) & set(measured):
        raise UsageError(
            f"the codecs of a plan must have been measured on both sides; "
            f"{', '.join(constraints.codecs)} was not, but {', '.join(measured)}: name one of "
            "these, or profile again"
        )


def _no_plan(rejected: Sequence[tuple[int, Candidate, str]]) -> PlanError:
    if not rejected:
        return PlanError(
            "a plan needs at least one placement that both profiles cover, and there is none: "
            "profile more segments on the edge, or the same codecs on both sides"
        )
    _, nearest, reason = rejected[0]
    return PlanError(
        f"at least one candidate must keep to the constraints, and none of {len(rejected)} "
        f"does; nearest is {nearest.label}, which {reason}: loosen that constraint"
    )
