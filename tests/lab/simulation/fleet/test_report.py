"""A fleet's page: what an operator asks, whole, the same every time, as a browser sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.report.page import REPORT, SUMMARY
from midstream_lab.simulation.fleet.charts import MAX_STEPS, history_chart
from midstream_lab.simulation.fleet.fleet import (
    Fleet,
    FleetOutcome,
    Group,
    LinkFailure,
    ReplicaFailure,
    simulate_fleet,
)
from midstream_lab.simulation.fleet.report import MAX_CDFS, fleet_page, write_fleet_report
from midstream_lab.simulation.fleet.statistics import Interval, Operation, Prices, operation
from midstream_lab.simulation.fleet.tables import clock, lasting
from midstream_lab.simulation.fleet.wording import failures_told
from midstream_lab.simulation.model.arrivals import Closed, Poisson
from midstream_lab.simulation.model.cloud import Autoscaling, Replicas
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.traces.conditions import condition
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.units import format_nbytes

MENU = Menu(
    (
        Placement("cloud-only", "jpeg:90", 0, "cloud-only jpeg:90", True,
               0.0, 0.002, 0.0, 0.05, 20_000, 1000, 0.4),
        Placement("edge-only", "raw", 1, "edge-only", False,
               0.4, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
NETWORK = Network.of(condition("wifi"))
CAMERAS = Group("cameras <north>", 8, MENU, Device("pi", 1, slowdown=4.0), NETWORK,
                Poisson(1.0), deadline_s=0.8)  # fmt: skip
DRONES = Group("drones", 2, MENU, Device("pi", 1), NETWORK, Closed(0.5), policy="edge-only")
FLEET = Fleet(
    (CAMERAS, DRONES),
    Replicas(count=2),
    30.0,
    interval_s=5.0,
    replica_failures=(ReplicaFailure(0, 12.0, 6.0),),
    link_failures=(LinkFailure("cameras <north>", 20.0, 3.0, 0.5),),
)
PRICES = Prices(replica_hour=1.0, gigabyte=0.1)
SECTIONS = ["latency", "placements", "history", "figures", "setting"]
Printed = Callable[[str], tuple[list[str], bytes]]


def ran(fleet: Fleet = FLEET) -> tuple[FleetOutcome, Operation]:
    outcome = simulate_fleet(fleet)
    return outcome, operation(outcome, PRICES)


def told(fleet: Fleet = FLEET) -> str:
    return fleet_page(*ran(fleet), title="t", scenario='name = "</pre><b>"').render()


@pytest.fixture(scope="module")
def text() -> str:
    return told()


class Page(HTMLParser):
    """Charts, sections, addresses, and the data inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.charts: list[str] = []
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("src", "href") if given.get(name)]
        if tag == "svg" and given.get("aria-label"):
            self.charts.append(str(given["aria-label"]))
        if tag == "section":
            self.sections.append(str(given["id"]))


