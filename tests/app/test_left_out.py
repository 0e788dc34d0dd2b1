"""One bad model of a folder is named and left out; the others are served."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

from midstream.serving import open_repository
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import save_partition
from midstream_wire.errors import MidstreamError, ModelError, UsageError

Heard = list[tuple[str, str]]


def model(op: str = "Relu", domain: str = "") -> onnx.ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "other" : 1]>
        net (float[n, 2] x) => (float[n, 2] y) {{ y = {domain}{op}(x) }}"""
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(model(), str(tmp_path / "good.onnx"))
    return tmp_path


def served(folder: Path, heard: Heard) -> list[str]:
    repository = open_repository(
        [str(folder)], runs=0, left_out=lambda name, error: heard.append((name, str(error)))
    )
    return sorted(repository.models)


def spoil(folder: Path, how: str) -> str:
    """Add a model that cannot be served, and return what it is called in the sentence."""
    if how == "no model":
        (folder / "bad.onnx").write_bytes(b"no model")
    if how == "an operator that nothing runs":
        onnx.save(model("Nothing", "other."), str(folder / "bad.onnx"))
    if how == "a damaged manifest":
        (folder / "bad.midstream").mkdir()
        (folder / "bad.midstream" / "manifest.json").write_text("{")
    if how == "a damaged segment":
        save_partition(partition(load_network(model()), []), folder / "bad.midstream")
        (folder / "bad.midstream" / "segments" / "0.onnx").write_bytes(b"damaged")
    if how == "a broken link":
        (folder / "bad.onnx").symlink_to(folder / "gone.onnx")
    if how == "a name that is taken":
        save_partition(partition(load_network(model()), []), folder / "good.midstream")
        return "good.onnx"
    return "bad"


@pytest.mark.parametrize(
    "how",
    [
        "no model",
        "an operator that nothing runs",
        "a damaged manifest",
        "a damaged segment",
        "a broken link",
        "a name that is taken",
    ],
)
def test_a_bad_model_is_named_and_the_others_are_served(folder: Path, how: str) -> None:
    heard: Heard = []
    name = spoil(folder, how)
    assert served(folder, heard) == ["good"]
    ((source, reason),) = heard
    assert name in source
    assert reason


def test_where_none_is_left_there_is_nothing_to_serve(tmp_path: Path) -> None:
    heard: Heard = []
    spoil(tmp_path, "no model")
    with pytest.raises(ModelError, match="none is left"):
        served(tmp_path, heard)
    assert len(heard) == 1


def test_a_model_that_was_named_itself_is_not_left_out(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"no model")
    named = [str(folder / "good.onnx"), str(folder / "bad.onnx")]
    with pytest.raises(MidstreamError, match=r"bad\.onnx: "):
        open_repository(named, runs=0, left_out=lambda *_: None)
    with pytest.raises(UsageError, match="comes twice"):
        open_repository([named[0], named[0]], runs=0, left_out=lambda *_: None)
