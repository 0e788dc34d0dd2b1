"""Calibrating: what is measured, on whose samples, taken up again, and kept to by plans."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from midstream.cli.main import app
from midstream.loaders import open_partition
from midstream_lab.networks import digits_split
from midstream_partitioner.costs.calibration import MOST_DEVIATION, PARTIAL_FILE
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.answer_metrics import Metric, deviation
from midstream_partitioner.profiling.calibrator import calibrate
from midstream_partitioner.profiling.codec_ladder import ladder_of
from midstream_partitioner.profiling.dataset import Data, read_data
from midstream_partitioner.profiling.fit_transforms import fit_transforms
from midstream_partitioner.profiling.profiler import exchange
from midstream_partitioner.python_names import import_function
from midstream_wire.errors import TensorError, UsageError
from midstream_wire.tensors import Array

if TYPE_CHECKING:
    from tests.app.conftest import Ran, Schema

    Run = Callable[[str], Ran]

FEW = ("raw", "lossless", "half", "int8")


@pytest.fixture(scope="module")
def part() -> Partition:
    return open_partition("digits")


@pytest.fixture(scope="module")
def chain(part: Partition) -> Chain:
    return Chain(part)


@pytest.fixture(scope="module")
def digits(models: Path) -> Path:
    """96 held-out digits with labels, as an .npz in the folder of models."""
    images, labels = digits_split()
    path = models / "digits.npz"
    pictures = images[:96].astype(np.float32).reshape(-1, 1, 8, 8)
    np.savez(path, images=pictures, labels=labels[:96].astype(np.int64))
    np.save(models / "labels.npy", labels[:96])
    (models / "labels.txt").write_text("\n".join(map(str, labels[:96])))
    return path


@pytest.fixture(scope="module")
def data(part: Partition, digits: Path) -> Data:
    return read_data(part, str(digits))


def top1(outputs: Mapping[str, Array], label: Any) -> float:
    """A user's metric that is top-1 again."""
    (scores,) = outputs.values()
    return float(np.argmax(scores) == label[0])


def likeness(outputs: Mapping[str, Array], reference: Any) -> float:
    """A user's metric without labels: what the unsplit network says is right."""
    return float(all(np.allclose(array, reference[name]) for name, array in outputs.items()))


def test_every_figure_is_that_of_single_samples_sent_one_by_one(
    chain: Chain, data: Data
) -> None:
    found = calibrate(chain, data, codecs=FEW)
    part, last = chain.partition, len(chain.partition.segments)
    name = part.outputs[0].name
    assert data.labels is not None
    assert len(found.rows) == last * len(FEW)
    for k, cut in enumerate(part.cuts[:-1]):
        row = found.find(cut.id, "int8")
        assert row is not None
        sizes, off, right, same, elements = [], [], 0, 0, 0
        for sample, label in zip(data.inputs, data.labels, strict=True):
            state = chain.run(sample, 0, k) if k else dict(sample)
            sent = exchange(chain, k, state, "int8")
            made = chain.run(state | sent.delivered, k, last)[name]
            whole = chain.run(sample, 0, last)[name]
            sizes.append(sent.payload_nbytes)
            elements += sum(state[spec.name].size for spec in part.crossing(k))
            off.append(np.linalg.norm(made - whole) / np.linalg.norm(whole))
            right += int(np.argmax(made) == label[0])
            same += int(np.argmax(made) == np.argmax(whole))
        assert row.payload_nbytes == round(np.mean(sizes))
        assert row.payload_p95_nbytes == round(float(np.percentile(sizes, 95)))
        assert row.bits_per_element == pytest.approx(8 * sum(sizes) / elements)
        assert row.relative_l2_mean == pytest.approx(np.mean(off), rel=1e-3)
        assert row.relative_l2_worst == pytest.approx(max(off), rel=1e-3)
        assert row.top1 == right / len(data.inputs)
        assert row.agreement == same / len(data.inputs)
        assert found.whole is not None
        assert row.top1_loss == pytest.approx(100 * (found.whole - right / len(data.inputs)))


def test_lossless_codecs_lose_nothing_at_any_cut(chain: Chain, data: Data) -> None:
    for row in calibrate(chain, data, codecs=("raw", "lossless")).rows:
        assert (row.relative_l2_worst, row.agreement, row.top1_loss) == (0.0, 1.0, 0.0)


