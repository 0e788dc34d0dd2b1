"""The network that a partition was cut from, and the same network cut at other places.

A partition's segments hold all of the network, so whoever has one needs nothing else to cut
anew. The network that comes out is written in one canonical way (what constants are computed
from first, weights by name): every partition of a network gives the same bytes, wherever it
was cut and whether it came from memory or from a folder. So two sides that hold one partition
arrive at the same digest when they cut at the same places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx

from midstream_partitioner.graph.cuts import check_runs, cut_of, head_of
from midstream_partitioner.intake.onnx_model import Network, rebuild
from midstream_partitioner.onnx_tools.constants import Constants, captured_names
from midstream_partitioner.onnx_tools.validation import check_weights
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition, Segment, with_transforms
from midstream_wire.codecs import split_codec
from midstream_wire.errors import ModelError
from midstream_wire.tensors import DTYPES, TensorSpec

#: Runs of node indices, as in `Cut.runs`: what names a head between two sides.
Runs = Sequence[int]

#: Cuts that a partition made on request may have inside: one session per cut takes a share of
#: the time and memory of each run, and five leave nothing to win (`pricing.MOST_CUTS`).
MOST_REQUESTED_CUTS = 16


def network_of(part: Partition) -> Network:
    """The network whose segments `part` holds; the same for every partition of it.

    Node indices are those of the partition, so that a cut keeps its id. Raises `ModelError`
    where the segments are not those of one network.
    """
    models = [onnx.load_model_from_string(segment.model) for segment in part.segments]
    moving: dict[int, onnx.NodeProto] = {}
    helpers: dict[str, onnx.NodeProto] = {}
    for segment, model in zip(part.segments, models, strict=True):
        check_weights(model)
        constants = Constants.of(model).nodes
        helpers.update(constants)
        moving.update(_indexed(segment, model.graph, constants))
    whole = onnx.ModelProto()
    whole.ir_version = models[0].ir_version
    whole.opset_import.extend(models[0].opset_import)
    whole.functions.extend(models[0].functions)
    whole.graph.name = "whole"
    whole.graph.node.extend(_ordered(helpers))
    whole.graph.node.extend(moving[index] for index in sorted(moving))
    weights = {tensor.name: tensor for model in models for tensor in model.graph.initializer}
    whole.graph.initializer.extend(weights[name] for name in sorted(weights))
    sparse = {t.values.name: t for model in models for t in model.graph.sparse_initializer}
    whole.graph.sparse_initializer.extend(sparse[name] for name in sorted(sparse))
    whole.graph.input.extend(map(_value, part.inputs))
    whole.graph.output.extend(map(_value, part.outputs))
    return rebuild(whole, feed=part.feed, name=part.name, digest=part.graph_digest)


def recut(part: Partition, heads: Iterable[Runs]) -> Partition:
    """The network of `part` cut behind each of `heads` instead; `part` itself where it is so.

    A transform is kept where its cut is one of the new ones, and the tensor still fits it.
    Raises `ModelError` for heads that are not closed, not nested, or too many.
    """
    wanted = checked_heads(part, heads)
    if wanted == tuple(cut.runs for cut in part.cuts[1:-1]):
        return part
    network = network_of(part)
    count = len(network.graph.nodes)
    cuts = [cut_of(network.graph, head_of(runs, node_count=count)) for runs in wanted]
    made = partition(network, cuts)
    ids = {cut.id: k for k, cut in enumerate(made.cuts)}
    old = {cut.id: k for k, cut in enumerate(part.cuts)}
    kept = [
        each
        for each in part.transforms
        if each.cut in ids and made.crossing(ids[each.cut]) == part.crossing(old[each.cut])
    ]
    return carry_calibration(part, with_transforms(made, kept))


def carry_calibration(part: Partition, made: Partition) -> Partition:
    """`made`, cut from the network of `part`, with what the calibration of `part` says of it:
    what was found at cuts that both have, with transforms that both have."""
    found = part.calibration
    if found is None:
        return made
    kept = {cut.id: ("", *made.transforms_at(k)) for k, cut in enumerate(made.cuts)}
    known = frozenset(
        (row.cut, row.codec)
        for row in found.rows
        if split_codec(row.codec)[0] in kept.get(row.cut, ())
    )
    return replace(made, calibration=found.within(made.digest, known))


def checked_heads(part: Partition, heads: Iterable[Runs]) -> tuple[tuple[int, ...], ...]:
    """`heads` within the network of `part`, smallest first, the trivial ones left out.

    Only sizes and bounds are looked at, in little time and memory, whatever a peer sent: that
    they are closed and nested, `recut` finds out. Raises `ModelError`.
    """
    count = sum(len(segment.nodes) for segment in part.segments)
    found = set()
    for runs in heads:
        check_runs(runs, node_count=count)
        found.add(tuple(runs))
        if len(found) > MOST_REQUESTED_CUTS + 2:
            raise ModelError(
                f"a partition may be asked for with at most {MOST_REQUESTED_CUTS} cuts: name "
                "those that can win"
            )
    inner = found - {(), (0, count)}
    return tuple(sorted(inner, key=lambda runs: (_length(runs), runs)))


def _length(runs: Runs) -> int:
    return sum(runs[1::2]) - sum(runs[::2])


def _indexed(
    segment: Segment, graph: onnx.GraphProto, constants: Mapping[str, onnx.NodeProto]
) -> Mapping[int, onnx.NodeProto]:
    """The segment's nodes by their index in the network; they come in that order."""
    nodes = [node for node in graph.node if node.name not in constants]
    if len(nodes) != len(segment.nodes):
        raise ModelError(
            f"segment {segment.index} must hold the {len(segment.nodes)} nodes that its "
            f"partition names, and holds {len(nodes)}: write the partition again"
        )
    return dict(zip(sorted(segment.nodes), nodes, strict=True))


def _ordered(helpers: Mapping[str, onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Nodes that compute constants: by name, each behind those that it needs."""
    makers = {name: node for node in helpers.values() for name in node.output if name}
    done: dict[str, onnx.NodeProto] = {}
    for name in sorted(helpers):
        stack = [helpers[name]]
        while stack:
            node = stack[-1]
            missing = [
                makers[used]
                for used in (*node.input, *captured_names(node))
                if used in makers and makers[used].name not in done
            ]
            if missing:
                stack += missing
            else:
                done[stack.pop().name] = node
    return done.values()


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(DTYPES[spec.dtype])
    dims = [None if size == "?" else size for size in spec.shape]
    return onnx.helper.make_tensor_value_info(spec.name, elem_type, dims)
