"""Words of the report on a fleet: failures, placements, times of day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from midstream_lab.simulation.fleet.charts import (
    Failure,
)
from midstream_lab.simulation.fleet.fleet import FleetOutcome, Group
from midstream_lab.simulation.fleet.statistics import HOUR_S
from midstream_lab.simulation.fleet.tables import (
    lasting,
)

#: What was to cross, and of which nothing was sent.
UNSENT = "unsent"


def hours_of(hours: float) -> str:
    return f"{hours:,.3g} h" if hours >= 1 else lasting(round(hours * HOUR_S))


def failures_told(outcome: FleetOutcome) -> Iterator[Failure]:
    """Return what failed while the fleet ran."""
    fleet = outcome.fleet
    for crash in outcome.downs:
        yield Failure(crash.at_s, crash.lasts_s, f"replica {crash.replica + 1} was down")
    for cut in fleet.link_failures:
        if cut.at_s < fleet.duration_s:
            share = "the" if cut.share == 1 else f"{cut.share * 100:g} % of the"
            lasts_s = min(cut.lasts_s, fleet.duration_s - cut.at_s)
            words = f"{share} links of {cut.group} were cut"
            yield Failure(cut.at_s, lasts_s, words)


def spared_told(outcome: FleetOutcome) -> int:
    """Return how many crashes found no replica that could go down."""
    return sum(
        crash.at_s < outcome.fleet.duration_s
        and not any(
            down.replica == crash.replica
            and down.at_s <= crash.at_s < down.at_s + down.lasts_s
            for down in outcome.downs
        )
        for crash in outcome.fleet.replica_failures
    )


def placement_told(cut: str, codec: str) -> str:
    return f"{cut} {codec}"


def placements_told(
    groups: Sequence[Group], chosen: Mapping[str, Mapping[str, float]]
) -> dict[str, str]:
    """Labels of all placements that were taken, from the edge's end to the cloud's."""
    depth: dict[str, float] = {}
    labels: dict[str, str] = {}
    for group in groups:
        placements = group.menu.placements
        whole = max(1, *(placement.k for placement in placements), 1)
        for each in placements:
            name = placement_told(each.cut, each.codec)
            if name in chosen[group.name]:
                depth.setdefault(name, each.k / whole)
                labels[name] = each.label
    return {each: labels[each] for each in sorted(labels, key=lambda e: (-depth[e], e))}
