"""Answers can be had: written for every input, by its name, and readable whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from midstream.writing import Written, opened_sink
from midstream_wire.errors import UsageError

if TYPE_CHECKING:
    from tests.app.conftest import CommandLine, Environment, Ran

    Run = Callable[[str], Ran]

PATIENCE_S = 60.0
POST = """
def double(outputs):
    return {"twice": 2 * outputs["scores"]}

def fails(outputs):
    raise KeyError("boxes")

def odd(outputs):
    return object()
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def arrays(models: Path) -> Path:
    """A folder of inputs of different sizes: three, one and two rows, and a single one."""
    folder = models / "arrays"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a", (3, 8)), ("b", (1, 8)), ("c", (2, 8))):
        np.save(folder / f"{name}.npy", rng.standard_normal(shape).astype(np.float32))
    np.savez(folder / "d.npz", x=np.ones(8, np.float32))
    (models / "post.py").write_text(POST, "utf-8")
    return folder


def expected(models: Path, arrays: Path) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(models / "tiny.onnx"))
    given = [np.load(arrays / f"{name}.npy") for name in "abc"] + [np.ones((1, 8), np.float32)]
    return [session.run(None, {"x": each})[0] for each in given]


@pytest.mark.parametrize("server", ["", "--server {server} --cut cloud-only"])
def test_every_input_of_a_folder_is_answered_once_under_its_name(
    command: Run, cloud: Any, models: Path, arrays: Path, tmp_path: Path, server: str
) -> None:
    path = tmp_path / "answers.jsonl"
    flags = server.format(server=cloud.address)
    done = command(f"edge run tiny.onnx --input arrays --output {path} {flags} --json")
    assert done.document["answered"] == 4
    lines = lines_of(path)
    assert [each["input"] for each in lines] == ["a.npy", "b.npy", "c.npy", "d.npz"]
    assert {each["where"] for each in lines} == {"cloud" if server else "edge"}
    for line, wanted in zip(lines, expected(models, arrays), strict=True):
        np.testing.assert_allclose(line["outputs"]["scores"], wanted, rtol=1e-5)
    assert [len(each["top"].get("scores", ())) for each in lines] == [0, 4, 0, 4]


def test_an_archive_and_a_folder_hold_the_same_arrays(
    command: Run, models: Path, arrays: Path, tmp_path: Path
) -> None:
    for output in ("answers.npz", "answers"):
        line = f"edge run tiny.onnx --input arrays --output {tmp_path}/{output} --top 2 --json"
        assert {
            len(each["top"]["scores"] or "ab") for each in command(line).document["answers"]
        } == {2}
    index = lines_of(tmp_path / "answers" / "answers.jsonl")
    with np.load(tmp_path / "answers.npz") as found:
        assert found["inputs"].tolist() == [each["input"] for each in index]
        for number, wanted in enumerate(expected(models, arrays)):
            np.testing.assert_allclose(found[f"{number}/scores"], wanted, rtol=1e-5)
            with np.load(tmp_path / "answers" / index[number]["file"]) as one:
                assert np.array_equal(one["scores"], found[f"{number}/scores"])


def test_a_function_of_ones_own_makes_of_outputs_what_is_written(
    command: Run, models: Path, arrays: Path, tmp_path: Path
) -> None:
    path = tmp_path / "made.jsonl"
    line = f"edge run tiny.onnx --input arrays/b.npy --output {path} --postprocess"
    assert command(f"{line} python:post:double").code == 0
    (found,) = lines_of(path)
    wanted = 2 * expected(models, arrays)[1]
    np.testing.assert_allclose(found["result"]["twice"], wanted, rtol=1e-5)
    assert "outputs" not in found


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("-o {0}/x.jsonl --postprocess python:post:fails", "raised KeyError: 'boxes'"),
        ("-o {0}/x.jsonl --postprocess python:post:odd", "must return numbers, texts, arrays"),
        ("-o {0}/x.jsonl --postprocess python:post:none", "must have a function none"),
        (
            "-o {0}/x.npz --postprocess python:post:double",
            "write them to a .jsonl",
        ),
        ("-o {0}/x.csv", "--output must end in .jsonl or .npz, or name a folder"),
        ("-o arrays", "must be a new or an empty folder, and arrays holds other things"),
        ("-o tiny.onnx/x.npz", "must be a place that can be written"),
        ("--postprocess python:post:double", "--postprocess must be given with --output"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_sentence(
    command: Run, arrays: Path, tmp_path: Path, flags: str, why: str
) -> None:
    done = command(f"edge run tiny.onnx --input {arrays} --json {flags.format(tmp_path)}")
    assert why in done.complaint


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.npz", "answers"])
def test_a_full_disk_is_one_sentence_and_what_was_written_is_readable(
    command_line: CommandLine,
    environment: Environment,
    models: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """A limit on the size of files stands for the disk."""
    words = command_line(
        f"edge run tiny.onnx --requests 400 --top 1 --json -o {tmp_path}/{name}"
    )
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 8; exec {' '.join(words)}"],
        cwd=models,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --output must have room for the answers")
    assert done.stderr.count("\n") == 1
    assert readable(tmp_path / name) > 5
    assert [each.name for each in tmp_path.glob("**/*.partial")] == []


def readable(path: Path) -> int:
    """How many answers can be read."""
    if path.suffix == ".npz":
        with np.load(path) as found:
            arrays = [found[name] for name in found.files if name != "inputs"]
        return len(arrays)
    return len(lines_of(path / "answers.jsonl" if path.is_dir() else path))


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.npz"])
def test_ctrl_c_leaves_what_is_there_readable(
    command_line: CommandLine,
    environment: Environment,
    models: Path,
    tmp_path: Path,
    name: str,
) -> None:
    words = command_line(
        f"edge run digits --slowdown 20 --requests 100000 -o {tmp_path}/{name}"
    )
    with subprocess.Popen(
        words, cwd=models, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("   5 ") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 130
    assert readable(tmp_path / name) >= 5


def test_an_interrupted_archive_keeps_all_whole_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C amid an array, on a disk that has room: nothing need be given up for the rest."""

    def interrupt(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        assert archive.fp is not None
        archive.fp.write(data[: len(data) // 2])
        monkeypatch.undo()
        raise KeyboardInterrupt

    path = tmp_path / "answers.npz"
    with opened_sink(path) as sink:
        for number in range(6):
            sink.take(Written(number, {"input": "x"}, {"y": np.zeros(2)}))
        monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.take(Written(6, {"input": "x"}, {"y": np.zeros(2)}))
    assert readable(path) == 6


def test_names_of_outputs_do_not_lead_out_of_a_folder(tmp_path: Path) -> None:
    with opened_sink(tmp_path / "out") as sink:
        arrays = {"../../up": np.ones(1), "file": np.zeros(2)}
        sink.take(Written(0, {"input": "../в.png"}, arrays))
    (found,) = lines_of(tmp_path / "out" / "answers.jsonl")
    assert Path(found["file"]).name == found["file"]
    with np.load(tmp_path / "out" / found["file"]) as made:
        assert sorted(made.files) == ["..%2F..%2Fup", "file"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]


def test_an_output_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in"), opened_sink(tmp_path / "x.txt"):
        raise AssertionError
