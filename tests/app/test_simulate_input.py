"""What `midstream simulate` is asked wrongly is told in a sentence that names the flag."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midstream.cli import main

Ask = Callable[[str], str]
Run = Callable[[str], tuple[int, str, str]]

MENU: dict[str, Any] = {
    "model": "net",
    "menu": [
        {"cut": "cloud-only", "codec": "raw", "k": 0, "label": "cloud-only raw",
         "remote": True, "head_s": 0.0, "encode_s": 0.001, "decode_s": 0.001, "tail_s": 0.01,
         "payload_nbytes": 20000, "reply_nbytes": 400, "rest_s": 0.1},
        {"cut": "edge-only", "codec": "raw", "k": 1, "label": "edge-only", "remote": False,
         "head_s": 0.1, "encode_s": 0.0, "decode_s": 0.0, "tail_s": 0.0,
         "payload_nbytes": 0, "reply_nbytes": 0, "rest_s": 0.0},
    ],
}  # fmt: skip
FLEET = """
duration = "20s"
[cloud]
replicas = 2
[[edges]]
name = "cameras"
count = 4
menu = "menu.json"
requests = { kind = "every", every = "500ms" }
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    """`midstream simulate ARGUMENTS` in this process, beside a menu and a scenario."""
    (tmp_path / "menu.json").write_text(json.dumps(MENU))
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(main, "keep_freed_memory", lambda: None)

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["midstream", "simulate", *shlex.split(arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def ask(run: Run) -> Ask:
    """The one sentence of a command that was asked wrongly."""

    def ask(arguments: str) -> str:
        code, out, err = run(arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return ask


SCENARIO = "must not be given with a scenario, which says all but --log, --report and --json"
MADE = "must be given when a menu is made, not when it is used"
SWEPT = "must not be given with --sweep, which runs every placement on links of its own"

IGNORED = {
    "fleet.toml --seed 3": f"--seed {SCENARIO}",
    "fleet.toml --policy race": f"--policy {SCENARIO}",
    "fleet.toml --duration 9s --seed 0 --load 0": f"--duration, --load and --seed {SCENARIO}",
    "fleet.toml --sweep default -o out": f"--sweep and --output {SCENARIO}",
    "fleet.toml --private": f"--private {SCENARIO}",
    "fleet.toml --menu-output new.json": f"--menu-output {SCENARIO}",
    "menu.json --private --codecs half": f"--private and --codecs {MADE}",
    "menu.json --objective latency": f"--objective {MADE}",
    "menu.json --edge pi.json": f"--edge {MADE}",
    "menu.json --edge-slowdown 4 --runs 9": f"--edge-slowdown and --runs {MADE}",
    "menu.json --scale 1/255": f"--scale {MADE}",
    "menu.json --sweep default --lossless": f"--lossless {MADE}",
    "menu.json --sweep default --policy race": f"--policy {SWEPT}",
    "menu.json --sweep default --link 3g --loss 1%": f"--link and --loss {SWEPT}",
    "menu.json --sweep default --deadline 1s": f"--deadline {SWEPT}",
    "menu.json --sweep default --log rows.jsonl --report out": f"--log {SWEPT}",
    "menu.json -o out": "--output must be given with --sweep",
    "menu.json --jobs 2 --engine ray": "--jobs and --engine must be given with --sweep",
    "net.onnx --edge pi.json --edge-slowdown 4": "--edge-slowdown must not be given",
}
WRONG = {
    "menu.json --seed -1": "invalid value for '--seed'",
    "menu.json --duration 20": "--duration: a duration needs the unit us, ms, s, min or h",
    "menu.json --duration 0s": "must last above 0 s",
    "menu.json --deadline 0s": "--deadline must be above zero",
    "menu.json --every 0s": "--every: every_s of arrivals must be finite and above zero",
    "menu.json --every 1ns": "--every: a duration needs the unit",
    "menu.json --every 1us": "a trial must have at most 10,000,000 requests",
    "menu.json --poisson 0": "--poisson: rate_hz of arrivals must be",
    "menu.json --poisson nan": "--poisson: rate_hz of arrivals must be",
    "menu.json --poisson 1e99": "a trial must have at most 10,000,000 requests",
    "menu.json --poisson 1 --every 1s": "leave one out",
    "menu.json --link lan": "--link: a link must be a name",
    "menu.json --trace gone.txt": "--trace: a trace must be a file or a kind of link",
    "menu.json --down-trace lte:x": "--down-trace: a trace's seed must be a whole number",
    "menu.json --loss 100%": "--loss must be below 100%",
    "menu.json --loss 2": "--loss: a share must be 0% to 100%",
    "menu.json --jitter 2": "--jitter: a duration needs the unit",
    "menu.json --load 99%": "the load of others must be a share from 0 to 0.98",
    "menu.json --cut-link 5s": "--cut-link: a cut of the link must be MOMENT:LENGTH",
    "menu.json --cut-link 5s:0s": "--cut-link: a cut must begin at 0 s or later and last",
    "menu.json --cut-link 60s:1s": "--cut-link must begin before the end at 60 s (not 60 s)",
    "menu.json --policy clever": "a policy must be one of adaptive",
    "menu.json --policy fixed:layer3": "a policy must name a placement of the menu",
    "menu.json --menu-output menu.txt": "--menu-output must end in .json",
    "gone.json": "a menu must be a readable file (gone.json",
    "gone.toml": "(gone.toml: no such file or directory)",
}


@pytest.mark.parametrize("line", [*IGNORED, *WRONG])
def test_what_cannot_be_taken_is_told_by_its_flag(ask: Ask, line: str) -> None:
    assert (IGNORED | WRONG)[line] in ask(f"{line} --json")


def test_a_file_that_is_wrong_is_named_with_its_field(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET.replace("count", "cuont"))
    assert "fleet.toml: edges[1] has no field 'cuont'" in ask("fleet.toml")
    (tmp_path / "menu.json").write_text(json.dumps(MENU | {"device": {"name": "pi"}}))
    assert "menu.json: device.threads must be given" in ask("menu.json")
    (tmp_path / "fleet.toml").write_text(FLEET)
    assert "edges[1].menu of 'cameras': menu.json: device.threads must" in ask("fleet.toml")


@pytest.mark.parametrize("name", ["menu.json", "fleet.toml"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"\x00", b"[" * 99_999, b"a = " + b"[" * 99_999, b"x = " + b"9" * 9999],
    ids=["nothing", "no UTF-8", "a NUL", "brackets", "lists in lists", "digits"],
)
def test_no_content_of_a_file_is_a_traceback(
    ask: Ask, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in ask(name)


def test_a_flag_typed_with_its_default_is_still_refused(ask: Ask) -> None:
    assert f"--seed {SCENARIO}" in ask("fleet.toml --seed 0")


@pytest.mark.parametrize(
    "line",
    [
        "fleet.toml --log rows.jsonl --report out --json",
        "menu.json --policy race --deadline 1s --loss 0.01 --duration 2s --log rows --json",
        "menu.json --sweep uplink=1Mbit --sweep rtt=9ms --sweep load=0 --jobs 1 --seed 3 "
        "--menu-output folder/again.json --json",
    ],
)
def test_flags_that_mean_something_are_taken(run: Run, line: str) -> None:
    code, out, _ = run(line)
    assert code == 0
    assert json.loads(out)


def test_a_sweep_keeps_the_menu_too(run: Run, tmp_path: Path) -> None:
    line = "--sweep uplink=1Mbit --sweep rtt=9ms --jobs 1 --menu-output again.json --json"
    assert run(f"menu.json {line}")[0] == 0
    assert json.loads((tmp_path / "again.json").read_text())["model"] == "net"
