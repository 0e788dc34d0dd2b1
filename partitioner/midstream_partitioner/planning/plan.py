"""Plans: which segments run on the edge and how what crosses is encoded, with the prediction.

Edge-only, cloud-only with the raw input and cloud-only with the compressed input are
candidates like any cut. When one of them is best, it is what the plan says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import final

from midstream_partitioner.costs.budget import Budget
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.planning.assess import Assessment
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.units import format_duration


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
