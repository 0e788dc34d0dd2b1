"""From an ONNX model to a network that can be cut.

The model is normalised first: external data is read in, initializers are no inputs, every node
has a name of its own, nodes that no output needs are gone. Then the shapes of all activations
are found: inferred where that is possible, otherwise seen in a run on random input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import onnx
from google.protobuf.message import DecodeError

from midstream_partitioner.costs.size_spans import Spans, checked_sizes, tied_names
from midstream_partitioner.costs.sizes import Sizes, bind_sizes, check_sizes
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import CARRIABLE, Node, Tensor
from midstream_partitioner.graph.veils import secret_inputs
from midstream_partitioner.inputs.feed import Feed, guess_feed
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake import declared_shapes as declared
from midstream_partitioner.intake import shapes
from midstream_partitioner.intake.arithmetic import Arithmetic
from midstream_partitioner.intake.operators import WEIGHTS
from midstream_partitioner.intake.preprocess import prepend
from midstream_partitioner.onnx_tools import external_data as external
from midstream_partitioner.onnx_tools.constants import Constants, captured_names, walk_tensors
from midstream_partitioner.onnx_tools.model_files import MAX_MODEL_NBYTES
from midstream_partitioner.onnx_tools.names import fresh_name, rename_uses, value_names
from midstream_partitioner.onnx_tools.validation import (
    check_expansion,
    check_graph,
    check_weights,
)
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array

OLDEST_OPSET = 7


@final
@dataclass(frozen=True, slots=True)
class Network:
    """A normalised model, its graph, and what feeds it."""

    name: str
    graph: Graph
    feed: Feed
    model: onnx.ModelProto

    def at(self, sizes: Sizes) -> Graph:
        """The graph with the shapes that it has where the open dimensions have `sizes`.

        Infers them anew, which takes as long as loading does. Raises `ModelError`, and
        `TensorError` where the network has to be run for it and cannot at these sizes.
        """
        feed = self.feed.sized(checked_sizes(dict(self.feed.sizes) | dict(sizes)))
        graph = _build(self.model, feed=feed, name=self.name).graph
        return replace(graph, digest=self.graph.digest)


def load_network(
    source: str | Path | bytes | onnx.ModelProto,
    *,
    feed: Feed | None = None,
    name: str | None = None,
    sizes: Spans = (),
    like: str | Path | None = None,
) -> Network:
    """Take in an ONNX model, a file of one or its bytes, with its preprocessing put in front.

    `feed` describes the input; without it a TOML file beside the model is looked for, and
    otherwise arrays are assumed. Figures refer to `sizes`, then to those of the feed, then to
    those of the first input in `like` (a source as for `read_inputs`). Raises `UsageError`
    when there is no such file and `ModelError` when it is no model that can be cut.
    """
    found = None
    if isinstance(source, onnx.ModelProto):
        model, what = source, "the model given"
    elif isinstance(source, bytes):
        model, what = _parse(source), "the bytes given"
    else:
        path = Path(source)
        model, what, found = _read(path), str(path), Feed.find(path)
        name = name or path.stem
    feed = feed or found
    _check(model, what)
    normalised = _normalise(model)
    if feed is not None:
        normalised = prepend(normalised, feed)
    else:
        feed = guess_feed(shapes.spec_of(normalised.graph.input[0]))
    feed, sample = _sized(normalised, feed, sizes, like)
    name = name or model.graph.name or "network"
    return _build(normalised, feed=feed, name=name, sample=sample)


def _sized(
    model: onnx.ModelProto, feed: Feed, sizes: Spans, like: str | Path | None
) -> tuple[Feed, Mapping[str, Array] | None]:
    """`feed` with all sizes that are known, and an input that has them, if one is given."""
    specs = [shapes.spec_of(value) for value in model.graph.input]
    given = checked_sizes(dict(feed.asked) | dict(sizes))
    check_sizes(specs, tied_names(given))
    feed = feed.sized(given)
    if like is None:
        return feed, None
    sample = next(iter(read_inputs(feed, specs, like, count=1)))
    found = bind_sizes(specs, sample)
    missing = dict(found)
    for name in tied_names(given):
        missing.pop(name, None)
    feed = feed.sized(checked_sizes(missing | dict(given)))
    return feed, sample if feed.sizes == found else None


def rebuild(model: onnx.ModelProto, *, feed: Feed, name: str, digest: str) -> Network:
    """The network of a model that is normalised already, under the digest that it had.

    Raises `ModelError` unless its names and graph are sound.
    """
    check_graph(model.graph)
    network = _build(model, feed=feed, name=name)
    return replace(network, graph=replace(network.graph, digest=digest))


def _read(path: Path) -> onnx.ModelProto:
    """A model with its external weights; an empty one where the file holds none."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise UsageError(
            f"a model must be an ONNX file, a partition's folder or a reference model's "
            f"name; {path} cannot be read ({_reason(error)}): check the path"
        ) from None
    if len(data) > MAX_MODEL_NBYTES:
        raise ModelError(
            f"an ONNX file must be smaller than 2 GiB, and {path} has {len(data)} bytes: "
            "export it with external data"
        )
    model = _parse(data)
    external.inline(model, path)
    return model


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    return model