def test_transforms_are_fitted_and_measured_like_codecs(chain: Chain, data: Data) -> None:
    part = fit_transforms(chain, data.inputs, [0.9, 0.99])
    names = {each.name for each in part.transforms}
    assert names
    assert {f"{name}+half" for name in names} <= set(ladder_of(part))
    found = calibrate(Chain(part), data, codecs=[f"{name}+half" for name in names])
    assert found.rows
    for row in found.rows:
        assert row.relative_l2_worst is not None
        assert 0 < row.relative_l2_worst < 1


def test_priors_are_the_smallest_of_their_step(chain: Chain, data: Data) -> None:
    part = fit_transforms(chain, data.inputs, dials=[0.5], shaped=[0.5])
    names = ["ec:0.5", "prior:50+raw", "shaped:50+raw"]
    found = calibrate(Chain(part), data, codecs=names)
    packed = [row for row in found.rows if row.codec == "prior:50+raw"]
    assert packed
    for row in packed:
        plain = found.find(row.cut, "ec:0.5")
        assert plain is not None
        assert row.payload_nbytes < 0.8 * plain.payload_nbytes
        assert row.agreement is not None
        assert row.agreement > 0.9
    assert any(row.codec == "shaped:50+raw" for row in found.rows)


def test_a_metric_of_the_user_takes_the_place_of_top1(chain: Chain, data: Data) -> None:
    ours = calibrate(chain, data, codecs=("int8",))
    theirs = calibrate(chain, data, codecs=("int8",), metric=Metric("mine", top1))
    assert theirs.metric == "mine"
    assert theirs.whole == ours.whole
    assert [row.top1 for row in theirs.rows] == [row.top1 for row in ours.rows]
    blind = Data(data.source, data.inputs)
    same = calibrate(chain, blind, codecs=("raw", "int8"), metric=Metric("same", likeness))
    assert same.whole == 1.0
    assert {row.top1 for row in same.rows if row.codec == "raw"} == {1.0}
    assert all(row.top1_loss for row in same.rows if row.codec == "int8")


