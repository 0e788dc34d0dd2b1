"""Whatever the output is, a command that has something to say never ends in a traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from midstream.cli.output import console

if TYPE_CHECKING:
    from tests.app.conftest import CommandLine, Environment

PATIENCE_S = 60.0
LAYER = "слой/層/🙂/[bold]"
FILE = "сеть.onnx"
LINES = [
    f"profile {FILE} --runs 3 -o профиль.json",
    f"plan {FILE} --link lte --runs 3",
    f"verify {FILE} --cuts all",
    f"partition {FILE} --at нет",
    f"edge run {FILE} --requests 1",
    "traces stats след.csv",
    "simulate парк.toml --report отчёт",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A network, a trace and a fleet with names beyond ASCII."""
    made = tmp_path_factory.mktemp("имена")
    nodes = [
        helper.make_node("Relu", ["вход"], [LAYER], name=LAYER),
        helper.make_node("Neg", [LAYER], ["выход"]),
    ]
    given, made_of = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])]
        for name in ("вход", "выход")
    )
    graph = helper.make_graph(nodes, "граф", given, made_of)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), made / FILE)
    (made / "след.csv").write_text("time_s,bps\n0,1000000\n1,2000000\n2,1000000\n", "utf-8")
    (made / "menu.json").write_bytes((models / "menu.json").read_bytes())
    fleet = (models / "fleet.toml").read_text("utf-8").replace("cameras", "камеры")
    (made / "парк.toml").write_text(fleet, "utf-8")
    return made


@pytest.mark.parametrize(
    ("line", "encoding"),
    [*((line, "ascii") for line in LINES), *((LINES[0], e) for e in ("latin-1", "cp1252"))],
)
def test_any_name_is_written_to_any_output(
    command_line: CommandLine, environment: Environment, folder: Path, line: str, encoding: str
) -> None:
    done = subprocess.run(
        command_line(line),
        cwd=folder,
        env=environment(PYTHONIOENCODING=encoding, COLUMNS="40", NO_COLOR="1"),
        capture_output=True,
        timeout=PATIENCE_S,
    )
    said = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in said
    assert done.returncode == (2 if "--at" in line else 0), said


@pytest.mark.parametrize("json", ["", " --json"], ids=["a table", "a document"])
@pytest.mark.parametrize("where", [">&-", "2>&1 | true", ">/dev/full", ">/dev/full 2>&1"])
def test_an_output_that_takes_nothing_ends_a_command_without_a_traceback(
    command_line: CommandLine, environment: Environment, where: str, json: str
) -> None:
    words = " ".join(command_line(f"models{json}"))
    done = subprocess.run(
        ["sh", "-c", f"{words} {where}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("\n") <= 1


def test_names_and_sentences_of_others_command_no_terminal(capsys: Any) -> None:
    rows = console.table("\x1b[2J of a model", "layer")
    rows.add_row("\x1b]0;owned\x07 :smile: [red]x")
    console.show(rows)
    console.say("\x9b31m of a peer")
    said = capsys.readouterr().out
    assert "\\x1b[2J of a model" in said
    assert "\\x1b]0;owned\\x07 :smile: [red]x" in said
    assert "\\x9b31m of a peer" in said
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
