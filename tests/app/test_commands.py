"""Every command: its document, its help, and what it promises to do."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from midstream import demo
from midstream.cli.command_table import COMMANDS as ENTRIES
from midstream.cli.command_table import load
from midstream.cli.main import app
from midstream.loaders import open_inputs
from midstream_lab.traces.conditions import CONDITIONS, condition
from midstream_partitioner.compare import EXACT
from midstream_partitioner.costs.timings import FIELDS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.app.conftest import Cloud, Ran, Schema, Started

    Run = Callable[[str], Ran]
    Start = Callable[[str], Started]
    StartCloud = Callable[[str], AbstractContextManager[Cloud]]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
FAST = "200Mbit:2ms"

#: What docs/reference/json.md calls a command -> a line to try it with. {server} is the shared
#: cloud.
LINES = {
    "midstream models": "models",
    "midstream profile NETWORK": "profile digits --runs 3",
    "midstream profile PARTITION": "profile early.midstream --runs 3 --slowdown 2",
    "midstream partition": "partition tiny.onnx --runs 3 -o made.midstream",
    "midstream plan": "plan digits --link lte --runs 3 --private",
    "midstream calibrate": "calibrate tiny.onnx --data x.npy -o calibrated.midstream --runs 3",
    "midstream codecs": "codecs tiny.onnx --data x.npy --codecs half,int8",
    "midstream verify": "verify tiny.onnx --cuts all --samples 2",
    "midstream cloud describe": "cloud describe --server {server}",
    "midstream cloud health": "cloud health --server {server}",
    "midstream traces stats": "traces stats lte 3g:1",
    "midstream traces plot": "traces plot wifi -o traces.svg",
    "midstream traces generate": "traces generate 5g --duration 20s -o made.up.gz",
    "midstream traces convert": "traces convert lte --to 4s -o made.csv",
    "midstream simulate MODEL": "simulate tiny.onnx --runs 3 --trace lte:1 --duration 5s",
    "midstream simulate SCENARIO": "simulate fleet.toml",
    "midstream simulate MODEL --sweep": (
        "simulate menu.json --sweep uplink=1Mbit,9Mbit --sweep rtt=9ms --jobs 1 -o sweep"
    ),
    "midstream edge run": "edge run digits --server {server} --requests 3 --runs 3",
    "midstream edge run --compare": (
        "edge run digits --server {server} --requests 3 --runs 3 --compare"
    ),
    "midstream edge run --adaptive": (
        "edge run digits --server {server} --requests 3 --runs 3 --adaptive --log log.jsonl"
    ),
}
#: What is said of results that are not wrong: for which sizes they are, and who answered.
NOTES = ("figures are for ", "no answer came from the cloud: ", "this machine was busy ")
#: These have tests of their own.
ELSEWHERE = {
    "midstream cloud serve",
    "midstream pair",
    "midstream pair --policy",
    "midstream demo",
    "midstream experiment",
}


def test_the_page_on_documents_knows_every_command(schema: Schema) -> None:
    assert set(schema.documents) == LINES.keys() | ELSEWHERE
    assert set(schema.documents.values()) <= set(schema.types)


@pytest.mark.parametrize("name", LINES)
def test_a_document_has_exactly_the_fields_of_the_page(
    command: Run, cloud: Cloud, schema: Schema, name: str
) -> None:
    line = LINES[name].format(server=cloud.address)
    done = command(f"{line} --json")
    schema.check(done.document, schema.documents[name])
    assert [told for told in done.err.splitlines() if not told.startswith(NOTES)] == []


def test_a_server_says_where_it_listens_and_what_it_serves(
    cloud: Cloud, schema: Schema
) -> None:
    schema.check(dict(cloud.said), schema.documents["midstream cloud serve"])
    assert cloud.said["models"] == ["digits", "early", "tiny"]


def test_an_edge_without_a_server_prints_the_same_document(
    command: Run, schema: Schema
) -> None:
    found = command("edge run digits --requests 3 --json").document
    schema.check(found, schema.documents["midstream edge run"])
    assert (found["server"], found["plan"]) == (None, None)
    assert [answer["where"] for answer in found["answers"]] == ["edge"] * 3


def test_an_edge_whose_server_is_away_answers_and_says_so(command: Run) -> None:
    done = command("edge run tiny.onnx --server 127.0.0.1:1 --requests 3 --json")
    assert done.document["answered"] == 3
    assert done.err.startswith("answering alone until the cloud can be reached: ")
    assert "no answer came from the cloud: " in done.err
    assert (done.document["cloud"], done.code) == (0, 0)


def test_an_edge_that_needs_the_cloud_fails_where_no_answer_came_from_it(
    command: Run, cloud: Cloud
) -> None:
    flags = "--requests 2 --runs 3 --json --require-cloud"
    away = command(f"edge run tiny.onnx --server 127.0.0.1:1 {flags}")
    assert away.code == 1
    assert "no answer came from the cloud: a server must answer at 127.0.0.1:1" in away.err
    alone = command(f"edge run tiny.onnx --server {cloud.address} --cut edge-only {flags}")
    assert alone.code == 1
    assert "ran on the edge" in alone.err
    done = command(f"edge run tiny.onnx --server {cloud.address} --cut cloud-only {flags}")
    assert done.document["cloud"] == 2
    assert (done.document["cloud_error"], done.code) == (None, 0)


def test_a_pair_under_a_policy_follows_a_trace_and_leaves_nothing_behind(
    start: Start, schema: Schema
) -> None:
    line = "pair digits --link 20Mbit:20ms --trace wifi:3 --policy oracle --emulator proxy"
    pair = start(f"{line} --duration 2s --every 100ms --edge-slowdown 4 --json")
    out, err = pair.process.communicate(timeout=PATIENCE_S)
    assert pair.process.returncode == 0, err
    assert (pair.everyone(), pair.leftovers()) == ([], [])
    found = json.loads(out)
    schema.check(found, schema.documents["midstream pair --policy"])
    assert found["requests"] == found["answered"] == 20
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert found["emulation"]["backend"] == "proxy"


def test_a_pair_runs_every_placement_and_leaves_nothing_behind(
    start: Start, schema: Schema
) -> None:
    pair = start(f"pair digits --link {FAST} --requests 5 --edge-slowdown 4 --json")
    out, err = pair.process.communicate(timeout=PATIENCE_S)
    assert pair.process.returncode == 0, err
    assert (pair.everyone(), pair.leftovers()) == ([], [])
    found = json.loads(out)
    schema.check(found, schema.documents["midstream pair"])
    assert found["answered"] == found["requests"] == 5
    assert found["local"] == 0
    assert found["max_relative_error"] <= EXACT <= 1e-5
    assert found["chosen"] == found["candidates"][0]
    names = [entry["name"] for entry in found["placements"]]
    assert names[:4] == ["edge-only", "cloud-only raw", "cloud-only compressed", "best cut"]
    assert [entry["is_chosen"] for entry in found["placements"]].count(True) == 1
    for entry in found["placements"]:
        for times in (entry["predicted"], entry["measured"]):
            assert list(times) == [*FIELDS, "total_s"]
            assert times["total_s"] == pytest.approx(sum(times[name] for name in FIELDS))


def test_the_demo_tells_its_lesson_and_draws_it(
    monkeypatch: pytest.MonkeyPatch, schema: Schema, tmp_path: Path
) -> None:
    """On a small network, in this process: the real one takes a minute."""
    monkeypatch.setattr(demo, "NETWORK", "digits")
    monkeypatch.setattr(demo, "NETWORKS", ("fast",))
    monkeypatch.setitem(CONDITIONS, "fast", condition(FAST))
    monkeypatch.setattr(demo, "photo", lambda name="": None)
    monkeypatch.setattr(demo, "_crops", lambda path, part: open_inputs(part, None, count=4))
    picture = tmp_path / "pictures" / "demo.svg"
    done = CliRunner().invoke(app, ["demo", "--requests", "2", "-o", str(picture), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    schema.check(found, schema.documents["midstream demo"])
    assert found["lesson"].startswith("Freely: ")
    assert all(each["saving"] >= 1 for each in found["joint"])
    assert {each["whole"] > 0.98 for each in found["digits"]} == {True}
    assert all(abs(each["whole"] - each["split"]) < 0.01 for each in found["digits"])
    assert picture.read_text().startswith("<?xml")


def test_the_same_network_is_cut_into_the_same_bytes(command: Run, models: Path) -> None:
    found = [
        command(f"partition digits --no-measure --runs 3 -o {name} --json").document
        for name in ("first", "second")
    ]
    assert found[0] | {"folder": None} == found[1] | {"folder": None}
    files = [f"segments/{at}.onnx" for at in range(len(found[0]["segments"]))]
    assert len(files) > 1
    for file in (*files, "manifest.json"):
        first, second = (models / name / file for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_network_is_cut_where_one_asks(command: Run) -> None:
    found = command("partition digits --at pool2 --runs 3 -o asked --json").document
    assert [cut["label"] for cut in found["cuts"]][1:-1] == ["after pool2"]


def test_an_edge_with_the_bare_network_takes_over_the_servers_cuts(
    command: Run, cloud: Cloud
) -> None:
    described = command(f"cloud describe --server {cloud.address} --json").document
    (early,) = [model for model in described["models"] if model["name"] == "early"]
    inside = early["cuts"][1]["id"]
    done = command(
        f"edge run digits --server {cloud.address} --name early --runs 3 --requests 3 "
        f"--cut {inside} --codec lossless --json"
    )
    answers = done.document["answers"]
    assert [(each["where"], each["cut"]) for each in answers] == [("cloud", inside)] * 3
    assert "was asked for" in done.document["plan"]["explanation"]


def test_an_edge_that_holds_a_prefix_answers_through_the_cloud(
    command: Run, cloud: Cloud
) -> None:
    found = command(
        f"edge run digits --server {cloud.address} --segments 1 --runs 3 --requests 3 --json"
    ).document
    assert {answer["where"] for answer in found["answers"]} == {"cloud"}
    assert all(candidate["segments_on_edge"] <= 1 for candidate in found["plan"]["candidates"])


def test_an_edge_whose_server_is_killed_midway_answers_everything(
    start: Start, start_cloud: StartCloud
) -> None:
    # Tails of some milliseconds, so that most requests are still to come.
    with start_cloud("digits --runs 3 --slowdown 200") as cloud:
        edge = start(
            f"edge run digits --server {cloud.address} --runs 3 --requests 400 "
            "--cut cloud-only --codec raw"
        )
        assert edge.process.stdout is not None
        lines = iter(edge.process.stdout.readline, "")
        first = next(line for line in lines if re.match(r" +0  logits: ", line))
        cloud.process.kill()
        answers = [first, *(line for line in lines if re.match(r" +\d+  logits: ", line))]
    edge.process.wait(PATIENCE_S)
    assert edge.process.returncode == 0
    assert [int(line.split()[0]) for line in answers] == list(range(400))
    where = [line.split(" ms  ")[1].split()[0] for line in answers]
    assert where[0] == "cloud"
    assert where[-1] == "edge-after-cloud-failed"
    assert set(where) == {"cloud", "edge-after-cloud-failed"}


def test_documents_hold_no_nan(tmp_path: Path, command: Run, models: Path) -> None:
    """A network of one's own may well give some."""
    np.save(tmp_path / "nan.npy", np.full((1, 8), np.nan, np.float32))
    found = command(f"edge run tiny.onnx --input {tmp_path}/nan.npy --requests 1 --json")
    (answer,) = found.document["answers"]
    assert {score["score"] for score in answer["top"]["scores"]} == {None}


