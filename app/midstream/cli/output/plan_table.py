"""A plan as people read it: a table of candidates, and from which bandwidth on each wins."""

from __future__ import annotations

from midstream.cli.output import console
from midstream_partitioner.costs.timings import FIELDS
from midstream_partitioner.planning.envelope import Envelope
from midstream_partitioner.planning.plan import Candidate, Plan
from midstream_partitioner.units import (
    format_nbytes,
)

#: The envelope is told, and drawn, over this range: from a poor 2G cell to a fast wire.
FROM_BPS, TO_BPS = 50e3, 10e9


#: Rows of the table for one cut, where a whole ladder of codecs was calibrated.
MOST_PER_CUT = 4


def print_plan(made: Plan, rows: Envelope, *, title: str) -> None:
    """The table of candidates, the sentence that explains it, and the envelope."""
    fields = [name.removesuffix("_s") for name in FIELDS]
    accuracy = ("agreement", "loss") if made.budget is not None else ()
    listing = console.table(
        title, "", "candidate", "payload", *fields, "total ms", "energy", "rate", *accuracy,
        left=("", "candidate"),
    )  # fmt: skip
    listed = _listed(made)
    for candidate in listed:
        cells = _cells(candidate) + (_accuracy(candidate) if accuracy else [])
        listing.add_row(_mark(made, candidate), console.elided(candidate.label), *cells)
    console.show(listing)
    if len(listed) < len(made.candidates):
        hidden = len(made.candidates) - len(listed)
        console.say(
            f"and {hidden} more, slower at the same cuts (--json has all)", style="dim"
        )
    console.say(made.explain())
    console.say(f"accuracy: {made.accuracy}")
    if made.scaled():
        console.say(f"not measured but scaled are the times {made.scaled()}")
    console.say(f"over the uplink: {rows.sentence()}")
    if made.rejected:
        shown = {f"{candidate.label} {why}": None for candidate, why in made.rejected}
        first, more = next(iter(shown)), len(shown) - 1
        others = f", and {more} more (--json has all)" if more else ""
        console.say(f"left out: {first}{others}", style="dim")


def _listed(made: Plan) -> list[Candidate]:
    """All candidates; of a calibrated ladder, the best of each cut and the raw baseline."""
    if made.budget is None:
        return list(made.candidates)
    count: dict[str, int] = {}
    listed = []
    for candidate in made.candidates:
        count[candidate.cut] = count.get(candidate.cut, 0) + 1
        baseline = candidate.codec == "raw" or candidate == made.chosen
        if count[candidate.cut] <= MOST_PER_CUT or baseline:
            listed.append(candidate)
    return listed


def _accuracy(candidate: Candidate) -> list[str]:
    row = candidate.assessment.fidelity
    if row is None:
        return ["", ""]
    loss = "" if row.top1_loss is None else f"{row.top1_loss:+.2f} pt"
    return ["" if row.agreement is None else f"{row.agreement:.2%}", loss]


def _mark(made: Plan, candidate: Candidate) -> str:
    if candidate is made.chosen:
        return "best"
    return "2nd" if candidate is made.runner_up else ""


def _cells(candidate: Candidate) -> list[str]:
    estimate = candidate.estimate
    return [
        format_nbytes(candidate.placement.payload_nbytes)
        if candidate.placement.payload_nbytes
        else "",
        *(console.ms(getattr(estimate, name)) for name in FIELDS),
        console.ms(estimate.total_s),
        f"{candidate.energy_j:.2g} J",
        f"{candidate.throughput_hz:.3g}/s",
    ]
