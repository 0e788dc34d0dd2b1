"""A fleet's figures as tables: by group, interval by interval, and what was set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from midstream_lab.report import tables
from midstream_lab.report.wording import (
    NONE,
    counted,
    joules,
    milliseconds,
    percent,
    policy_words,
)
from midstream_lab.simulation.fleet.fleet import Group
from midstream_lab.simulation.fleet.statistics import Energy, Interval, Operation
from midstream_lab.simulation.model.arrivals import Closed
from midstream_lab.simulation.output.statistics import Figures
from midstream_partitioner.units import format_duration, format_nbytes, format_rate

ALL = "all edges"
#: A column of moments.
MOMENT = "{}, h:min:s"

_TIMES = (
    "edges", "mean, ms", "p50, ms", "p95, ms", "p99, ms", "missed", "waits, mean, ms",
    "waits, p99, ms",
)  # fmt: skip
_CONDUCT = (
    "edges", "how many", "requests", "by the cloud", "after failure", "no answer", "hedged",
    "switches", "payloads", "W an edge", "J a request",
)  # fmt: skip


def clock(moment_s: float) -> str:
    """ "0:01:10", and "0:00:00.5" where seconds are not whole."""
    minutes, seconds = divmod(round(moment_s, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    told = f"{seconds:06.3f}".rstrip("0").rstrip(".")
    return f"{hours}:{minutes:02}:{told}"


def lasting(duration_s: float) -> str:
    """ "60 min", "70 s": never a part of a minute or an hour."""
    for unit, size_s in (("h", 3600.0), ("min", 60.0)):
        if duration_s >= 2 * size_s and duration_s % size_s == 0:
            return f"{duration_s / size_s:,.6g} {unit}"
    return f"{duration_s:,.6g} s"


def figures_tables(found: Operation, counts: Mapping[str, int]) -> str:
    """Times, and what was done for them, by group; `counts` are of edges."""
    spent = found.energies
    rows = [(name, each, counts[name], spent[name]) for name, each in found.groups.items()]
    strong = []
    if len(rows) > 1:
        strong = [len(rows)]
        rows.append((ALL, found.total, sum(counts.values()), found.energy))
    times = [_times_row(name, each) for name, each, *_ in rows]
    conduct = [_conduct_row(*row) for row in rows]
    return tables.table(_TIMES, times, strong=strong) + tables.table(
        _CONDUCT, conduct, strong=strong
    )


def _times_row(name: str, each: Figures) -> list[str]:
    times = (each.mean_s, each.p50_s, each.p95_s, each.p99_s)
    return [
        escape(name),
        *map(milliseconds, times),
        percent(each.missed),
        milliseconds(each.wait_mean_s),
        milliseconds(each.wait_p99_s),
    ]


def _conduct_row(name: str, each: Figures, edges: int, energy: Energy) -> list[str]:
    count = max(1, each.requests)
    return [
        escape(name),
        f"{edges:,}",
        f"{each.requests:,}",
        percent(each.ends["cloud"] / count),
        f"{each.ends['edge-after-cloud-failed']:,}",
        f"{each.ends['failed']:,}",
        percent(each.hedged / count),
        f"{each.switches:,}",
        format_nbytes(each.uplink_nbytes),
        f"{energy.mean_w:.3g}",
        joules(energy.request_j),
    ]


def intervals_table(timeline: Sequence[Interval]) -> str:
    """A row an interval."""
    heads = (MOMENT.format("from"), "requests", "p50, ms", "p95, ms", "p99, ms",
             "by the cloud", "busy", "waiting", "replicas")  # fmt: skip
    rows = [
        [
            clock(each.at_s),
            f"{each.requests:,}",
            *map(milliseconds, (each.p50_s, each.p95_s, each.p99_s)),
            percent(each.cloud_share),
            percent(each.utilisation),
            f"{each.waiting:,}",
            f"{each.replicas:,}",
        ]
        for each in timeline
    ]
    return tables.table(heads, rows)


def cloud_table(found: Operation) -> str:
    """Return what the replicas did, and what it cost."""
    cloud = found.cloud
    each = cloud.by_replica
    said = {
        "utilisation": percent(cloud.utilisation),
        "busiest and idlest replica": f"{percent(max(each))} and {percent(min(each))} "
        "of the whole run",
        "replicas": f"{cloud.most_replicas} at most, {cloud.replica_hours:.4g} hours",
        "refused or lost in a crash": counted(cloud.refused, "request"),
        "to the cloud": format_nbytes(cloud.uplink_nbytes),
        "of these, probes": format_nbytes(found.probe_nbytes),
        "to the edges": format_nbytes(cloud.downlink_nbytes),
        "energy of all edges": f"{found.energy.edges_j / 1e3:,.4g} kJ, idling included",
        "cost": f"{cloud.cost:.4g}" if cloud.cost else "no prices given",
    }
    return tables.definitions(said)


def groups_table(groups: Sequence[Group]) -> str:
    """Return what was set, group by group."""
    heads = ("group", "edges", "device", "policy", "a second, each", "uplink, mean", "RTT",
             "deadline")  # fmt: skip
    return tables.table(heads, [_setting_row(group) for group in groups])


def _setting_row(group: Group) -> list[str]:
    arrivals, network = group.arrivals, group.network
    labels = {f"{each.cut} {each.codec}": each.label for each in group.menu.placements}
    rate = "one by one" if isinstance(arrivals, Closed) else f"{arrivals.mean_hz:.3g}"
    deadline = NONE if group.deadline_s is None else format_duration(group.deadline_s)
    return [
        escape(group.name),
        f"{group.count:,}",
        escape(group.device.label()),
        escape(policy_words(group.policy, labels)),
        rate,
        format_rate(network.payload_up.mean_bps),
        f"{milliseconds(network.rtt_s)} ms",
        deadline,
    ]
