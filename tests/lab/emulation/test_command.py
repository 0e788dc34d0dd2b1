"""Emulated links from a shell: lines in, lines out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from midstream_lab.emulation.__main__ import main, parser, specification
from midstream_lab.emulation.model.spec import LinkSpec, Loss
from midstream_wire.errors import UsageError

BARE = LinkSpec(1e6, 2e6, 0.01)
UP = ["up", "--uplink", "8Mbit", "--downlink", "8Mbit", "--delay", "1ms", "--uncalibrated"]


def test_each_option_is_a_field_and_the_others_stay() -> None:
    options = parser().parse_args(
        "--uplink 3Mbit --jitter 2ms --loss 1% --bursts 4 --queue 64KiB --seed 9".split()
    )
    spec = specification(options, BARE)
    assert spec == LinkSpec(3e6, 2e6, 0.01, 0.002, Loss.bursts(0.01, 4), 65536, "cubic", 9)


def test_a_rate_may_be_a_file_with_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "drive.csv"
    path.write_text("time_s,rate_mbps\n0,4\n1,2\n")
    spec = specification(parser().parse_args(["--uplink", str(path)]), BARE)
    assert not isinstance(spec.uplink, float | int)
    assert list(spec.uplink.rates_bps) == [4e6, 2e6]


def test_bursts_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="must come with --loss"):
        specification(parser().parse_args(["--bursts", "4"]), BARE)


def test_commands_are_answered_line_by_line_and_mistakes_keep_the_link_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "stats",
        "cut reset",
        "restore",
        "start",
        "set --uplink 2Mbit",
        "set --uplink 2MB",
        "cut twice",
        "what",
        '"',
        "validity",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main([*UP, "--backend", "proxy"]) == 0
    first, *answers = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["backend"], first["cloud_listen"]) == ("proxy", "127.0.0.1:0")
    assert first["validity"]["valid"]
    assert [("error" in each) for each in answers] == [False] * 5 + [True] * 4 + [False]


def test_backends_are_named_with_what_they_lack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["tun", "kernel", "proxy"]
    assert said["proxy"] == "can be had"


@pytest.mark.parametrize(
    "arguments",
    [["up"], ["up", "--uplink", "fast"], [*UP, "--backend", "proxy", "--loss", "1%"]],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
