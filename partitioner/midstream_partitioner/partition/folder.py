"""A partition as a folder: segments, a manifest, profiles.

    resnet50.midstream/
        manifest.json           digests, cuts, tensor specs, what feeds the network
        segments/0.onnx ...     one model per segment
        transforms/0.enc.onnx   two models per calibrated transform, if there are any
        transforms/0.dec.onnx ...
        transforms/1.enc.prior  or two priors
        transforms/1.dec.prior ...
        profiles/NAME.json      as measured on a device
        calibration.json        what codecs do to the answers, if that was measured

Nothing in a manifest is trusted: segments and transforms are checked against their digests
when they are loaded, and names of files are never taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from midstream_partitioner.costs.calibration import load_calibration, save_calibration
from midstream_partitioner.costs.profile import Profile, load_profile
from midstream_partitioner.graph.cuts import MAX_NODES, Cut, check_runs, head_of, runs_of
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.partition.partition import Partition, Segment, with_transforms
from midstream_partitioner.partition.transform import MAX_TRANSFORMS, Transform, is_packing
from midstream_partitioner.places import check_folder
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import DTYPES, TensorSpec
from midstream_wire.text import read_text

SUFFIX = ".midstream"
#: Partitions of format 1 may be cut inside a quantized operator, and know no depths.
FORMAT: Final = "midstream-partition-2"

_CONFIG = ConfigDict(extra="forbid")
_Name = Annotated[str, Field(max_length=4096)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Index = Annotated[int, Field(ge=0, lt=1 << 31)]
_Size = Annotated[int, Field(ge=0, lt=1 << 62)]


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class _SegmentEntry:
    digest: _Digest
    inputs: tuple[_Name, ...]
    outputs: tuple[_Name, ...]
    node_runs: tuple[_Index, ...]
    weight_nbytes: _Size


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class _CutEntry:
    id: _Name
    head_runs: tuple[_Index, ...]
    tensors: tuple[_Name, ...]
    label: _Name
    nbytes: _Size
    depths: dict[_Name, _Size]


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class _SpecEntry:
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(DTYPES)})$")]
    shape: tuple[_Size | _Name, ...]


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class _TransformEntry:
    name: _Name
    cut: _Name
    tensor: _Name
    travels: _SpecEntry
    encoder_digest: _Digest
    decoder_digest: _Digest


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class _Manifest:
    format: Literal["midstream-partition-2"]
    name: _Name
    graph_digest: _Digest
    digest: _Digest
    segments: tuple[_SegmentEntry, ...]
    cuts: tuple[_CutEntry, ...]
    inputs: tuple[_Name, ...]
    outputs: tuple[_Name, ...]
    specs: dict[_Name, _SpecEntry]
    feed: dict[str, Any]
    transforms: Annotated[tuple[_TransformEntry, ...], Field(max_length=MAX_TRANSFORMS)] = ()


_MANIFEST = TypeAdapter(_Manifest)


def save_partition(
    partition: Partition, folder: str | Path, *, profiles: Iterable[Profile] = ()
) -> None:
    """Write `partition` to `folder`, which is made if need be; older content is replaced.

    The same partition gives the same bytes. The manifest comes last: a folder without one is
    no partition, so an interrupted write is noticed.
    """
    folder = Path(folder)
    segments = folder / "segments"
    segments.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    models = [segment.model for segment in partition.segments]
    pairs = [(each.encoder, each.decoder) for each in partition.transforms]
    inside = [_transform_paths(folder, *each) for each in enumerate(partition.transforms)]
    manifest.unlink(missing_ok=True)
    for old in (*segments.glob("*.onnx"), *(folder / "transforms").glob("[0-9]*.*")):
        old.unlink()
    for segment, model in zip(partition.segments, models, strict=True):
        (segments / f"{segment.index}.onnx").write_bytes(model)
    for paths, pair in zip(inside, pairs, strict=True):
        for path, model in zip(paths, pair, strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(model)
    for profile in profiles:
        save_profile(profile, folder)
    if partition.calibration is not None:
        save_calibration(partition.calibration, folder)
    text = _MANIFEST.dump_json(_entry_of(partition), indent=1, exclude_defaults=True)
    manifest.write_bytes(text + b"\n")


def save_profile(profile: Profile, folder: Path) -> Path:
    """Write `profile` beside the segments, under its device's name."""
    profiles = folder / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", profile.device.label()).strip("-.")[:80] or "device"
    path = profiles / f"{name}.json"
    path.write_text(profile.to_json() + "\n", encoding="utf-8")
    return path


#: What a partition's folder holds; "." and "calibrat" begin what a calibration keeps there.
_OWN = ("manifest.json", "segments", "profiles", "transforms", "calibrat", ".")


def check_room(folder: Path) -> None:
    """Raise `UsageError` unless `folder` is new, empty, or a partition to be replaced."""
    check_folder(folder, "a partition", _OWN)


def load_profiles(folder: Path) -> tuple[Profile, ...]:
    """The profiles kept beside a partition, by file name."""
    paths = sorted((folder / "profiles").glob("*.json"))
    for path in paths:
        if not path.is_file():  # reading a pipe would wait for a writer
            raise UsageError(f"a profile must be a file, and {path} is none: remove it")
    return tuple(map(load_profile, paths))