def test_generated_inputs_tell_sizes_and_nothing_else(chain: Chain, part: Partition) -> None:
    found = calibrate(chain, read_data(part, None, count=3), codecs=FEW)
    assert found.generated
    for row in found.rows:
        assert row.payload_nbytes > 0
        assert {row.relative_l2_mean, row.relative_l2_worst, row.cosine} == {None}
        assert {row.agreement, row.top1, row.top1_loss, row.top5_loss} == {None}


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def test_what_was_interrupted_goes_on_where_it_was(
    chain: Chain, data: Data, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 64:
            raise Interrupted

    with pytest.raises(Interrupted):
        calibrate(chain, data, codecs=FEW, folder=tmp_path, progress=stop)
    assert (tmp_path / PARTIAL_FILE).is_file()
    seen: list[int] = []
    again = calibrate(
        chain, data, codecs=FEW, folder=tmp_path, progress=lambda done, _: seen.append(done)
    )
    assert seen == [64, 96]
    assert again == calibrate(chain, data, codecs=FEW)


@pytest.mark.parametrize("change", ["data", "codecs", "damage"])
def test_what_was_done_under_other_settings_is_not_taken_up(
    chain: Chain, data: Data, tmp_path: Path, change: str
) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise Interrupted

    with pytest.raises(Interrupted):
        calibrate(chain, data, codecs=FEW, folder=tmp_path, progress=stop)
    seen: list[int] = []
    codecs: tuple[str, ...] = FEW
    if change == "data":
        assert data.labels is not None
        data = Data(data.source, data.inputs[::-1], data.labels[::-1])
    elif change == "codecs":
        codecs = FEW[:2]
    else:
        (tmp_path / PARTIAL_FILE).write_bytes(b"no archive")
    calibrate(
        chain, data, codecs=codecs, folder=tmp_path, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 0


def test_deviation_is_relative_and_of_several_outputs_the_worst() -> None:
    expected = {"a": np.array([[3.0, 4.0]]), "b": np.array([[1.0, 0.0], [0.0, 1.0]])}
    assert deviation(expected, expected) == (0.0, 1.0, 1.0)
    other = {"a": np.array([[3.0, 4.5]]), "b": np.array([[0.0, 1.0], [0.0, 1.0]])}
    l2, cosine, agreement = deviation(expected, other)
    assert l2 == pytest.approx(1.0)
    assert cosine == pytest.approx(0.5)
    assert agreement == 0.5


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_number_that_becomes_none_deviates_as_far_as_there_is(broken: float) -> None:
    expected = {"a": np.array([[1.0, 2.0]])}
    assert deviation(expected, {"a": np.array([[1.0, broken]])})[0] == MOST_DEVIATION
    whole = {"a": np.array([[1.0, broken]])}
    assert deviation(whole, {"a": np.array([[1.0, broken]])})[0] == 0.0


def test_samples_come_from_functions_and_arrays_and_labels_from_files(
    part: Partition, models: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "samples_of_mine.py").write_text(
        "import numpy as np\n"
        "def one():\n    yield np.ones((1, 1, 8, 8), np.float32)\n"
        "def pairs():\n    for n in range(9): yield np.ones((1, 8, 8), np.float32), n\n"
        "def masked():\n"
        "    yield np.ones((1, 8, 8), np.float32), np.ma.masked_equal([3], 3)\n"
        "def nothing():\n    return []\n"
        "def wrong():\n    yield 'a picture'\n"
        "def broken():\n    raise KeyError('no data')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(models)
    made = read_data(part, "python:samples_of_mine:pairs", count=4)
    assert made.labels is not None
    assert [int(label[0]) for label in made.labels] == [0, 1, 2, 3]
    assert read_data(part, "python:samples_of_mine:one").labels is None
    for named in ("labels.npy", "labels.txt", "labels"):
        found = read_data(part, str(digits), labels=named)
        assert found.labels is not None
        assert len(found.labels) == len(found.inputs) == 96
    assert len(read_data(part, str(digits), count=10).inputs) == 10
    for wrong, reason in {
        "python:samples_of_mine:nothing": "must yield at least one input",
        "python:samples_of_mine:wrong": "it yielded a str",
        "python:samples_of_mine:broken": "raised KeyError",
        "python:samples_of_mine:number": "must have a function number",
        "python:nosuch_module:pairs": "must import",
        "python:samples_of_mine": "python:module:function",
    }.items():
        with pytest.raises(UsageError, match=reason):
            read_data(part, wrong)
    with pytest.raises(UsageError, match="must be named as"):
        import_function("samples_of_mine:pairs")
    with pytest.raises(TensorError, match=r"its mask would be lost"):
        read_data(part, "python:samples_of_mine:masked")


@pytest.mark.parametrize("label", [1.5, float("nan"), "three", True, {"class": 3}])
def test_labels_that_are_no_whole_numbers_are_refused(part: Partition, label: object) -> None:
    inputs = read_inputs(part.feed, part.inputs, None, count=1, seed=0)
    data = Data("made up", tuple(inputs), (np.atleast_1d(np.asarray(label)),))
    with pytest.raises(UsageError, match="labels must be whole numbers"):
        calibrate(Chain(part), data, codecs=("half",))


def test_pictures_are_calibrated_beside_their_own_codecs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    part = open_partition("mobilenetv2")
    data = read_data(part, str(tmp_path))
    assert len(data.inputs) == 3
    first = Chain(part)
    found = calibrate(first, data, codecs=("png", "jpeg:75", "webp:80"))
    assert {(row.cut, row.codec) for row in found.rows} == {
        ("cloud-only", name) for name in ("png", "jpeg:75", "webp:80")
    }


def test_a_calibrated_partition_is_planned_within_its_budget(
    command: Run, models: Path, digits: Path, schema: Schema
) -> None:
    line = (
        "calibrate digits --data digits.npz -o budget.midstream --samples 64 --runs 3 --json"
    )
    made = command(line).document
    schema.check(made, "Calibrated")
    folder = models / "budget.midstream"
    assert (folder / "calibration.json").is_file()
    assert not (folder / PARTIAL_FILE).exists()
    kept = open_partition(str(folder)).calibration
    assert kept is not None
    assert json.loads(kept.to_json())["rows"] == made["rows"]
    plan = command("plan budget.midstream --link 3g --runs 3 --max-loss 1pt --json").document
    assert plan["budget"]["max_loss"] == 1.0
    losses = [c["fidelity"]["top1_loss"] for c in plan["candidates"] if c["fidelity"]]
    assert losses
    assert max(losses) <= 1.0
    assert "95 % confidence on 64 samples" in plan["accuracy"]
    assert any(each["reason"].startswith("loses") for each in plan["rejected"])
    rows = command("codecs budget.midstream --json").document["rows"]
    assert {(r["cut"], r["codec"]) for r in rows} == {
        (r["cut"], r["codec"]) for r in made["rows"]
    }


def test_an_edge_plans_with_the_calibration_of_its_partition(
    command: Run, models: Path, digits: Path, start_cloud: Callable[[str], Any]
) -> None:
    line = "calibrate digits --data digits.npz -o edge.midstream --codecs ec:0.25 --runs 3"
    assert command(line).code == 0
    with start_cloud("edge.midstream --runs 3") as cloud:
        line = f"edge run edge.midstream --server {cloud.address} --requests 2 --runs 3 --json"
        plan = command(f"{line} --min-agreement 90%").document["plan"]
        assert plan["budget"]["min_agreement"] == 0.9
        assert any(c["codec"].startswith("ec") for c in plan["candidates"])
    shutil.rmtree(models / "edge.midstream")


def test_the_profile_of_a_calibrated_partition_has_what_the_calibration_knows(
    command: Run, models: Path, digits: Path
) -> None:
    line = "calibrate digits --data digits.npz -o own.midstream --codecs half,ec:0.25,ecc:1"
    assert command(f"{line} --runs 3 --samples 8").code == 0
    assert command("profile own.midstream --runs 3 -o own.json").code == 0
    measured = {
        each["codec"] for each in json.loads((models / "own.json").read_text())["codecs"]
    }
    assert measured >= {"raw", "half", "ec:0.25", "ecc:1"}
    shutil.rmtree(models / "own.midstream")


def test_codecs_by_name_are_measured_behind_all_that_is_fitted(
    command: Run, models: Path, digits: Path
) -> None:
    line = "calibrate digits --data digits.npz --samples 16 -o fits.midstream --runs 3 --json"
    made = command(f"{line} --codecs ec:1 --transforms 90% --priors 1").document
    codecs = {row["codec"] for row in made["rows"]}
    assert "ec:1" in codecs
    assert any(name.startswith("klt:") and name.endswith("+ec:1") for name in codecs)
    assert "prior:100+raw" in codecs
    shutil.rmtree(models / "fits.midstream")


def test_codecs_are_drawn(command: Run, digits: Path, models: Path) -> None:
    done = command(
        "codecs digits --data digits.npz --samples 8 --codecs half,int8 --draw c.svg"
    )
    assert done.code == 0, done.err
    assert (models / "c.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("line", "reason"),
    {
        "calibrate tiny.onnx --data nosuch.npz": "no such file or folder: nosuch.npz",
        "calibrate tiny.onnx --data x.npy --labels nosuch": "labels must be a file",
        "calibrate tiny.onnx --labels x.npy": "--labels must be given with --data",
        "calibrate digits --data digits.npz --labels x.npy": "x.npy must be whole numbers",
        "calibrate tiny.onnx --data x.npy --labels labels.npy": "a label for each of 3",
        "calibrate tiny.onnx --data python:nosuch": "python:module:function",
        "calibrate tiny.onnx --data x.npy --metric top1": "python:module:function",
        "calibrate tiny.onnx --metric python:math:sqrt": "--metric must be given with --data",
        "calibrate tiny.onnx --data x.npy --codecs zip": "a codec must be one of",
        "calibrate tiny.onnx --data x.npy --transforms 0%": "share of the energy",
        "calibrate tiny.onnx --data x.npy --transforms 90% --codecs raw": "needs a codec",
        "calibrate tiny.onnx --data x.npy --priors 1 --codecs klt:2+ec": "name codecs alone",
        "calibrate tiny.onnx --data x.npy --priors fine": "steps in standard deviations",
        "calibrate tiny.onnx --data x.npy --shaped 0.001": "hundredths of a standard",
        "codecs tiny.onnx --draw c.gif": "must be .png, .svg, .pdf",
        "plan tiny.onnx --link lte --max-loss 0.5pt": "needs a calibration on data",
        "plan tiny.onnx --link lte --max-loss 0.5": "a loss must be 0pt to 100pt",
        "plan tiny.onnx --link lte --min-agreement 120%": "a share must be 0% to 100%",
        "plan tiny.onnx --link lte --target-payload 16": "'16' has no unit",
    }.items(),
)
def test_what_cannot_be_calibrated_is_said_in_one_sentence(
    models: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, line: str, reason: str
) -> None:
    monkeypatch.chdir(models)
    with pytest.raises(UsageError) as caught:
        app(shlex.split(line), standalone_mode=False)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_that_cannot_be_kept_to_ends_a_command_with_2(command: Run) -> None:
    done = command("plan tiny.onnx --link lte --max-error 1e-2")
    assert "midstream calibrate" in done.complaint
    assert done.code == 2
