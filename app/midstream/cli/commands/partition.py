"""`midstream partition`: cutting a model once, and keeping it as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream.cli.flags.common import (
    Input,
    Json,
    Model,
    Runs,
    Size,
    Threads,
)
from midstream.cli.flags.feed import takes_feed
from midstream.cli.opening import opened_network
from midstream.cli.output import console
from midstream.cli.output.profile_tables import print_segments
from midstream.feeding import Feeding
from midstream.loaders import (
    cuts_by,
    default_cuts,
    open_buckets,
    open_inputs,
)
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import (
    SUFFIX,
    check_room,
    save_partition,
)
from midstream_partitioner.planning.choose_cuts import MOST_CUTS
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.profiler import profile_layers
from midstream_wire.errors import UsageError


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
