"""`midstream codecs`: rate against accuracy and against time, cut by cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream.cli.flags.common import CodecPlugins, Json, Model, Seed, Size, Threads
from midstream.cli.flags.destinations import writable
from midstream.cli.flags.feed import takes_feed
from midstream.cli.opening import opened_partition
from midstream.cli.output import console
from midstream.documents import codecs_document
from midstream.feeding import Feeding
from midstream.loaders import open_metric
from midstream_lab.report.matplotlib_figures import check_picture, draw_codecs
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.budget import default_budget
from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import CodecCost
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.calibrator import calibrate
from midstream_partitioner.profiling.dataset import read_data
from midstream_partitioner.profiling.profiler import TIMED, profile_codecs
from midstream_partitioner.units import format_nbytes

DataSource = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Samples: a folder of pictures, an .npz or .npy, or python:module:function.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", help="Labels: a key of the .npz, or a file with one label a sample."
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric", help="Metric instead of top-1: python:module:function(outputs, label)."
    ),
]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Maximum number of samples.")]
Ladder = Annotated[
    str | None,
    typer.Option("--codecs", help="Codecs to measure (half,int8,jpeg:80). Default: all."),
]


@takes_feed
def codecs(
    model: Model,
    feed: Feeding,
    data: DataSource = None,
    labels: Labels = None,
    metric: MetricName = None,
    samples: Samples = 512,
    only: Ladder = None,
    codec_plugin: CodecPlugins = None,  # loaded as it is read
    size: Size = None,
    seed: Seed = 0,
    threads: Threads = 1,
    draw: Annotated[
        Path | None,
        typer.Option(
            callback=writable, help="File for a picture of rate against accuracy and time."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what every codec at every cut costs: bits, time, accuracy.

    Where the input is a picture, PNG, JPEG, WebP and AVIF of it stand beside, as `cloud-only`.
    A partition that was calibrated is not measured again unless --data is given; without any
    data there are only sizes and times.
    """
    if draw is not None:
        check_picture(draw)
    fresh = data is not None or only is not None
    part = opened_partition(model, feed=feed, size=size, like=data, calibrated=not fresh)
    found = part.calibration
    chain = Chain(part, threads=threads)
    score = open_metric(metric)
    source = read_data(part, data, labels=labels, count=samples, seed=seed)
    if found is None:
        with console.progress(f"calibrating {part.name}") as tick:
            found = calibrate(chain, source, codecs=ladder(only), metric=score, progress=tick)
    with console.progress(f"timing codecs of {part.name}") as tick:
        costs = profile_codecs(
            chain, source.inputs[:TIMED], codecs=found.codecs, progress=tick
        )
    device = this_device(threads=threads)
    if draw is not None:
        draw_codecs(part, found, costs, draw)
    if json:
        console.print_json(codecs_document(part.name, device, found, costs))
        return
    print_codecs(part, found, costs)
    if draw is not None:
        console.say(f"drawn to {draw}", to=console.err)


def ladder(names: str | None) -> tuple[str, ...] | None:
    """The codecs that a flag names; None for all of them. Raises `UsageError`."""
    return None if names is None else tuple(map(full_id, names.split(",")))


def print_codecs(part: Partition, found: Calibration, costs: tuple[CodecCost, ...]) -> None:
    """A row for every cut and codec, and what a plan would keep to."""
    title = f"{part.name}: {found.samples} samples of {found.data}"
    rows = console.table(
        title,
        *("cut", "codec", "payload", "p95", "bits/element", "encode", "decode ms"),
        *("agreement", found.metric or "top-1", "loss", "L2 mean", "L2 worst", "budget"),
        left=("cut", "codec", "budget"),
    )
    _fill(rows, part, found, costs)
    console.show(rows)
    if found.generated:
        console.say(
            "generated inputs tell sizes and times only: with --data this table tells what "
            "each codec does to the answers"
        )
        return
    budget = default_budget(found)
    whole = "" if found.whole is None else f"; unsplit {found.metric} {found.whole:.2%}"
    console.say(f"default budget: {budget.describe(found.metric)}{whole}")


def _fill(
    rows: console.Rows, part: Partition, found: Calibration, costs: tuple[CodecCost, ...]
) -> None:
    labels = {cut.id: cut.label for cut in part.cuts}
    timed = {(cost.cut, cost.codec): cost for cost in costs}
    last = None
    for row in found.rows:
        cost = timed.get((row.cut, row.codec))
        rows.add_row(
            console.elided(labels[row.cut]) if row.cut != last else "",
            row.codec,
            format_nbytes(row.payload_nbytes),
            format_nbytes(row.payload_p95_nbytes),
            f"{row.bits_per_element:.2f}",
            "" if cost is None else console.ms(cost.encode_s),
            "" if cost is None else console.ms(cost.decode_s),
            *_accuracy_cells(row),
            _verdict(found, row),
        )
        last = row.cut


def _accuracy_cells(row: Fidelity) -> list[str]:
    figures = (
        (row.agreement, "{:.2%}"),
        (row.top1, "{:.2%}"),
        (row.top1_loss, "{:+.2f}"),
        (row.relative_l2_mean, "{:.1e}"),
        (row.relative_l2_worst, "{:.1e}"),
    )
    return ["" if value is None else form.format(value) for value, form in figures]


def _verdict(found: Calibration, row: Fidelity) -> str:
    if found.generated:
        return ""
    return default_budget(found).objection(row, found) or "ok"