def is_partition(path: Path) -> bool:
    """Return True if `path` is a folder with a manifest."""
    return (path / "manifest.json").is_file()


def load_partition(folder: str | Path, *, calibrated: bool = True) -> Partition:
    """Read what `save_partition` wrote, with the calibration beside it if there is one.

    Segments are read, and checked, when they are run. Unless `calibrated`, a calibration is
    left alone. Raises `UsageError` if there is no partition or the calibration is malformed,
    and `ModelError` if either is damaged.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise UsageError(
            f"a partition must be a folder with a manifest.json; {folder} has none: write one "
            "with `midstream partition`"
        )
    try:
        entry = _MANIFEST.validate_json(read_text(manifest, "a partition's manifest"))
        plain = _partition_of(entry, folder)
        partition = with_transforms(plain, _transforms_of(entry, folder))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        reason = f"{where}: {first['msg'].lower()}"
    except (KeyError, UsageError) as error:
        reason = str(error)
    else:
        if partition.digest == entry.digest:
            found = (
                load_calibration(folder, partition_digest=partition.digest)
                if calibrated
                else None
            )
            return replace(partition, calibration=found)
        reason = "its digest does not fit its content"
    raise ModelError(
        f"a partition's manifest must be as `midstream partition` wrote it; in {manifest} "
        f"{reason}: write it again"
    )


def _entry_of(partition: Partition) -> _Manifest:
    return _Manifest(
        format=FORMAT,
        name=partition.name,
        graph_digest=partition.graph_digest,
        digest=partition.digest,
        segments=tuple(
            _SegmentEntry(s.digest, s.inputs, s.outputs, runs_of(s.nodes), s.weight_nbytes)
            for s in partition.segments
        ),
        cuts=tuple(
            _CutEntry(
                c.id,
                c.runs,
                c.tensors,
                c.label,
                c.nbytes,
                dict(c.depths),
            )
            for c in partition.cuts
        ),
        inputs=tuple(spec.name for spec in partition.inputs),
        outputs=tuple(spec.name for spec in partition.outputs),
        specs={name: _SpecEntry(s.dtype, s.shape) for name, s in partition.specs.items()},
        feed=partition.feed.to_dict(),
        transforms=tuple(
            _TransformEntry(
                name=each.name,
                cut=each.cut,
                tensor=each.tensor,
                travels=_SpecEntry(each.spec.dtype, each.spec.shape),
                encoder_digest=each.encoder_digest,
                decoder_digest=each.decoder_digest,
            )
            for each in partition.transforms
        ),
    )


def _transform_paths(
    folder: Path, number: int, transform: Transform | _TransformEntry
) -> tuple[Path, Path]:
    inside = folder / "transforms"
    suffix = "prior" if is_packing(transform.name) else "onnx"
    return inside / f"{number}.enc.{suffix}", inside / f"{number}.dec.{suffix}"


def _length(runs: tuple[int, ...]) -> int:
    check_runs(runs, node_count=MAX_NODES)
    return sum(runs[1::2]) - sum(runs[::2])


def _partition_of(entry: _Manifest, folder: Path) -> Partition:
    if len(entry.cuts) != len(entry.segments) + 1:
        raise UsageError(
            f"there are {len(entry.cuts)} cuts around {len(entry.segments)} segments"
        )
    # Before any run is expanded: many segments of a million nodes would take all memory.
    if sum(_length(segment.node_runs) for segment in entry.segments) > MAX_NODES:
        raise UsageError(f"the segments have more than {MAX_NODES} nodes")
    specs = {name: TensorSpec(name, s.dtype, s.shape) for name, s in entry.specs.items()}
    segments = tuple(
        Segment(
            index=index,
            digest=segment.digest,
            inputs=segment.inputs,
            outputs=segment.outputs,
            nodes=tuple(sorted(head_of(segment.node_runs, node_count=MAX_NODES))),
            weight_nbytes=segment.weight_nbytes,
            source=folder / "segments" / f"{index}.onnx",
        )
        for index, segment in enumerate(entry.segments)
    )
    for cut in entry.cuts:
        check_runs(cut.head_runs, node_count=MAX_NODES)
        for name in cut.tensors:
            specs[name]  # a KeyError names the tensor without a spec
    return Partition(
        name=entry.name,
        graph_digest=entry.graph_digest,
        segments=segments,
        cuts=tuple(
            Cut(c.id, c.head_runs, c.tensors, c.label, c.nbytes, _depths(c, entry.inputs))
            for c in entry.cuts
        ),
        inputs=tuple(specs[name] for name in entry.inputs),
        outputs=tuple(specs[name] for name in entry.outputs),
        specs=specs,
        feed=Feed.from_dict(entry.feed),
    )


def _depths(cut: _CutEntry, inputs: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, cut.depths[name]) for name in inputs)  # a KeyError names it


def _transforms_of(entry: _Manifest, folder: Path) -> list[Transform]:
    return [
        Transform(
            each.cut,
            each.name,
            each.tensor,
            TensorSpec(each.tensor, each.travels.dtype, each.travels.shape),
            each.encoder_digest,
            each.decoder_digest,
            *_transform_paths(folder, number, each),
        )
        for number, each in enumerate(entry.transforms)
    ]
