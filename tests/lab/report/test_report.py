"""The page: whole, without a network, and as a browser sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from midstream_lab.report.report import (
    REPORT,
    SUMMARY,
    TABLE,
    render_report,
    write_outcome,
)
from midstream_lab.report.svg import Scale
from midstream_lab.report.timelines import MAX_POINTS, timelines
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import summarise

Make = Callable[..., list[RunResult]]
Plain = Callable[..., RunResult]

SECTIONS = [
    "regret", "traces", "latency", "timeline", "energy", "placements", "figures", "validity",
    "setting",
]  # fmt: skip
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE_S = 60.0

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here to open it with")


class Page(HTMLParser):
    """What a page is made of: elements, ids, addresses, the data inside."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.charts: list[str] = []
        self.embedded = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.addresses += [str(given[name]) for name in ("src", "href") if given.get(name)]
        if tag == "svg" and given.get("aria-label"):
            self.charts.append(str(given["aria-label"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.startswith('{"chief"'):
            self.embedded = data


@pytest.fixture(scope="module")
def results(made_up: Make) -> list[RunResult]:
    return made_up(models=["resnet18", "vit-tiny"], seeds=[0, 1], duration_s=20.0)


@pytest.fixture(scope="module")
def folder(results: list[RunResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_outcome(results, folder, title="Tried & <tested>", scenario='title = "</pre><b>"')
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / REPORT).read_text())


def test_everything_is_written(folder: Path, results: list[RunResult]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([REPORT, SUMMARY, TABLE])
    assert json.loads((folder / SUMMARY).read_text())["runs"] == len(results)


def test_the_page_is_well_formed_and_has_all_sections(page: Page) -> None:
    assert page.open == []
    assert [each for each in page.ids if each in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))


def test_the_page_needs_no_network(folder: Path, page: Page) -> None:
    assert all(address.startswith("#") for address in page.addresses)
    text = (folder / REPORT).read_text()
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text


def test_every_chart_is_drawn_and_says_what_it_shows(page: Page) -> None:
    assert page.charts[0].startswith("Regret of every policy")
    for model in ("resnet18", "vit-tiny"):
        for trace in ("lte-car", "wifi-cafe"):
            assert f"Latency distribution, {model} over {trace}" in page.charts
        assert f"Mean latency over edge energy, {model}" in page.charts
        assert f"Placements chosen, {model}" in page.charts


def test_what_could_be_chosen_stands_with_the_profiles_figures(folder: Path) -> None:
    text = (folder / REPORT).read_text()
    assert text.count("what could be chosen, by the profiles") == 2
    assert "<td>after layer2 int8</td><td>39.1 KiB</td><td>120</td>" in text
    assert "emulated 8x slower" in text


def test_numbers_in_pictures_are_numbers(folder: Path) -> None:
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', (folder / REPORT).read_text())


def test_what_users_wrote_cannot_become_markup(folder: Path, page: Page) -> None:
    text = (folder / REPORT).read_text()
    assert "<title>Tried &amp; &lt;tested&gt;</title>" in text
    assert "</pre><b>" not in text
    assert page.embedded


def test_names_cannot_end_the_script_that_holds_them(plain: Plain) -> None:
    runs = [plain("adaptive", [0.1, 0.2], trace="</script><script>alert(1)</script>")]
    text = render_report(runs, summarise(runs), title="t", scenario="")
    assert text.count("<script>") == 1
    (run,) = json.loads(Page(text).embedded)["runs"]
    assert run["trace"].startswith("</script>")


def test_the_timeline_has_every_run(page: Page, results: list[RunResult]) -> None:
    found: list[dict[str, Any]] = json.loads(page.embedded)["runs"]
    assert len(found) == len(results)
    for run in found:
        assert len(run["t"]) == len(run["ms"]) == len(run["o"]) == len(run["b"]) > 10
        assert len(run["bt"]) == len(run["bw"]) > 10


def test_long_runs_are_thinned_and_their_slowest_requests_stay(plain: Plain) -> None:
    times = [0.1] * 5000
    times[1234] = 9.0
    (found,) = timelines([plain("adaptive", times)], {"net": ["cloud-only raw"]})
    assert len(found["t"]) == MAX_POINTS
    assert max(found["ms"]) == 9000.0


def test_void_runs_stand_on_top_and_in_the_validity(plain: Plain) -> None:
    runs = [plain("oracle", [0.1]), plain("adaptive", [0.1], void="the rate was 9 % off")]
    text = render_report(runs, summarise(runs), title="t", scenario="")
    assert "1 run did not keep to the configured link and count for nothing" in text
    assert "the rate was 9 % off" in text
    assert "<details open>" in text


def test_simulated_runs_are_called_so(plain: Plain) -> None:
    runs = [plain(policy, [0.1, 0.2], kind="simulated", link={}, validity=None)
            for policy in ("oracle", "adaptive")]  # fmt: skip
    text = render_report(runs, summarise(runs), title="t", scenario="")
    assert "Simulated · 2 runs, 4 requests" in text
    assert "there was no link to be wrong" in text


def test_an_experiment_of_void_runs_alone_is_told_so(plain: Plain) -> None:
    runs = [plain("adaptive", [0.1], void="late")]
    page = Page(render_report(runs, summarise(runs), title="t", scenario=""))
    assert [each for each in page.ids if each in SECTIONS] == ["validity", "setting"]


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale("linear", 0, 10, 0, 100), [0, 2, 4, 6, 8, 10]),
        (Scale("linear", 0.213, 0.347, 0, 100), [0.22, 0.24, 0.26, 0.28, 0.30, 0.32, 0.34]),
        (Scale("log", 80, 900, 0, 100), [80, 100, 200, 300, 400, 600, 800]),
        (Scale("log", 1, 10_000, 0, 100), [1, 10, 100, 1000, 10000]),
        (Scale("root", 0, 100, 0, 400), [0, 2, 5, 10, 20, 50, 100]),
    ],
)
def test_axes_have_round_ticks(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks(7) == pytest.approx(ticks)


def opened(path: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    words = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--enable-logging=stderr",
        *flags, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)


@needs_browser
def test_a_browser_draws_the_timeline_and_complains_of_nothing(
    folder: Path, tmp_path: Path
) -> None:
    done = opened(folder / REPORT, tmp_path, "--dump-dom")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    seen = Page(done.stdout)
    (timeline,) = [each for each in seen.charts if each.startswith("Timeline of ")]
    assert timeline == "Timeline of adaptive on resnet18 over lte-car, seed 0"
    drawn = done.stdout[done.stdout.index('id="timeline-figure"') :]
    assert drawn.count("<circle") > 50
    assert re.search(r'class="truth" points="\d', drawn)
    assert re.search(r'class="belief" points="\d', drawn)
    assert "NaN" not in done.stdout


DRAG = """<script>
const box = document.querySelector("#timeline-figure svg").getBoundingClientRect();
const send = (kind, x) => document.querySelector("#timeline-figure svg").dispatchEvent(
  new PointerEvent(kind, { clientX: box.left + box.width * x, clientY: box.top + 60 }));
send("pointerdown", 0.5); send("pointermove", 0.6); send("pointerup", 0.7);
send("pointermove", 0.5);
</script></body>"""


@needs_browser
def test_dragging_over_the_timeline_looks_closer(folder: Path, tmp_path: Path) -> None:
    text = (folder / REPORT).read_text()
    path = tmp_path / "dragged.html"
    path.write_text(text.replace("</body>", DRAG))
    done = opened(path, tmp_path / "profile", "--dump-dom")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    drawn = done.stdout[done.stdout.index('id="timeline-figure"') :].partition("</svg>")[0]
    every = len(json.loads(Page(text).embedded)["runs"][0]["t"])
    assert 3 < drawn.count("<circle") < every / 2
    assert re.search(r"believed [\d.]+ Mbit/s", done.stdout)


@needs_browser
def test_a_browser_prints_it(folder: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    done = opened(folder / REPORT, tmp_path / "profile", f"--print-to-pdf={paper}")
    assert done.returncode == 0
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Subtype /Image" not in content  # all of it is drawn, nothing is a picture
