"""A partition as a folder: the same bytes, read back whole, and refused when damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.onnx_tools.constants import walk_tensors
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import (
    is_partition,
    load_partition,
    load_profiles,
    save_partition,
)
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.transform import MAX_TRANSFORM_NBYTES
from midstream_partitioner.profiling.profiler import profile_segments
from midstream_partitioner.transforms.klt import fit_klt, klt
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array

RunPlaced = Callable[..., dict[str, Array]]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def part(branches: Network) -> Partition:
    return partition(branches, position_cuts(branches.graph)[2:5])


@pytest.fixture
def folder(part: Partition, tmp_path: Path) -> Path:
    save_partition(part, tmp_path / "net.midstream")
    return tmp_path / "net.midstream"


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_partition_comes_back_as_it_was(
    part: Partition, folder: Path, inputs: dict[str, Array], run_placed: RunPlaced
) -> None:
    loaded = load_partition(folder)
    assert loaded == part
    assert [s.model for s in loaded.segments] == [s.model for s in part.segments]
    first, second = (run_placed(p, 2, inputs) for p in (part, loaded))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_writing_twice_gives_the_same_bytes(part: Partition, folder: Path) -> None:
    before = content_of(folder)
    assert sorted(before) == ["manifest.json", *(f"segments/{k}.onnx" for k in range(4))]
    save_partition(load_partition(folder), folder)
    assert content_of(folder) == before


def test_segments_of_another_partition_are_replaced(branches: Network, folder: Path) -> None:
    save_partition(partition(branches, ()), folder)
    assert sorted(content_of(folder)) == ["manifest.json", "segments/0.onnx"]


def test_profiles_travel_along(
    part: Partition, inputs: dict[str, Array], tmp_path: Path
) -> None:
    devices = [Device("a board", threads=1), Device("a board", threads=1, slowdown=8.0)]
    profiles = [
        profile_segments(Chain(part), [inputs], device, runs=2, codecs=["raw"])
        for device in devices
    ]
    save_partition(part, tmp_path, profiles=profiles)
    assert set(load_profiles(tmp_path)) == set(profiles)
    names = sorted(path.name for path in (tmp_path / "profiles").iterdir())
    assert names == ["a-board-emulated-8x-slower.json", "a-board.json"]


@pytest.fixture(scope="module")
def transformed(make_network: Callable[..., Network]) -> Partition:
    """Cut behind a tensor [n, 6, 4, 4], with two transforms of it."""
    network = make_network(
        "net (float[n, 6, 4, 4] x) => (float[n, 6, 4, 4] y) { h = Relu(x)\n y = Relu(h) }"
    )
    part = partition(network, position_cuts(network.graph))
    array = np.random.default_rng(0).standard_normal((2, 6, 4, 4)).astype(np.float32)
    return with_transforms(part, [klt(part, 1, "h", *fit_klt([array], n)) for n in (2, 6)])


@pytest.fixture
def transformed_folder(transformed: Partition, tmp_path: Path) -> Path:
    save_partition(transformed, tmp_path / "net.midstream")
    return tmp_path / "net.midstream"


def test_transforms_come_back_as_they_were(
    transformed: Partition, transformed_folder: Path, tmp_path: Path
) -> None:
    loaded = load_partition(transformed_folder)
    assert (loaded, loaded.digest) == (transformed, transformed.digest)
    for mine, theirs in zip(transformed.transforms, loaded.transforms, strict=True):
        assert (mine.encoder, mine.decoder) == (theirs.encoder, theirs.decoder)
    save_partition(loaded, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(transformed_folder)
    names = [name for name in content_of(transformed_folder) if "transforms" in name]
    assert names == [f"transforms/{n}.{side}.onnx" for n in "01" for side in ("dec", "enc")]


def test_transforms_left_out_leave_no_trace(
    transformed: Partition, transformed_folder: Path, tmp_path: Path
) -> None:
    save_partition(with_transforms(transformed, ()), transformed_folder)
    save_partition(with_transforms(transformed, ()), tmp_path / "plain")
    assert content_of(transformed_folder) == content_of(tmp_path / "plain")
    assert b"transforms" not in (transformed_folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("side", ["enc", "dec"])
@pytest.mark.parametrize("damage", ["flipped", "missing", "truncated", "replaced", "vast"])
def test_a_damaged_transform_is_noticed_before_it_runs(
    side: str, damage: str, transformed_folder: Path
) -> None:
    path = transformed_folder / "transforms" / f"1.{side}.onnx"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "vast":
        with path.open("wb") as file:
            file.truncate(MAX_TRANSFORM_NBYTES + 1)  # sparse
    else:
        data[len(data) // 2] ^= 1
        changed = {"flipped": data, "truncated": data[:-1], "replaced": data[::-1]}[damage]
        path.write_bytes(changed)
    adapter = Chain(load_partition(transformed_folder)).transform(1, "klt:6")
    side_name = {"enc": "encoder", "dec": "decoder"}[side]
    with pytest.raises(ModelError, match=f"the {side_name} of klt:6 at .* must") as caught:
        adapter.compile_encoders() if side == "enc" else adapter.compile_decoders()
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_no_partition(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert not is_partition(folder)
    with pytest.raises(UsageError, match=r"must be a folder with a manifest\.json"):
        load_partition(folder)


def test_a_flipped_byte_in_a_segment_is_noticed_before_it_runs(folder: Path) -> None:
    path = folder / "segments" / "1.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"segment 1 must have digest .* other content"):
        Chain(load_partition(folder))


def test_a_missing_segment_is_named(folder: Path) -> None:
    (folder / "segments" / "2.onnx").unlink()
    with pytest.raises(
        ModelError, match=r"segment 2 must be in .*2\.onnx, which cannot be read"
    ):
        Chain(load_partition(folder))


def send_weights_out(folder: Path, part: Partition, *, place: str) -> Partition:
    """`part` in `folder`, with a weight of segment 1 at `place` and the digest of that."""
    path = folder / "segments" / "1.onnx"
    model = onnx.load(path, load_external_data=False)
    (tensor, *_) = walk_tensors(model)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    data = model.SerializeToString()
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    first, second, *others = part.segments
    forged = replace(second, digest=digest, source=path)
    return replace(part, segments=(first, forged, *others))


@pytest.mark.parametrize("place", ["w.bin", "../../secret.bin", "*/_ORT_MEM_ADDR_/*"])
def test_weights_that_no_digest_covers_are_refused(
    part: Partition, folder: Path, place: str
) -> None:
    """onnxruntime follows a location to any file, and some versions to an address."""
    (folder / "segments" / "w.bin").write_bytes(bytes(4096))
    (folder.parent / "secret.bin").write_bytes(bytes(4096))
    forged = send_weights_out(folder, part, place=place)
    for read in (lambda: Chain(forged), lambda: forged.segments[1].model):
        with pytest.raises(ModelError, match="segment 1 must hold its own weights"):
            read()


def test_a_layer_may_be_called_location(make_network: Any, tmp_path: Path) -> None:
    network = make_network(
        "net (float[2] x) => (float[2] location) { location = Relu(x) }", {}
    )
    save_partition(
        partition(network, position_cuts(network.graph)), tmp_path / "net.midstream"
    )
    chain = Chain(load_partition(tmp_path / "net.midstream"))
    assert "location" in chain.run({"x": np.ones(2, np.float32)}, 0, 1)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_a_segment_that_is_no_regular_file_is_refused_at_once(folder: Path, kind: str) -> None:
    path = folder / "segments" / "1.onnx"
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    part = load_partition(folder)
    for read in (lambda: Chain(part), lambda: part.segments[1].model):
        with pytest.raises(ModelError, match=r"segment 1 must have digest .* other content"):
            read()


def test_a_profile_that_is_no_regular_file_is_refused_at_once(folder: Path) -> None:
    (folder / "profiles").mkdir(exist_ok=True)
    os.mkfifo(folder / "profiles" / "edge.json")
    with pytest.raises(UsageError, match=r"a profile must be a file.*edge\.json"):
        load_profiles(folder)


def edit(folder: Path, change: Change) -> None:
    manifest = folder / "manifest.json"
    values = json.loads(manifest.read_text())
    change(values)
    manifest.write_text(json.dumps(values))


def set_at(*path: Any, value: Any) -> Change:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


def drop_last(key: str) -> Change:
    return lambda values: values[key].pop()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_at("format", value="midstream-partition-9"), "format"),
        (set_at("format", value="midstream-partition-1"), "should be 'midstream-partition-2'"),
        (set_at("digest", value="0" * 64), "its digest does not fit its content"),
        (set_at("graph_digest", value="../../etc"), "graph_digest"),
        (set_at("segments", 0, "digest", value="0" * 64), "its digest does not fit"),
        (set_at("segments", 0, "source", value="/etc/passwd"), "segments.0.source"),
        (set_at("segments", 0, "node_runs", value=[0, 2**30]), "runs of nodes must be"),
        (set_at("segments", 0, "node_runs", value=[3]), "runs of nodes must be"),
        (set_at("segments", 0, "weight_nbytes", value=-1), "segments.0.weight_nbytes"),
        (set_at("segments", 0, "inputs", value="x"), "segments.0.inputs"),
        (set_at("cuts", 1, "head_runs", value=[2, 1]), "runs of nodes must be"),
        (set_at("cuts", 1, "tensors", value=["nothing"]), "nothing"),
        (set_at("cuts", 1, "id", value="edge-only"), "its digest does not fit"),
        (drop_last("cuts"), "there are 4 cuts around 4 segments"),
        (drop_last("segments"), "there are 5 cuts around 3 segments"),
        (set_at("inputs", value=["nothing"]), "nothing"),
        (set_at("specs", "x", "dtype", value="object"), "specs.x.dtype"),
        (set_at("specs", "x", "shape", value=[-1, 8]), "specs.x.shape"),
        (set_at("specs", "x", "shape", value=[1e999, 8]), "specs.x.shape"),
        (set_at("specs", "x", "shape", value=[9, 8]), "its digest does not fit"),
        (set_at("feed", "kind", value="video"), "kind must be"),
        (set_at("surprise", value=1), "surprise"),
    ],
)
def test_an_edited_manifest_is_refused_and_the_field_named(
    change: Change, reason: str, folder: Path
) -> None:
    edit(folder, change)
    with pytest.raises(ModelError) as caught:
        load_partition(folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_at("transforms", 0, "name", value="../../etc"), "must be letters"),
        (set_at("transforms", 0, "name", value="klt:3"), "its digest does not fit"),
        (set_at("transforms", 0, "cut", value="c9"), "must be of one of the cuts"),
        (set_at("transforms", 0, "tensor", value="nothing"), "must be of one of h"),
        (set_at("transforms", 0, "encoder_digest", value="0" * 64), "its digest does not fit"),
        (set_at("transforms", 0, "decoder_digest", value="/etc"), "0.decoder_digest"),
        (set_at("transforms", 0, "travels", "shape", value=["n", -1, 4, 4]), "travels.shape"),
        (set_at("transforms", 0, "travels", "shape", value=["n", 2**61, 4, 4]), "its digest"),
        (set_at("transforms", 0, "travels", "shape", value=["n", "c", 4, 4]), "keep its name"),
        (set_at("transforms", 0, "travels", "shape", value=[2] * 9), "keep its name"),
        (set_at("transforms", 0, "travels", "dtype", value="object"), "travels.dtype"),
        (set_at("transforms", 0, "travels", "dtype", value="int64"), "keep its name"),
        (set_at("transforms", 0, "source", value="/etc/passwd"), "transforms.0.source"),
        (set_at("transforms", value=[{}] * 4097), "transforms"),
        (set_at("transforms", value={"0": 1}), "transforms"),
        (set_at("transforms", value=[]), "its digest does not fit"),
        (drop_last("transforms"), "its digest does not fit"),
        (lambda values: values["transforms"].append(values["transforms"][0]), "one transform"),
    ],
)
def test_an_edited_transform_is_refused_and_the_field_named(
    change: Change, reason: str, transformed_folder: Path
) -> None:
    edit(transformed_folder, change)
    with pytest.raises(ModelError) as caught:
        load_partition(transformed_folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_segments_of_many_nodes_are_refused_before_they_are_counted_out(
    folder: Path,
) -> None:
    def multiply(values: dict[str, Any]) -> None:
        values["segments"] = [values["segments"][0] | {"node_runs": [0, 900_000]}] * 2000
        values["cuts"] = [values["cuts"][0]] * 2001

    edit(folder, multiply)
    with pytest.raises(ModelError, match="more than 1000000 nodes"):
        load_partition(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"format": 1}', "\x00", "[" * 100_000]
)
def test_a_manifest_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="as `midstream partition` wrote it"):
        load_partition(folder)