@pytest.mark.parametrize("line", ["plan digits --link lte --runs 3", "models"])
def test_tables_keep_their_figures_without_a_terminal(command: Run, line: str) -> None:
    done = command(line)
    assert done.code == 0
    assert "…" not in done.out


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """All commands of a group by their full names, or the command itself."""
    for each, found in getattr(command, "commands", {}).items():
        yield from leaves(f"{name} {each}", found)
    if not hasattr(command, "commands"):
        yield name, command


LOADED = {name: load(name) for name in ENTRIES}
COMMANDS = {full: leaf for name, each in LOADED.items() for full, leaf in leaves(name, each)}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_help_of_all_says_how_the_help_of_each_begins(name: str) -> None:
    assert LOADED[name].help.split("\n\n")[0].replace("\n", " ") == ENTRIES[name].says


def test_the_help_of_all_loads_no_command() -> None:
    """A user waits for what is loaded: here for none of the libraries that do the work."""
    check = "\n".join(
        (
            "import sys",
            "from midstream.cli.main import app",
            "app(['--help'], standalone_mode=False)",
            "print(sorted({'numpy', 'onnx', 'onnxruntime', 'grpc'} & {*sys.modules}))",
        )
    )
    words = [sys.executable, "-c", check]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_on_the_pages(schema: Schema, name: str) -> None:
    prints_json = any("--json" in each.opts for each in COMMANDS[name].params)
    told = any(f"{each} ".startswith(f"midstream {name} ") for each in schema.documents)
    assert told == prints_json
    assert f"    midstream {name}" in (ROOT / "docs/reference/cli.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_and_gives_examples(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert "Examples:" in done.output
    assert f"midstream {name} " in done.output or f"midstream {name}\n" in done.output
    undocumented = [each.name for each in COMMANDS[name].params if not each.help]
    assert undocumented == []


def test_the_version_is_that_of_the_package(command: Run) -> None:
    done = command("--version")
    assert (done.code, done.out) == (0, f"midstream {metadata.version('midstream')}\n")


def test_the_help_says_what_exit_codes_mean(command: Run) -> None:
    assert "2 invalid usage" in " ".join(command("--help").out.split())


@pytest.mark.parametrize("line", ["--help", "cloud --help", "edge run --help"])
def test_help_is_no_failure(command: Run, line: str) -> None:
    done = command(line)
    assert (done.code, done.err) == (0, "")
    assert "Usage: " in done.out


def written_commands() -> Iterator[str]:
    """Command lines that the help and the documents tell users to type."""
    for command in COMMANDS.values():
        yield from re.findall(r"^ *midstream (.+)$", command.epilog, re.MULTILINE)
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        shown = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        typed = [*re.findall(r"^    (midstream .+)$", text, re.MULTILINE), *shown.splitlines()]
        for line in typed:
            yield from re.findall(r"^midstream (?!--)(.+?)(?: +#.*)?$", line)
        if page.name == "cli.md":
            yield from re.findall(r"^\| `midstream (?!--)(.+?)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(written_commands())))
def test_what_the_documents_tell_to_type_is_understood(line: str) -> None:
    words = shlex.split(line)
    name = next(name for at in (2, 1) if (name := " ".join(words[:at])) in COMMANDS)
    COMMANDS[name].make_context(name, words[len(name.split()) :])
