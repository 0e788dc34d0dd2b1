"""The planner: prices all placements of one partition over a link, and picks the best."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import TypedDict, Unpack, final

from midstream_partitioner.costs.budget import Budget
from midstream_partitioner.costs.calibration import Calibration
from midstream_partitioner.costs.confidence_bounds import CONFIDENCE
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.graph.cuts import EDGE_ONLY
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.assess import Assessment, assess
from midstream_partitioner.planning.constraints import (
    UNCONSTRAINED,
    Constraints,
)
from midstream_partitioner.planning.placements import Pipeline
from midstream_partitioner.planning.plan import Candidate, Plan
from midstream_partitioner.units import format_duration
from midstream_wire.errors import PlanError, UsageError
from midstream_wire.limits import MAX_IN_FLIGHT

OBJECTIVES = ("latency", "throughput", "energy")


class Goal(TypedDict, total=False):
    """The part of a `Planner`'s arguments that says what its plans must achieve, by name.

    `objective` is one of `OBJECTIVES` and "latency" by default. `constraints` are
    `UNCONSTRAINED`, `calibration` is the partition's own and `window` is `MAX_IN_FLIGHT`
    requests where they are not given.
    """

    objective: str
    constraints: Constraints
    calibration: Calibration | None
    window: int


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
    queue_s: float = 0.0,
    **goal: Unpack[Goal],
) -> Plan:
    """Return the best placement of `partition` over `link`: a `Planner` used once.

    `queue_s` is how long a request waits in the cloud, in seconds. Raises `PlanError` if the
    constraints leave no candidate, `UsageError` as `Planner` does.
    """
    return Planner(partition, edge, cloud, **goal).plan(link, queue_s=queue_s)


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
        "not calibrated: lossless codecs and half precision; of a picture, JPEG, WebP and "
        "AVIF as people send them"
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
