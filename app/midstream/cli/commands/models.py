"""`midstream profile` and `models`: measuring a model, and listing the built-in ones."""

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
)
from midstream.cli.flags.destinations import writable
from midstream.cli.flags.feed import takes_feed
from midstream.cli.opening import opened_network, opened_partition
from midstream.cli.output import console
from midstream.cli.output.profile_tables import print_layers, print_segments
from midstream.feeding import Feeding
from midstream.loaders import (
    open_buckets,
    open_inputs,
)
from midstream_lab.networks import NETWORKS
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import LayerProfile, Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import (
    is_partition,
)
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.codec_ladder import usual_codecs
from midstream_partitioner.profiling.profiler import profile_layers
from midstream_partitioner.profiling.quietness import disturbance


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
        print_layers(network, layers)


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
