"""A network cut once, at all the places that can ever win, into a chain of segments.

A plan says how many of the segments run on the edge; the others run in the cloud. Both sides
run the same segments, so the answer is bit-identical wherever the cut is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import onnx

from midstream_partitioner.constants import Constants, captured_names
from midstream_partitioner.cuts import Cut, cut_of
from midstream_partitioner.external import check_self_contained
from midstream_partitioner.feed import Feed
from midstream_partitioner.graph import Graph
from midstream_partitioner.intake import Network
from midstream_partitioner.serializing import MAX_MODEL_NBYTES, serialized
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import DTYPES, TensorSpec

if TYPE_CHECKING:
    from midstream_partitioner.calibration import Calibration
    from midstream_partitioner.transforms import Transform


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
        """What an `Executor` takes: the model, or the file that it is in.

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
        """What the cloud receives when the edge ran segments [0, k)."""
        return tuple(self.specs[name] for name in self.cuts[k].tensors)

    def transforms_at(self, k: int) -> dict[str, tuple[Transform, ...]]:
        """The transforms that what crosses cut `k` may go through, by name."""
        found: dict[str, tuple[Transform, ...]] = {}
        for transform in self.transforms:
            if transform.cut == self.cuts[k].id:
                found[transform.name] = (*found.get(transform.name, ()), transform)
        return found

    def travelling(self, k: int, transform: str = "") -> tuple[TensorSpec, ...]:
        """What is on the wire between segments k-1 and k: as it crosses, or transformed.

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
        """How many segments run on the edge under the cut called `cut_id`."""
        for k, cut in enumerate(self.cuts):
            if cut.id == cut_id:
                return k
        known = ", ".join(cut.id for cut in self.cuts)
        raise ModelError(f"a cut must be one of {known}; {cut_id!r} is none of them")

    def weight_nbytes(self, first: int, last: int) -> int:
        """Bytes of weights in segments [first, last)."""
        return sum(segment.weight_nbytes for segment in self.segments[first:last])


def read_model(source: bytes | Path, digest: str, *, what: str, max_nbytes: int) -> bytes:
    """The bytes of a model, from memory or from a file that must still have the digest.

    Raises `ModelError` about `what`, also where weights are in other files; a file larger than
    `max_nbytes` is not read.
    """
    if isinstance(source, bytes):
        return source
    try:
        fits = source.stat().st_size <= max_nbytes and source.is_file()
        data = source.read_bytes() if fits else b""
    except OSError as error:
        raise _unreadable(what, source, error) from None
    if not fits or hashlib.sha256(data).hexdigest() != digest:
        raise _other_content(what, digest, source)
    check_self_contained(data, what=what)
    return data


def check_file(path: Path, digest: str, *, what: str) -> None:
    """Raise `ModelError` about `what` unless the file has the digest, and all its weights."""
    try:
        if path.exists() and not path.is_file():  # a device has no end, a pipe no writer
            raise _other_content(what, digest, path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(what, path, error) from None
    if found != digest:
        raise _other_content(what, digest, path)
    check_self_contained(path, what=what)


def _unreadable(what: str, path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{what} must be in {path}, which cannot be read ({error.strerror}): write the "
        "partition again"
    )


def _other_content(what: str, digest: str, path: Path) -> ModelError:
    return ModelError(
        f"{what} must have digest {digest[:12]}; {path} has other content: write the "
        "partition again"
    )


def partition(network: Network, cuts: Iterable[Cut]) -> Partition:
    """Cut `network` at all of `cuts`, whose heads must be nested; the trivial ones are added.

    The same network and cuts give the same bytes. Raises `ModelError`.
    """
    graph = network.graph
    chain = _chain_of(graph, cuts)
    constants = Constants.of(network.model)
    cutter = _Cutter(network, constants)
    segments = tuple(
        cutter.segment(index, sorted(after.head - before.head))
        for index, (before, after) in enumerate(zip(chain, chain[1:], strict=False))
    )
    crossing = {name for cut in chain for name in cut.tensors}
    names = sorted(crossing | {*graph.inputs, *graph.outputs})
    return Partition(
        name=network.name,
        graph_digest=graph.digest,
        segments=segments,
        cuts=chain,
        inputs=tuple(graph.tensors[name].spec for name in graph.inputs),
        outputs=tuple(graph.tensors[name].spec for name in graph.outputs),
        specs={name: graph.tensors[name].spec for name in names},
        feed=network.feed,
    )


def fuse(part: Partition, first: int, last: int) -> bytes:
    """One ONNX model that computes what segments [first, last) compute one after the other.

    Only what crosses cut `last` and the network's outputs come out of it, so that onnxruntime
    may fuse across the former cuts: a little faster, and no longer bit-identical. All segments
    together are the unsplit network.
    """
    parts = part.segments[first:last]
    wanted = {spec.name for spec in (*part.outputs, *part.crossing(last))}
    models = [onnx.load_model_from_string(part.model) for part in parts]
    merged = onnx.ModelProto()
    merged.CopyFrom(models[0])
    for model in models[1:]:
        _append(merged.graph, model.graph)
    made = {name for part in parts for name in part.outputs}
    inputs = {value.name: value for model in models for value in model.graph.input}
    outputs = {value.name: value for model in models for value in model.graph.output}
    del merged.graph.input[:], merged.graph.output[:]
    merged.graph.input.extend(v for name, v in inputs.items() if name not in made)
    merged.graph.output.extend(v for name, v in outputs.items() if name in wanted)
    return _serialize(merged)


def _append(target: onnx.GraphProto, other: onnx.GraphProto) -> None:
    """Add nodes and weights; constants that both segments copied are taken once."""
    nodes = {node.name for node in target.node}
    weights = {tensor.name for tensor in target.initializer}
    target.node.extend(node for node in other.node if node.name not in nodes)
    target.initializer.extend(t for t in other.initializer if t.name not in weights)
    sparse = {tensor.values.name for tensor in target.sparse_initializer}
    target.sparse_initializer.extend(
        t for t in other.sparse_initializer if t.values.name not in sparse
    )


def _chain_of(graph: Graph, cuts: Iterable[Cut]) -> tuple[Cut, ...]:
    everything = range(len(graph.nodes))
    by_size = sorted(
        {
            cut.runs: cut for cut in (cut_of(graph, ()), *cuts, cut_of(graph, everything))
        }.values(),
        key=lambda cut: (len(cut.head), cut.runs),
    )
    for inner, outer in zip(by_size, by_size[1:], strict=False):
        if not inner.head < outer.head:
            raise ModelError(
                f"the cuts of one partition must be nested; {inner.id} and {outer.id} of "
                f"{graph.name} are not: leave one out"
            )
    return tuple(by_size)


@final
class _Cutter:
    """Takes segments out of one network."""

    def __init__(self, network: Network, constants: Constants) -> None:
        self._graph = network.graph
        self._model = network.model
        self._constants = constants
        self._protos = {node.name: node for node in network.model.graph.node}
        self._order = {node.name: at for at, node in enumerate(network.model.graph.node)}

    def segment(self, index: int, nodes: list[int]) -> Segment:
        graph = self._graph
        inside = set(nodes)
        made = [name for at in nodes for name in graph.nodes[at].outputs]
        inputs = dict.fromkeys(
            name
            for at in nodes
            for name in graph.nodes[at].inputs
            if graph.producer[name] not in inside
        )
        outputs = tuple(
            name
            for name in made
            if name in graph.outputs
            or any(user not in inside for user in graph.consumers[name])
        )
        model, weight_nbytes = self._extract(nodes, tuple(inputs), outputs, f"segment-{index}")
        return Segment(
            index=index,
            digest=hashlib.sha256(model).hexdigest(),
            inputs=tuple(inputs),
            outputs=outputs,
            nodes=tuple(nodes),
            weight_nbytes=weight_nbytes,
            source=model,
        )

    def _extract(
        self, nodes: list[int], inputs: Iterable[str], outputs: Iterable[str], name: str
    ) -> tuple[bytes, int]:
        protos = {self._graph.nodes[at].name: None for at in nodes}
        consumed = {
            used
            for node in protos
            for used in (*self._protos[node].input, *captured_names(self._protos[node]))
        }
        initializers, helpers = self._constants.closure(consumed)
        order = sorted([*protos, *helpers], key=self._order.__getitem__)
        model = onnx.ModelProto()
        model.ir_version = self._model.ir_version
        model.producer_name = "midstream"
        model.opset_import.extend(self._model.opset_import)
        model.functions.extend(self._model.functions)
        model.graph.name = name
        model.graph.node.extend(self._protos[node] for node in order)
        source = self._model.graph
        model.graph.initializer.extend(t for t in source.initializer if t.name in initializers)
        model.graph.sparse_initializer.extend(
            t for t in source.sparse_initializer if t.values.name in initializers
        )
        model.graph.input.extend(self._value(value) for value in inputs)
        model.graph.output.extend(self._value(value) for value in outputs)
        weights = self._constants.weights(consumed)
        return _serialize(model), sum(weights.values())

    def _value(self, name: str) -> onnx.ValueInfoProto:
        tensor = self._graph.tensors[name]
        if not tensor.carriable:
            raise ModelError(
                f"only dense tensors can cross a cut; {name!r} is a {tensor.dtype}: cut "
                "elsewhere"
            )
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(DTYPES[tensor.dtype])
        dims = [None if size == "?" else size for size in tensor.shape]
        return onnx.helper.make_tensor_value_info(name, elem_type, dims)


def _serialize(model: onnx.ModelProto) -> bytes:
    advice = "cut it at more places (`midstream partition --no-measure`), or take float16"
    return serialized(model, what="a segment", advice=advice)
