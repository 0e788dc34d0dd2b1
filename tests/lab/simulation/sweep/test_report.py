"""A sweep's page: maps that can be read, the same every time, as a browser sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.report.wording import NONE
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.sweep.map import winner_colours
from midstream_lab.simulation.sweep.report import LEAST_GAIN, MAX_ROWS, map_chart, sweep_page
from midstream_lab.simulation.sweep.sweep import Found, Grid, Point, evaluate, tasks
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement

MENU = Menu(
    (
        Placement("cloud-only", "raw", 0, "cloud-only raw", True,
               0.0, 0.0, 0.0, 0.01, 100_000, 100, 0.1),
        Placement("c5-aaaaaa", "half", 1, "after <conv> half", True,
               0.02, 0.001, 0.001, 0.008, 5_000, 100, 0.08),
        Placement("edge-only", "raw", 2, "edge-only", False,
               0.1, 0.0, 0.0, 0.0, 0, 0, 0.0),
    )
)  # fmt: skip
MEASURED = MeasuredModel("net", MENU, Device("pi", 1, slowdown=2.0))
GRID = Grid((0.05e6, 5e6, 500e6), (0.002, 0.2), (1.0, 3.0), (0.0,))
Printed = Callable[[str], tuple[list[str], bytes]]


def swept(seed: int = 0) -> list[Found]:
    asked = tasks(GRID, MENU, MEASURED.device, machine=Machine(sigma=0.05), seed=seed)
    return [evaluate(task) for task in asked]


def page(found: list[Found], grid: Grid = GRID, seed: int = 0) -> str:
    return sweep_page(found, grid, MEASURED, seed=seed).render()


@pytest.fixture(scope="module")
def found() -> list[Found]:
    return swept()


@pytest.fixture(scope="module")
def text(found: list[Found]) -> str:
    return page(found)


def made_up(grid: Grid, cut: str = "c5-aaaaaa", gain: float = 0.25) -> list[Found]:
    """The same winner everywhere."""
    return [
        Found(point, cut, "half", f"{cut} half", 0.1, 0.1, 0.2, 0.125, gain)
        for point in grid.points()
    ]


def test_ties_are_told_as_ties(found: list[Found]) -> None:
    told = [each for each in found if each.ties]
    tied = [replace(each, ties=("cloud-only raw",)) for each in found[:3]]
    assert "others are tied" not in page([replace(each, ties=()) for each in found])
    drawn = page([*tied, *(replace(each, ties=()) for each in found[3:])])
    assert "At 3 points others are tied with the winner" in drawn
    assert drawn.count("tied: cloud-only raw") == 3
    assert len(told) < len(found)


def test_there_is_a_map_for_every_panel_and_a_table(text: str) -> None:
    charts = re.findall(r'aria-label="([^"]*)"', text)
    assert [each for each in charts if each.startswith("What wins")] == [
        "What wins: edge as profiled, cloud idle",
        "What wins: edge 3 times slower, cloud idle",
    ]
    assert re.findall(r'<section id="(\w+)">', text) == ["map", "winners", "points", "setting"]
    assert text.count('class="cell"') == 12
    assert text.count(">uplink, Mbit/s</text>") == text.count(">RTT</text>") == 2
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "The edge is an emulated device: pi (emulated 2x slower)." in text


def test_a_cell_has_its_winners_colour_and_the_gain(found: list[Found]) -> None:
    colours = winner_colours(found)
    assert list(colours) == ["edge-only", "after <conv> half", "cloud-only raw"]
    mine = [each for each in found if each.point.slowdown == 1.0]
    chart = map_chart(mine, GRID, colours, title="t")
    cells = re.findall(r'<g><title>(.*?)</title><rect .*?fill="(.*?)".*?</g>', chart)
    assert [colour for _, colour in cells] == [colours[each.label] for each in mine]
    figures = re.findall(r'class="cell-figure"[^>]*>([^<]*)', chart)
    gains = [f"{gain * 100:,.0f} %" for gain in (each.gain or 0.0 for each in mine)
             if gain >= LEAST_GAIN]  # fmt: skip
    assert figures == gains
    assert gains
    assert cells[0][0].startswith("50 kbit/s, RTT 2 ms, edge as profiled, cloud idle: edge-on")


def test_uplinks_grow_to_the_right_and_round_trips_upwards() -> None:
    grid = Grid((1e6, 9e6), (0.01, 0.1), (1.0,), (0.0,))
    chart = map_chart(made_up(grid), grid, {"c5-aaaaaa half": "#123456"}, title="t")
    places = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', chart)
    (slow, near), (_, far), (fast, _), _ = [(float(x), float(y)) for x, y in places]
    assert slow < fast
    assert near > far


def test_the_headline_tells_where_cutting_inside_wins(text: str) -> None:
    words = text.split('class="verdict">')[1].split("</div>")[0]
    assert re.search(r"A cut inside net wins at [\d.]+ % of 12 points\.", words)
    assert re.search(r"after &lt;conv&gt; half over 5 Mbit/s, RTT 2 ms, .* instead of", words)


def test_where_no_cut_wins_the_headline_says_so() -> None:
    grid = Grid((1e6,), (0.01,), (1.0,), (0.0,))
    text = page(made_up(grid, cut="cloud-only", gain=0.0), grid)
    assert "A cut inside net wins nowhere among 1 point" in text
    assert 'class="cell-figure"' not in text.split("</style>")[1]


def test_the_page_says_how_many_requests_count_and_has_no_quantile_of_equal_ones() -> None:
    grid = Grid((5e6,), (0.01,), (1.0,), (0.0,))
    task = tasks(grid, MENU, MEASURED.device, machine=Machine(), seed=0)[0]
    text = page([evaluate(task)], grid)
    assert "80 of each placement behind 20 that do not count" in text
    row = text.split("Point by point")[1].split("</tr>")[1]
    assert re.findall(r"<td>(.*?)</td>", row)[6] == NONE


def test_winners_without_ends_to_compare_with_have_no_gain() -> None:
    grid = Grid((1e6,), (0.01,), (1.0,), (0.0,))
    point = Point(1e6, 0.01, 1.0, 0.0)
    text = page([Found(point, "c5", "half", "c5 half", 0.1, 0.1, None, None, None)], grid)
    assert "A cut inside net wins at 100 % of 1 point." in text
    assert "gain of cuts inside" not in text


def test_large_sweeps_say_what_they_leave_to_the_table() -> None:
    uplinks = tuple(1e6 * (at + 1) for at in range(MAX_ROWS + 1))
    grid = Grid(uplinks, (0.01,), (1.0,), (0.0,))
    text = page(made_up(grid), grid)
    assert "1 point more: see map.csv." in text
    assert text.count('class="cell"') == MAX_ROWS + 1
    assert 'class="cell-figure"' not in text.split("</style>")[1]


def test_the_same_seed_gives_the_same_bytes(text: str) -> None:
    assert page(swept()) == text
    assert page(swept(seed=1), seed=1) != text


def test_the_points_are_inside(text: str, found: list[Found]) -> None:
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["points"] == [each.to_dict() for each in found]


def test_what_a_network_is_called_cannot_become_markup(text: str) -> None:
    assert "<conv>" not in text.replace("\\u003cconv>", "")


def test_a_browser_opens_and_prints_it(text: str, printed: Printed) -> None:
    said, content = printed(text)
    assert said == []
    assert content.startswith(b"%PDF")
    assert b"/Subtype /Image" not in content
