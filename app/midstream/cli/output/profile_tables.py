"""Profiles for people: layers, segments, and times over sizes."""

from __future__ import annotations

from midstream.cli.output import console
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.profile import LayerProfile, Profile
from midstream_partitioner.costs.sizes import listed
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.units import format_nbytes


def print_layers(network: Network, measured: LayerProfile) -> None:
    graph = network.graph
    rows = console.table(
        f"{network.name} on {measured.device.label()}, {measured.device.threads} thread(s)",
        *("#", "layer", "operator", "output", "ms", "share", "p10-p90", "weights"),
        *("cut here: raw", "tensors"),
        left=("layer", "operator", "output"),
    )
    cuts = {len(cut.head): cut for cut in position_cuts(graph)}
    total_s = measured.whole.median_s
    for node, layer in zip(graph.nodes, measured.layers, strict=True):
        cut = cuts.get(node.index + 1)
        time = layer.time
        spent = (
            (f"in {layer.fused_into}", "", "")
            if layer.fused_into is not None
            else (
                console.ms(time.median_s),
                f"{time.median_s / total_s:.1%}",
                f"{console.ms(time.low_s)}-{console.ms(time.high_s)}",
            )
        )
        rows.add_row(
            str(node.index + 1),
            console.elided(node.name),
            node.op_type,
            str(graph.tensors[node.outputs[0]].spec),
            *spent,
            format_nbytes(node.weight_nbytes) if node.weight_nbytes else "",
            *_cut_cells(cut),
        )
    console.show(rows)
    console.say(
        f"whole model: {console.ms(total_s)} ms (p10 {console.ms(measured.whole.low_s)}, "
        f"p90 {console.ms(measured.whole.high_s)}, {measured.whole.runs} runs), "
        f"{len(graph.nodes)} nodes, {format_nbytes(graph.weight_nbytes)} of weights, input "
        f"{format_nbytes(_input_nbytes(graph))}"
    )


def _cut_cells(cut: Cut | None) -> tuple[str, str]:
    if cut is None:
        return "no cut", ""
    return (
        "" if cut.is_edge_only else format_nbytes(cut.nbytes),
        str(len(cut.tensors)) if len(cut.tensors) > 1 else "",
    )


def _input_nbytes(graph: Graph) -> int:
    return sum(graph.tensors[name].nbytes for name in graph.inputs)


def print_segments(part: Partition, measured: Profile) -> None:
    """The segments' times, and size and time of every codec at every cut."""
    rows = console.table(
        f"{part.name} on {measured.device.label()}, {measured.device.threads} thread(s)",
        *("segment", "from", "nodes", "ms", "p10-p90", "weights"),
        left=("from",),
    )
    for segment, stat in zip(part.segments, measured.segments, strict=False):
        rows.add_row(
            str(segment.index),
            console.elided(part.cuts[segment.index].label),
            str(len(segment.nodes)),
            console.ms(stat.median_s),
            f"{console.ms(stat.low_s)}-{console.ms(stat.high_s)}",
            format_nbytes(segment.weight_nbytes),
        )
    console.show(rows)
    rows = console.table(
        "what crosses the cuts", "cut", "codec", "payload", "encode ms", "decode ms",
        left=("cut", "codec"),
    )  # fmt: skip
    labels = {cut.id: cut.label for cut in part.cuts}
    for cost in measured.codecs:
        rows.add_row(
            console.elided(labels[cost.cut]),
            cost.codec,
            format_nbytes(cost.payload_nbytes),
            console.ms(cost.encode_s),
            console.ms(cost.decode_s),
        )
    console.show(rows)
    if measured.others:
        _print_buckets(measured)


def _print_buckets(measured: Profile) -> None:
    """The whole model at every size that was measured, and how far the law is off."""
    curve = Curve(measured)
    left_out = dict(curve.left_out())
    rows = console.table("over sizes", "sizes", "all segments ms", "told from the others",
                         left=("sizes",))  # fmt: skip
    for bucket in measured.buckets:
        whole_s = sum(stat.median_s for stat in bucket.segments)
        error = left_out.get(bucket.sizes)
        told = "" if error is None else f"{error:+.0%}"
        rows.add_row(listed(bucket.sizes), console.ms(whole_s), told)
    console.show(rows)
