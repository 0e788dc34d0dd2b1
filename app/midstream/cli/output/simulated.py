"""Printed figures that a simulated pair and a fleet share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from midstream.cli.output import console
from midstream_edge.session.answers import AHEAD, CLOUD, EDGE, FALLBACK
from midstream_lab.simulation.output.overload import backlog_s
from midstream_lab.simulation.output.request_table import Table
from midstream_lab.simulation.output.statistics import Figures
from midstream_partitioner.units import format_duration

#: Columns of `who_answered`; together they are all requests.
ANSWERED = ("cloud", "edge", "cloud failed", "no answer")
#: What they say.
LEGEND = (
    "edge: it answered as chosen, or before the cloud; cloud failed: the edge finished what "
    "the cloud refused, lost, or did not answer in time"
)


def who_answered(found: Figures) -> tuple[str, ...]:
    """Cells of `ANSWERED`: shares of the requests, and how many nobody answered."""
    ends, count = found.ends, max(1, found.requests)
    counts = (ends[CLOUD], ends[EDGE] + ends[AHEAD], ends[FALLBACK])
    return *(_percent(each / count) for each in counts), str(ends["failed"])


def chosen_most(found: Figures) -> str:
    first = found.placements[0] if found.placements else None
    return "" if first is None else f"{console.elided(first.label)} ({first.share:.0%})"


def remarks(tables: Mapping[str, Table]) -> Iterator[str]:
    """Return what a table of means and quantiles hides, by policy or by group of edges."""
    silent = [name for name, table in tables.items() if not len(table)]
    if silent:
        yield f"no request came: {', '.join(silent)}"
    backlogs = {name: backlog_s(table) for name, table in tables.items()}
    grown = {name: waits_s for name, waits_s in backlogs.items() if waits_s is not None}
    if grown:
        least, most = (format_duration(each(grown.values())) for each in (min, max))
        yield (
            "overload: requests came faster than they were answered; the last tenth of them "
            f"waited {least if least == most else f'{least} to {most}'} for their turn "
            f"({', '.join(grown)}), and in a longer run they would wait longer"
        )


def _percent(share: float) -> str:
    """No share of some is told as none."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