def data_of(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(text.split('id="data">')[1].split("</script>")[0])
    return found


def test_the_page_has_all_sections_and_charts(text: str) -> None:
    page = Page(text)
    assert page.sections == SECTIONS
    assert page.charts == [
        "Latency of every group: median, 95th and 99th percentile, and deadline",
        "Latency distribution, by group",
        "Wait distribution, by group",
        "Placements chosen, by group",
        "Placements chosen, who answered",
        "History: requests, latency, busy workers, replicas, queues, and failures",
    ]
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text


def test_the_headline_says_what_an_operator_asks(text: str) -> None:
    _, found = ran()
    words = text.split('class="verdict">')[1].split("</div>")[0]
    assert f"10 edges asked {found.total.requests:,} times in 30 s" in words
    assert "missed their deadline" in words
    assert "of its workers' time" in words.replace("&#x27;", "'")
    assert "due during 2 failures" in words
    assert "Edges are emulated devices: pi (emulated 4x slower)." in text


def test_failures_are_shaded_numbered_and_told(text: str) -> None:
    assert text.count('class="failure"') == 2
    assert text.count('class="failure-number"') == 2
    assert "1. replica 1 was down" in text
    assert "2. 50 % of the links of cameras &lt;north&gt; were cut" in text


def test_what_had_nothing_to_break_is_told_and_not_shaded() -> None:
    rule = Autoscaling(least=1, most=2, every_s=3.0)
    fleet = replace(FLEET, groups=(DRONES,), replicas=Replicas(2, autoscaling=rule),
                    replica_failures=(ReplicaFailure(1, 12.0, 6.0),),
                    link_failures=(LinkFailure("drones", 40.0, 9.0),))  # fmt: skip
    text = told(fleet)
    assert "replica 2 was down" not in text
    assert 'class="failure"' not in text
    assert "1 failure of the scenario came to nothing" in text


def test_a_failure_beyond_the_end_is_shaded_up_to_it() -> None:
    cut = LinkFailure("drones", 20.0, 900.0)
    failures = list(failures_told(simulate_fleet(replace(FLEET, link_failures=(cut,)))))
    assert failures[-1].at_s + failures[-1].lasts_s == FLEET.duration_s


def test_a_placement_of_which_nothing_was_sent_is_called_so(text: str) -> None:
    cut = LinkFailure(CAMERAS.name, at_s=0.0, lasts_s=60.0)
    away = told(replace(FLEET, link_failures=(cut,)))
    chart = away.split('aria-label="Placements chosen, by group"')[1].split("</svg>")[0]
    assert re.search(
        r"north&gt;: (9\d\.\d|100) % meant for the cloud, nothing was sent", chart
    )
    assert "drones: 100 % edge-only" in chart
    alone = told(replace(FLEET, groups=(DRONES,), link_failures=()))
    assert "nothing was sent" not in alone


def test_bytes_of_probes_are_named_where_bytes_are() -> None:
    adaptive = replace(CAMERAS, policy="adaptive", arrivals=Poisson(0.2))
    outcome, found = ran(replace(FLEET, groups=(adaptive,), link_failures=()))
    assert found.probe_nbytes > 0
    text = fleet_page(outcome, found, title="t", scenario="").render()
    assert f"{format_nbytes(found.probe_nbytes)} of it probes" in text


def test_moments_are_told_by_the_clock_and_durations_in_whole_units() -> None:
    text = told(replace(FLEET, duration_s=70.0, interval_s=35.0))
    assert "times in 70 s" in text
    for at in ("0:00:00", "0:00:35", "0:00:12", "0:00:18"):
        assert f"<td>{at}</td>" in text
    assert "1.17 min" not in text
    assert ">0 us<" not in text


@pytest.mark.parametrize(
    ("seconds", "moment", "duration"),
    [
        (0.0, "0:00:00", "0 s"),
        (0.5, "0:00:00.5", "0.5 s"),
        (70.0, "0:01:10", "70 s"),
        (119.9999, "0:02:00", "120 s"),
        (3600.0, "1:00:00", "60 min"),
        (86_405.25, "24:00:05.25", "86,405.2 s"),
        (86_400.0, "24:00:00", "24 h"),
    ],
)
def test_no_time_is_rounded_to_another(seconds: float, moment: str, duration: str) -> None:
    assert (clock(seconds), lasting(seconds)) == (moment, duration)


def test_power_and_energy_say_what_they_are(text: str) -> None:
    _, found = ran()
    rows = text.split("J a request</th>")[1].split("</table>")[0]
    for each in (*found.energies.values(), found.energy):
        assert f"<td>{each.mean_w:.3g}</td><td>{each.request_j:.3g}</td>" in rows
    assert "what a request takes on top of idling" in text
    assert "drawn by an edge in the mean, idling included" in text


def test_the_figures_come_with_the_page_and_beside_it(tmp_path: Path) -> None:
    outcome, found = ran()
    write_fleet_report(outcome, found, place=tmp_path, title="t", scenario="")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([REPORT, SUMMARY])
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert data_of((tmp_path / REPORT).read_text()) == summary
    assert summary["groups"].keys() == {"cameras <north>", "drones"}
    assert len(summary["timeline"]) == 6


def test_the_same_seed_gives_the_same_bytes(text: str) -> None:
    assert told() == text
    assert told(replace(FLEET, seed=1)) != text


def test_what_users_wrote_cannot_become_markup(text: str) -> None:
    assert "</pre><b>" not in text
    assert "<north>" not in text.replace("\\u003cnorth>", "")


def test_numbers_in_pictures_are_numbers(text: str) -> None:
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', text)


def test_a_fleet_that_nobody_asks_is_told_so() -> None:
    rare = replace(CAMERAS, count=1, arrivals=Poisson(1e-6))
    text = told(Fleet((rare,), Replicas(), 10.0))
    assert "asked 0 times in 10 s, and nothing was answered" in text
    assert Page(text).sections == ["history", "figures", "setting"]


def test_very_many_groups_share_a_line() -> None:
    groups = tuple(replace(CAMERAS, name=f"g{at}", count=1) for at in range(MAX_CDFS + 1))
    text = told(Fleet(groups, Replicas(), 5.0))
    chart = text.split('aria-label="Latency distribution')[1].split("</svg>")[0]
    assert chart.count("<polyline") == 1
    assert text.count(">g0</text>") == 3


def test_a_long_history_keeps_its_worst() -> None:
    quiet = Interval(0.0, 10, 0.1, 0.1, 0.1, 0.1, 1.0, 0.5, 0, 1)
    count = 3 * MAX_STEPS
    intervals = [replace(quiet, at_s=float(at)) for at in range(count)]
    intervals[700] = replace(intervals[700], waiting=97)
    drawn = history_chart(intervals, float(count), [])
    strips = re.findall(r'<polyline points="([^"]*)"', drawn)
    assert all(len(each.split()) == 2 * MAX_STEPS for each in strips)
    heights = {point.split(",")[1] for point in strips[-1].split()}
    assert len(heights) == 2


def test_where_nothing_was_due_lines_break() -> None:
    quiet = Interval(0.0, 10, 0.1, 0.1, 0.1, 0.1, 1.0, 0.5, 0, 1)
    empty = Interval(1.0, 0, None, None, None, None, None, 0.0, 0, 1)
    drawn = history_chart([quiet, empty, replace(quiet, at_s=2.0)], 3.0, [])
    # Two parts of three quantiles and of the cloud's share; four lines that never break.
    assert drawn.count("<polyline") == 2 * 4 + 4


def test_a_browser_opens_and_prints_it(text: str, printed: Printed) -> None:
    said, content = printed(text)
    assert said == []
    assert content.startswith(b"%PDF")
    assert b"/Subtype /Image" not in content
