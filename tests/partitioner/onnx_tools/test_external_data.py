"""Weights in files of their own are read from inside the model's folders, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import ModelError


def _save_external(
    model: onnx.ModelProto, folder: Path, location: str, **entries: str
) -> Path:
    """`model` with w0 at `location`, of which nothing is written."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(t for t in copy.graph.initializer if t.name == "w0")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "net.onnx"
    path.write_bytes(copy.SerializeToString())
    return path


def _raw(model: onnx.ModelProto) -> bytes:
    return next(t.raw_data for t in model.graph.initializer if t.name == "w0")


def test_external_weights_beside_the_model_are_read(
    branches_model: onnx.ModelProto, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w0.bin").write_bytes(b"pad." + _raw(branches_model))
    path = _save_external(branches_model, tmp_path, "weights/w0.bin", offset="4", length="256")
    network = load_network(path)
    assert network.graph.digest == load_network(branches_model).graph.digest
    assert partition(network, ()).segments[0].weight_nbytes == 256 + 256 + 128


def test_external_weights_outside_the_folder_are_refused(
    branches_model: onnx.ModelProto, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(_raw(branches_model))
    (folder / "link.bin").symlink_to(secret)
    (folder / "circle").symlink_to(folder / "circle")
    wrong = [
        "../secret.bin",
        str(secret),
        "link.bin",
        "circle",
        "absent",
        ".",
        "",
        "a\0b",
        "x" * 5000,
    ]
    for location in wrong:
        path = _save_external(branches_model, folder, location)
        with pytest.raises(ModelError, match="must be a file inside the model's folder"):
            load_network(path)


def _save_as_cache(model: onnx.ModelProto, root: Path, blobs: Path) -> Path:
    """As download caches keep it: `model` and its weights are links to where they lie once."""
    blobs.mkdir()
    folder = root / "snapshots/abc/onnx"
    folder.mkdir(parents=True)
    stored = _save_external(model, blobs, "net.onnx_data")
    stored.rename(blobs / "1f2e")
    (blobs / "9d8c").write_bytes(_raw(model))
    (folder / "net.onnx").symlink_to("../../../blobs/1f2e")
    (folder / "net.onnx_data").symlink_to("../../../blobs/9d8c")
    return folder / "net.onnx"


def test_external_weights_may_be_links_to_where_the_models_own_link_leads(
    branches_model: onnx.ModelProto, tmp_path: Path
) -> None:
    path = _save_as_cache(branches_model, tmp_path, tmp_path / "blobs")
    assert load_network(path).graph.digest == load_network(branches_model).graph.digest
    # Through a link to the folder, and beside what the model's link leads to.
    (tmp_path / "current").symlink_to(path.parent)
    load_network(tmp_path / "current/net.onnx")
    (path.parent / "net.onnx_data").unlink()
    (tmp_path / "blobs/net.onnx_data").write_bytes(_raw(branches_model))
    load_network(path)


def test_a_link_out_of_both_folders_is_refused_and_its_end_is_named(
    branches_model: onnx.ModelProto, tmp_path: Path
) -> None:
    path = _save_as_cache(branches_model, tmp_path, tmp_path / "blobs")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(_raw(branches_model))
    (path.parent / "net.onnx_data").unlink()
    (path.parent / "net.onnx_data").symlink_to(secret)
    with pytest.raises(ModelError, match=r"leads out of it to \S*secret.bin: copy that file"):
        load_network(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"length": "255"},
        {"length": "4"},
        {"length": "100000"},
        {"length": "-1"},
        {"offset": "1"},
        {"offset": "-1", "length": "256"},
        {"length": "many"},
    ],
    ids=str,
)
def test_external_weights_of_another_size_are_refused(
    entries: dict[str, str], branches_model: onnx.ModelProto, tmp_path: Path
) -> None:
    (tmp_path / "w0.bin").write_bytes(_raw(branches_model))
    path = _save_external(branches_model, tmp_path, "w0.bin", **entries)
    with pytest.raises(ModelError, match="'w0'"):
        load_network(path)


def test_bytes_cannot_point_at_files(branches_model: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "w0.bin").write_bytes(_raw(branches_model))
    data = _save_external(branches_model, tmp_path, "w0.bin").read_bytes()
    with pytest.raises(ModelError, match="give the model's path"):
        load_network(data)