def _check(model: onnx.ModelProto, what: str) -> None:
    """Raise `ModelError` unless `model` is one that can be taken in."""
    if not model.graph.node or not model.opset_import:
        raise ModelError(
            f"a model must be an ONNX file with nodes; {what} is not one: export the model "
            "to ONNX first"
        )
    opset = max(
        (entry.version for entry in model.opset_import if not entry.domain), default=99
    )
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"the opset must be {OLDEST_OPSET} or newer; {what} has {opset}: convert it with "
            "onnx.version_converter"
        )
    check_expansion(model)
    check_graph(model.graph)
    check_weights(model)


def _normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """A canonical copy: the same network always gives the same bytes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for field in (
        "doc_string",
        "producer_name",
        "producer_version",
        "domain",
        "model_version",
    ):
        result.ClearField(field)
    result.ClearField("metadata_props")
    result.ir_version = max(result.ir_version, 8)  # from 4 on initializers need not be inputs
    weights = {tensor.name for tensor in graph.initializer}
    _keep(graph.input, lambda value: value.name not in weights)
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
    declared.normalise(result)
    _drop_dead(graph)
    _free_outputs(graph)
    _name_nodes(graph.node)
    for tensor in walk_tensors(result):
        _pack(tensor)
    if not graph.input:
        raise ModelError("a model must have at least one input; this one computes a constant")
    if not graph.node:
        raise ModelError("a model must compute its outputs; this one passes its inputs on")
    return result


def _keep(values: MutableSequence[Any], wanted: Callable[[Any], bool]) -> None:
    for position in reversed(range(len(values))):
        if not wanted(values[position]):
            del values[position]


def _drop_dead(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if needed.isdisjoint(node.output):
            del graph.node[position]
        else:
            needed.update(node.input, captured_names(node))
    _keep(graph.initializer, lambda tensor: tensor.name in needed)


def _free_outputs(graph: onnx.GraphProto) -> None:
    """Let a node make every output that is a stored constant, as nodes make the others."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.output:
        if value.name in stored:
            kept = fresh_name(f"{value.name}/stored", value_names(graph))
            rename_uses(graph, value.name, kept)
            stored[value.name].name = kept
            graph.node.insert(0, onnx.helper.make_node("Identity", [kept], [value.name]))


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        name = node.name or f"{node.op_type}_{index}"
        while name in taken:
            name = f"{name}_{index}"
        node.name = name
        taken.add(name)


def _pack(tensor: onnx.TensorProto) -> None:
    """Store a numeric tensor as raw bytes, whichever field it came in."""
    tensor.ClearField("doc_string")
    if tensor.HasField("raw_data") or tensor.data_type == onnx.TensorProto.STRING:
        return
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError):
        raise ModelError(
            f"a weight must hold as many numbers as its shape says, {list(tensor.dims)[:8]}; "
            f"{tensor.name!r} does not: export the model again"
        ) from None
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _build(
    model: onnx.ModelProto,
    *,
    feed: Feed,
    name: str,
    sample: Mapping[str, Array] | None = None,
) -> Network:
    constants = Constants.of(model)
    for value in model.graph.input:
        _check_dense("inputs", value.name, shapes.spec_of(value).dtype)
    known = shapes.infer(model, feed, sample)
    tensors = {
        tensor: Tensor(tensor, found.dtype, found.shape, found.nominal)
        for tensor, found in known.items()
        if tensor not in constants.names
    }
    graph = Graph(
        name=name,
        nodes=tuple(_nodes(model, constants, known)),
        tensors=tensors,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        digest=_digest(model),
    )
    for output in graph.outputs:
        _check_dense("outputs", output, graph.tensors[output].dtype)
    secret_inputs(graph.inputs, feed.public)  # raises for what is no input
    return Network(name=name, graph=graph, feed=feed, model=model)


def _check_dense(what: str, name: str, dtype: str) -> None:
    if dtype not in CARRIABLE:
        raise ModelError(
            f"{what} must be dense tensors of {', '.join(sorted(CARRIABLE))}; {name!r} is of "
            f"type {dtype}: export the model without it"
        )


def _nodes(
    model: onnx.ModelProto, constants: Constants, known: Mapping[str, shapes.Shaped]
) -> Iterable[Node]:
    counted: set[str] = set()
    arithmetic = Arithmetic(model, known)
    moving = [node for node in model.graph.node if node.name not in constants.nodes]
    for index, node in enumerate(moving):
        consumed = [name for name in (*node.input, *captured_names(node)) if name]
        weights = constants.weights(name for name in consumed if name in constants.names)
        fresh = weights.keys() - counted
        counted |= fresh
        activations = dict.fromkeys(name for name in consumed if name not in constants.names)
        yield Node(
            index=index,
            name=node.name,
            op_type=node.op_type,
            inputs=tuple(activations),
            outputs=tuple(name for name in node.output if name),
            weight_nbytes=sum(weights[name] for name in fresh),
            flops=arithmetic.operations(node),
            layer=bool(activations) and _has_weights(node, constants),
            reveals=node.op_type not in ("Shape", "Size"),
        )


def _has_weights(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return True if the node applies learned weights, which are constants, to its input."""
    positions = WEIGHTS.get(node.op_type, ())
    return any(node.input[at] in constants.names for at in positions if at < len(node.input))


def _digest(model: onnx.ModelProto) -> str:
    """sha256 over what the network computes; weights go in one by one to save memory."""
    digest = hashlib.sha256()
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    bare.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    digest.update(bare.SerializeToString(deterministic=True))
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(hashlib.sha256(tensor.SerializeToString(deterministic=True)).digest())
    return digest.hexdigest()
