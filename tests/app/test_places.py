"""What is written goes where it was said, or is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream.cli.main import app
from midstream_wire.errors import UsageError

#: Command lines that would measure, or fail at a model that is not there, if they began.
FILES = [
    "profile nosuch.onnx -o {0}",
    "plan nosuch.onnx --link lte --draw {0}",
    "codecs nosuch.onnx --draw {0}",
    "edge run nosuch.onnx --server 127.0.0.1:1 --adaptive --log {0}",
    "pair nosuch.onnx --policy race --log {0}",
    "simulate nosuch.onnx --log {0}",
    "simulate nosuch.onnx --menu-output {0}",
    "traces plot lte -o {0}",
    "demo -o {0}",
]
FOLDERS = [
    "simulate nosuch.onnx --report {0}",
    "simulate nosuch.onnx --sweep default -o {0}",
    "experiment docs/experiments/quick.toml -o {0}",
    "partition digits -o {0}",
    "calibrate digits --priors 0.5 -o {0}",
]


def refusal(line: str) -> str:
    with pytest.raises(UsageError) as told:
        app(line.split(), standalone_mode=False)
    return str(told.value)


@pytest.mark.parametrize("line", FILES)
def test_a_folder_is_no_file(tmp_path: Path, line: str) -> None:
    assert "an output must be a file" in refusal(line.format(tmp_path))


def test_answers_have_a_place_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = "edge run nosuch.onnx --server 127.0.0.1:1 --output"
    assert "holds other things" in refusal(f"{line} {tmp_path}")
    assert "must end in .jsonl" in refusal(f"{line} {tmp_path / 'x.txt'}")
    assert "that can be written" in refusal(f"{line} {tmp_path / 'file' / 'x.npz'}")


@pytest.mark.parametrize("line", FOLDERS)
def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "thesis.tex").write_text("", encoding="utf-8")
    assert "holds thesis.tex" in refusal(line.format(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("line", [*FILES, *FOLDERS])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "a place that can be written" in refusal(line.format(tmp_path / "file" / "x"))


def test_a_report_of_an_experiment_is_a_page(tmp_path: Path) -> None:
    line = f"experiment docs/experiments/quick.toml -o {tmp_path} --report {tmp_path / 'x'}"
    assert refusal(line) == "--report must end in .html (not 'x')"


@pytest.mark.parametrize(
    "line",
    [
        "simulate {models}/menu.json --duration 2s --report {page} --json",
        "simulate {models}/fleet.toml --report {page} --json",
        "simulate {models}/menu.json --sweep uplink=9Mbit --sweep rtt=9ms --sweep slowdown=1 "
        "--jobs 1 -o {folder} --report {page} --json",
    ],
    ids=["pair", "fleet", "sweep"],
)
def test_a_report_goes_into_exactly_the_file_that_was_named(
    models: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page, folder = tmp_path / "pages" / "mine.html", tmp_path / "sweep"
    app(line.format(models=models, page=page, folder=folder).split(), standalone_mode=False)
    assert capsys.readouterr().out.startswith("{")
    assert [each.name for each in page.parent.iterdir()] == ["mine.html"]
    assert "</html>" in page.read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()
