"""A shell is offered what a command takes: models, networks, policies."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main
from typer._completion_classes import BashComplete

from midstream.cli.completion import models
from midstream.cli.main import app


def offered(line: str) -> list[str]:
    """What a shell is told after `line`, whose last word is being typed."""
    *words, incomplete = line.split(" ")
    shell = BashComplete(typer.main.get_command(app), {}, "midstream", "_MIDSTREAM_COMPLETE")
    return [each.value for each in shell.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("pl", {"plan"}),
        ("plan resnet", {"resnet18", "resnet50"}),
        ("cloud serve resnet", {"resnet18", "resnet50"}),
        ("edge run digits --policy a", {"adaptive", "adaptive-race"}),
        ("simulate digits --policy f", {"fixed:"}),
        ("pair digits --policy l", {"linucb"}),
        ("plan digits --link l", {"lte"}),
        ("link a:1 --link sat", {"satellite"}),
        ("simulate digits --link 5", {"5g"}),
    ],
)
def test_names_are_offered(line: str, some: set[str]) -> None:
    told = offered(line)
    assert some <= set(told)
    assert all(each.startswith(line.rpartition(" ")[2]) for each in told)


def test_files_and_folders_are_offered_where_one_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("net.onnx", "notes.txt", ".hidden.onnx", "fleet.toml"):
        (tmp_path / name).touch()
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "deep.onnx").touch()
    monkeypatch.chdir(tmp_path)
    assert models("ne") == ["net.onnx", "nets/"]
    assert models("nets/") == ["nets/deep.onnx"]
    assert models(f"{tmp_path}/net.") == [f"{tmp_path}/net.onnx"]
    assert models("nowhere/") == []
    assert ".hidden.onnx" not in models("")
    assert models(".h") == [".hidden.onnx"]
    assert set(offered("simulate fl")) == {"fleet.toml"}
