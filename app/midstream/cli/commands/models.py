"""`midstream profile`, `partition` and `models`: looking at models and cutting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream.cli.flags.common import (
    Execution,
    Input,
    Json,
    Model,
    Runs,
    Seed,
    Size,
    Slowdown,
    Threads,
    takes_execution,
    takes_feed,
)
from midstream.cli.flags.destinations import writable
from midstream.cli.opening import opened_network, opened_partition
from midstream.cli.output import console
from midstream.feeding import Feeding
from midstream.loaders import (
    cuts_by,
    default_cuts,
    open_buckets,
    open_inputs,
)
from midstream_lab.networks import NETWORKS
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import LayerProfile, Profile
from midstream_partitioner.costs.sizes import listed
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import (
    SUFFIX,
    check_room,
    is_partition,
    save_partition,
)
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import MOST_CUTS
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.profiler import profile_layers, usual_codecs
from midstream_partitioner.profiling.quietness import disturbance
from midstream_partitioner.units import format_nbytes
from midstream_wire.errors import UsageError


@takes_feed
@takes_execution
def profile(
    model: Model,
    feed: Feeding,
    input: Input = None,
    size: Size = None,
    seed: Seed = 0,
    threads: Threads = 1,
    slowdown: Slowdown = 1.0,
    runs: Runs = 20,
    *,
    execution: Execution,
    codecs: Annotated[
        str | None,
        typer.Option(help="Codecs to time besides the usual ones: ec:0.5,ecc:1."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", callback=writable, help="File for the profile."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model on this machine: each layer, or each segment of a partition.

    A model is shown layer by layer with the places where it can be cut. A partition (the
    folder that `midstream partition` writes) is measured segment by segment, codec by codec:
    the profile that plans are made from.
    """
    device = this_device(threads=threads, slowdown=slowdown)
    backend = execution.open()
    named = () if codecs is None else tuple(map(full_id, codecs.split(",")))
    if is_partition(Path(model)):
        part = opened_partition(model, feed=feed, size=size)
        samples = open_buckets(part, input, seed=seed)
        with console.progress(f"profiling {part.name}") as tick:
            chain = Chain(part, threads=threads, backend=backend, weigh=True)
            measured = profile_sizes(
                chain, samples, device, runs=runs,
                codecs=(*usual_codecs(), *named), progress=tick,
            )  # fmt: skip
        _hand_out(measured, output, json=json)
        if not json:
            print_segments(part, measured)
        return
    network = opened_network(model, feed=feed, size=size, like=input)
    part = partition(network, [])
    (sample,) = open_inputs(part, input, count=1, seed=seed)
    with console.progress(f"profiling {network.name}") as tick:
        layers = profile_layers(
            network, sample, device, runs=runs, backend=backend, progress=tick
        )
    _hand_out(layers, output, json=json)
    if not json:
        _print_layers(network, layers)


def _hand_out(measured: Profile | LayerProfile, output: Path | None, *, json: bool) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(measured.to_json() + "\n", encoding="utf-8")
        console.say(f"profile written to {output}", to=console.err)
    busy = disturbance(measured)
    if busy is not None:
        console.note(busy)
    if json:
        console.out.file.write(measured.to_json() + "\n")


def _print_layers(network: Network, measured: LayerProfile) -> None:
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


@takes_feed
def cut(
    model: Model,
    feed: Feeding,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder to write; NAME{SUFFIX} if not given."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="Layer (its name) to cut after. Repeatable."),
    ] = None,
    input: Input = None,
    size: Size = None,
    max_cuts: Annotated[int, typer.Option(min=0, help="Maximum number of cuts.")] = MOST_CUTS,
    measure: Annotated[
        bool,
        typer.Option(
            help="Choose cuts by measured times of layers. Default: by their arithmetic."
        ),
    ] = True,
    threads: Threads = 1,
    runs: Runs = 20,
    json: Json = False,
) -> None:
    """Cut a model once, at the places that can ever win, and write it as a folder.

    The folder holds one ONNX model per segment, a manifest with digests, cuts and tensor
    shapes, and a profile of this machine. `midstream cloud serve` and `midstream edge run`
    take it. The same model and the same cuts give the same bytes.
    """
    network = opened_network(model, feed=feed, size=size, like=input)
    folder = output or Path(f"{network.name}{SUFFIX}")
    check_room(folder)
    device = this_device(threads=threads)
    if at:
        chosen = tuple(_cut_after(network.graph, name) for name in at)
    elif measure:
        (sample,) = open_inputs(partition(network, []), input, count=1)
        with console.progress(f"profiling {network.name}") as tick:
            layers = profile_layers(network, sample, device, runs=runs, progress=tick)
        chosen = cuts_by(network, layers.seconds, max_cuts=max_cuts)
    else:
        chosen = default_cuts(network, max_cuts=max_cuts)
    part = partition(network, chosen)
    samples = open_buckets(part, input)
    with console.progress(f"profiling the segments of {network.name}") as tick:
        chain = Chain(part, threads=threads)
        measured = profile_sizes(chain, samples, device, runs=runs, progress=tick)
    save_partition(part, folder, profiles=[measured])
    if json:
        console.print_json(
            {
                "model": part.name,
                "folder": str(folder),
                "graph_digest": part.graph_digest,
                "partition_digest": part.digest,
                "segments": [segment.digest for segment in part.segments],
                "cuts": [
                    {"id": c.id, "label": c.label, "nbytes": c.nbytes} for c in part.cuts
                ],
            }
        )
        return
    print_segments(part, measured)
    console.say(f"{len(part.segments)} segments written to {folder}, {part.digest[:12]}")


def _cut_after(graph: Graph, name: str) -> Cut:
    for cut in position_cuts(graph)[1:]:
        if graph.nodes[len(cut.head) - 1].name == name:
            return cut
    raise UsageError(
        f"--at must be the name of a layer after which {graph.name} can be cut; {name!r} is "
        f"none: `midstream profile` lists them"
    )


def models(json: Json = False) -> None:
    """List the reference models that are built in."""
    if json:
        entries = [
            {
                "name": each.name,
                "title": each.title,
                "trained": each.trained,
                "note": each.note,
            }
            for each in NETWORKS.values()
        ]
        console.print_json({"models": entries})
        return
    rows = console.table("reference models", "name", "network", "weights", "note",
                         left=("name", "network", "weights", "note"))  # fmt: skip
    for each in NETWORKS.values():
        weights = "trained" if each.trained else "random"
        rows.add_row(each.name, each.title, weights, each.note)
    console.show(rows)
    console.say(
        "Random weights serve timing and exactness; an accuracy of such a model means nothing."
    )
