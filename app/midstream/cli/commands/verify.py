"""`midstream verify`: a split model against the whole, cut by cut."""

from __future__ import annotations

from typing import Annotated

import typer

from midstream.cli.flags.common import (
    Execution,
    Input,
    Json,
    Model,
    Seed,
    Size,
    Threads,
    takes_execution,
)
from midstream.cli.flags.feed import takes_feed
from midstream.cli.opening import opened_network, opened_partition
from midstream.cli.output import console
from midstream.feeding import Feeding
from midstream.loaders import (
    open_inputs,
)
from midstream_lab.verification.checks import Verification
from midstream_lab.verification.verify import verify_cuts, verify_partition
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.units import format_nbytes
from midstream_wire.errors import MidstreamError, UsageError


@takes_feed
@takes_execution
def verify(
    model: Model,
    feed: Feeding,
    cuts: Annotated[
        str, typer.Option(help="Cuts to check: those of the partition, or all positions.")
    ] = "partition",
    codec: Annotated[str, typer.Option(help="Codec of what crosses.")] = "raw",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Maximum error of an output, relative to its largest value (0.01). Default: "
            "1e-5 (float16: 1e-3; other backends: docs/explanation/backends.md), or 4 times "
            "the model's own rounding if that is more.",
        ),
    ] = None,
    input: Input = None,
    size: Size = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of inputs.")] = 1,
    seed: Seed = 0,
    threads: Threads = 1,
    *,
    execution: Execution,
    json: Json = False,
) -> None:
    """Check that head, codec and tail give the whole model's answer, cut by cut."""
    if cuts not in ("partition", "all"):
        raise UsageError(f"--cuts must be partition or all (not {cuts!r})")
    backend = execution.open()
    if cuts == "partition":
        part = opened_partition(model, feed=feed, size=size, like=input)
        inputs = open_inputs(part, input, count=samples, seed=seed)
        with console.progress(f"verifying {part.name}") as tick:
            found = verify_partition(part, codec=codec, inputs=inputs, threads=threads,
                                     tolerance=tolerance, backend=backend,
                                     progress=tick)  # fmt: skip
    else:
        network = opened_network(model, feed=feed, size=size, like=input)
        part = partition(network, [])
        inputs = open_inputs(part, input, count=samples, seed=seed)
        with console.progress(f"verifying {network.name}") as tick:
            found = verify_cuts(network, cuts=position_cuts(network.graph), codec=codec,
                                inputs=inputs, threads=threads, tolerance=tolerance,
                                backend=backend, progress=tick)  # fmt: skip
    if json:
        console.print_json({"model": part.name, **found.to_dict()})
    else:
        _print_checks(found)
    if found.interrupted:
        raise typer.Abort
    told = random_sentence(found)
    if found.failures:
        failed = f"{len(found.failures)} of {found.checked} cuts failed"
        raise MidstreamError(f"{failed}; {told}" if told else failed)
    if told:
        console.note(told)


def random_sentence(found: Verification) -> str:
    """Tell of a model that draws random numbers; "" of any other."""
    if not found.random_operators:
        return ""
    return (
        f"the model draws random numbers ({', '.join(found.random_operators)}), so that two "
        "runs of it may differ by themselves: compare answers that do not depend on them"
    )


def _print_checks(found: Verification) -> None:
    of_all = f" of {found.planned}: interrupted" if found.interrupted else ""
    rows = console.table(
        f"{found.checked}{of_all} cuts, codec {found.codec}",
        *("cut", "where", "raw", "payload", "relative error", "absolute", "argmax", "verdict"),
        left=("cut", "where", "verdict"),
    )
    for row in found.rows:
        rows.add_row(
            row.cut,
            console.elided(row.label),
            format_nbytes(row.raw_nbytes),
            format_nbytes(row.payload_nbytes),
            f"{row.relative_error:.1e}",
            f"{row.absolute_error:.1e}",
            "equal" if row.argmax_equal else "differs",
            row.failure or "ok",
        )
    console.show(rows)
    console.say(
        f"largest relative error {found.max_relative_error:.1e}, argmax "
        f"{'equal everywhere' if found.argmax_equal else 'differs'}, "
        f"{len(found.failures)} of {found.checked} cuts fail"
    )
    if found.own_rounding is not None:
        console.say(
            f"The unsplit model's own rounding moves its answer by {found.own_rounding:.1e} "
            "(each node on its own, rounded to its type, or in another number of threads), so "
            f"up to {found.tolerance:.1e} passes."
        )
    if found.silent:
        console.say(
            f"Not compared, because empty or NaN on these inputs: {', '.join(found.silent)}. "
            "Give others with --input."
        )
