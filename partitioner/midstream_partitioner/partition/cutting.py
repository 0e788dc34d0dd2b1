"""Cut a network, at all the places that can ever win, into a chain of segments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import final

import onnx

from midstream_partitioner.graph.cuts import Cut, cut_of
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.onnx_tools.constants import Constants, captured_names
from midstream_partitioner.onnx_tools.serializing import serialized
from midstream_partitioner.partition.partition import Partition, Segment
from midstream_wire.errors import ModelError
from midstream_wire.tensors import DTYPES


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
