"""A network cut once, at all the places that can ever win, into a chain of segments.

A plan says how many of the segments run on the edge; the others run in the cloud. Both sides
run the same segments, so the answer is bit-identical wherever the cut is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.onnx_tools.model_files import (
    MAX_MODEL_NBYTES,
    check_file,
    read_model,
)
from midstream_partitioner.partition.transform import (
    FLOATS,
    MAX_TRANSFORMS,
    MIN_RANK,
    PACKED,
    TRANSFORM_NAME,
    Transform,
    transformable,
)
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.limits import MAX_TRANSFORM_CHARS
from midstream_wire.tensors import TensorSpec

if TYPE_CHECKING:
    from midstream_partitioner.costs.calibration import Calibration


@final
@dataclass(frozen=True, slots=True)
class Segment:
    """One link of the chain: an ONNX model of its own, with a digest over its bytes.

    `nodes` are the indices of the graph's nodes; `inputs` and `outputs` name the activations.
    """

    index: int
    digest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[int, ...]
    weight_nbytes: int
    source: bytes | Path = field(repr=False, compare=False)

    @property
    def model(self) -> bytes:
        """The serialized ONNX model; `ModelError` if a file no longer has the digest."""
        what = f"segment {self.index}"
        return read_model(self.source, self.digest, what=what, max_nbytes=MAX_MODEL_NBYTES)

    @property
    def compilable(self) -> bytes | Path:
        """Return what an `Executor` takes: the model, or the file that it is in.

        A file is read twice, for its digest and to be compiled, and never lies in this
        process's memory as a whole. `ModelError` as for `model`.
        """
        if isinstance(self.source, Path):
            check_file(self.source, self.digest, what=f"segment {self.index}")
        return self.source


@final
@dataclass(frozen=True, slots=True)
class Partition:
    """Segments 0..K-1 and the K+1 cuts around them: cloud-only first, edge-only last.

    `digest` is what the two sides compare: over the segments, the cuts, the tensor specs and
    the transforms, where there are any. `calibration` is what is known of the codecs at its
    cuts; profiles measure and plans offer them.
    """

    name: str
    graph_digest: str
    segments: tuple[Segment, ...]
    cuts: tuple[Cut, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    specs: Mapping[str, TensorSpec]
    feed: Feed
    digest: str = field(init=False)
    transforms: tuple[Transform, ...] = ()
    calibration: Calibration | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        content: dict[str, Any] = {
            "segments": [segment.digest for segment in self.segments],
            "cuts": [[cut.id, *cut.tensors] for cut in self.cuts],
            "inputs": [spec.name for spec in self.inputs],
            "outputs": [spec.name for spec in self.outputs],
            "specs": {name: [s.dtype, *s.shape] for name, s in sorted(self.specs.items())},
        }
        if self.transforms:
            content["transforms"] = [transform.digest for transform in self.transforms]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    def crossing(self, k: int) -> tuple[TensorSpec, ...]:
        """Return what the cloud receives when the edge ran segments [0, k)."""
        return tuple(self.specs[name] for name in self.cuts[k].tensors)

    def transforms_at(self, k: int) -> dict[str, tuple[Transform, ...]]:
        """The transforms that what crosses cut `k` may go through, by name."""
        found: dict[str, tuple[Transform, ...]] = {}
        for transform in self.transforms:
            if transform.cut == self.cuts[k].id:
                found[transform.name] = (*found.get(transform.name, ()), transform)
        return found

    def travelling(self, k: int, transform: str = "") -> tuple[TensorSpec, ...]:
        """Return what is on the wire between segments k-1 and k: as it crosses, or
        transformed.

        Raises `UsageError` for a transform that cut `k` does not have.
        """
        if not transform:
            return self.crossing(k)
        specs = {spec.name: spec for spec in self.crossing(k)}
        known = self.transforms_at(k)
        if transform not in known:
            raise UsageError(
                f"a transform at {self.cuts[k].id} must be one of "
                f"{', '.join(known) or 'none, for it has none'} (not {transform[:64]!r})"
            )
        specs |= {each.tensor: each.spec for each in known[transform]}
        return tuple(specs.values())

    def outputs_from(self, k: int) -> tuple[TensorSpec, ...]:
        """The network's outputs that segments [k, K) make: what a reply carries."""
        made = {name for segment in self.segments[k:] for name in segment.outputs}
        return tuple(spec for spec in self.outputs if spec.name in made)

    def index_of(self, cut_id: str) -> int:
        """Return how many segments run on the edge under the cut called `cut_id`."""
        for k, cut in enumerate(self.cuts):
            if cut.id == cut_id:
                return k
        known = ", ".join(cut.id for cut in self.cuts)
        raise ModelError(f"a cut must be one of {known}; {cut_id!r} is none of them")

    def weight_nbytes(self, first: int, last: int) -> int:
        """Bytes of weights in segments [first, last)."""
        return sum(segment.weight_nbytes for segment in self.segments[first:last])


def with_transforms(partition: Partition, transforms: Iterable[Transform]) -> Partition:
    """`partition` with these transforms and no others, in an order of its own.

    The digest becomes another one, unless there are none, and so the calibration is left out.
    Raises `UsageError` for a transform
    of what does not cross, or cannot be transformed.
    """
    given = tuple(transforms)
    if len(given) > MAX_TRANSFORMS:
        raise UsageError(
            f"a partition may have at most {MAX_TRANSFORMS} transforms (not {len(given)}): "
            "leave out cuts that no plan will choose"
        )
    index_of = {cut.id: k for k, cut in enumerate(partition.cuts)}
    for each in given:
        if each.cut not in index_of:
            raise UsageError(f"a transform must be of one of the cuts (not {each.cut[:64]!r})")
        _check(partition, index_of[each.cut], each)
    keyed = {(index_of[t.cut], t.name, t.tensor): t for t in given}
    if len(keyed) < len(given):
        raise UsageError("a tensor may have one transform of a name at a cut: leave one out")
    ordered = tuple(keyed[key] for key in sorted(keyed))
    return replace(partition, transforms=ordered, calibration=None)


def _check(partition: Partition, k: int, transform: Transform) -> None:
    name, spec = transform.name, transform.spec
    if not TRANSFORM_NAME.fullmatch(name) or len(name) > MAX_TRANSFORM_CHARS:
        raise UsageError(
            f"a transform's name must be letters, and a number where it has one, as klt:16 "
            f"(not {name[:64]!r})"
        )
    if transform.tensor not in partition.cuts[k].tensors:
        raise UsageError(
            f"a transform at {transform.cut} must be of one of "
            f"{', '.join(partition.cuts[k].tensors) or 'no tensors'} "
            f"(not {transform.tensor[:64]!r})"
        )
    original = partition.specs[transform.tensor]
    fits = len(spec.shape) == len(original.shape) and all(
        _is_size(have) if isinstance(want, int) else have == want
        for have, want in zip(spec.shape, original.shape, strict=True)
    )
    alike = spec.name == transform.tensor and spec.dtype in FLOATS
    if transform.packs:
        fits = len(original.shape) == 4
        alike = spec == TensorSpec(transform.tensor, "uint8", (PACKED,))
    if not (transformable(original) and fits and alike):
        raise UsageError(
            f"a transform must be of a float tensor of {MIN_RANK} dimensions or more, and "
            f"what travels keep its name, rank and symbolic dimensions ({original} became "
            f"{spec}): leave this tensor as it is"
        )


def _is_size(size: int | str) -> bool:
    """Return True if a dimension is known, and not empty."""
    return isinstance(size, int) and size > 0
