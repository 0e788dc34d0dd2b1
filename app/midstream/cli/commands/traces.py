"""`midstream traces`: what a recorded or made-up link was like, and changing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from midstream.cli.flags.common import Json
from midstream.cli.flags.destinations import writable
from midstream.cli.output import console
from midstream.cli.output.console import examples
from midstream_lab.report.matplotlib_figures import check_picture
from midstream_lab.traces.generators import KINDS, generate
from midstream_lab.traces.parsing import load_trace, open_trace
from midstream_lab.traces.plot import draw_traces
from midstream_lab.traces.statistics import Statistics, statistics
from midstream_lab.traces.trace import Trace
from midstream_lab.traces.writing import write_trace
from midstream_partitioner.units import (
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)

app = typer.Typer(
    help="Look at traces of links, make some up, change their form.",
    no_args_is_help=True,
)

Traces = Annotated[
    list[str],
    typer.Argument(
        metavar="TRACE...",
        help=f"Files, or kinds of link to make up: {', '.join(KINDS)}, lte:7 for seed 7.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        callback=writable,
        help="Output file.",
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of times in a CSV, with its unit where the name has none (ts:ms)."
    ),
]
RateColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of rates in a CSV, with its unit where the name has none (up:kbit)."
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format", help="Format: mahimahi, columns or csv. Default: by the output's name."
    ),
]
Step = Annotated[str | None, typer.Option(help="Length of the trace's steps (100ms).")]


@app.command(
    "stats",
    epilog=examples("midstream traces stats lte.txt wifi.csv", "midstream traces stats 3g:1"),
)
def stats(
    traces: Traces,
    time_column: TimeColumn = None,
    rate_column: RateColumn = None,
    json: Json = False,
) -> None:
    """Rates, outages and memory of traces."""
    found = [_open(each, time_column, rate_column) for each in traces]
    if json:
        console.print_json({"traces": [_document(each) for each in found]})
        return
    _print(found)


@app.command("plot", epilog=examples("midstream traces plot lte.txt 3g:1 -o traces.svg"))
def plot(
    traces: Traces,
    output: Output = Path("traces.png"),
    time_column: TimeColumn = None,
    rate_column: RateColumn = None,
    json: Json = False,
) -> None:
    """Draw rates over time, a panel a trace."""
    check_picture(output)
    found = [_open(each, time_column, rate_column) for each in traces]
    draw_traces(found, output)
    if json:
        document = {"traces": [_document(each) for each in found], "picture": str(output)}
        console.print_json(document)
        return
    console.say(f"picture: {output}")


@app.command(
    "generate",
    epilog=examples("midstream traces generate lte --seed 7 --duration 120s -o lte.txt"),
)
def make(
    kind: Annotated[str, typer.Argument(help=f"Kind of link to make up: {', '.join(KINDS)}.")],
    output: Output,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator.")] = 0,
    duration: Annotated[str, typer.Option(help="Length of the trace (300s).")] = "300s",
    step: Step = "100ms",
    median: Annotated[
        str | None, typer.Option(help="Median rate (8Mbit). Default: the kind's.")
    ] = None,
    form: Form = None,
    json: Json = False,
) -> None:
    """Make a trace up: a log rate with a memory, and outages."""
    made = generate(
        kind,
        seed=seed,
        duration_s=parse_duration(duration),
        step_s=parse_duration(step or "100ms"),
        median_bps=None if median is None else parse_rate(median),
    )
    _hand_out(made, output, form, json=json)


@app.command(
    "convert",
    epilog=examples(
        "midstream traces convert log.csv --rate-column up:kbit -o up.txt",
        "midstream traces convert lte.up.gz --from 20s --to 80s --scale 0.5 -o slow.csv",
    ),
)
def convert(
    trace: Annotated[str, typer.Argument(help="A file, or a kind of link: lte:7.")],
    output: Output,
    from_: Annotated[
        str | None, typer.Option("--from", help="Start of the part to keep (20s).")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="End of the part to keep (80s).")
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor on all rates.")] = 1.0,
    step: Step = None,
    duration: Annotated[
        str | None, typer.Option(help="Duration to repeat or shorten the trace to (10min).")
    ] = None,
    form: Form = None,
    time_column: TimeColumn = None,
    rate_column: RateColumn = None,
    json: Json = False,
) -> None:
    """Cut, scale, resample and repeat a trace, in this order, and write it."""
    made = _open(trace, time_column, rate_column)
    if from_ is not None or to is not None:
        end_s = made.duration_s if to is None else parse_duration(to)
        made = made.cut(parse_duration(from_ or "0s"), end_s)
    if scale != 1:
        made = made.scaled(scale)
    if step is not None:
        made = made.resampled(parse_duration(step))
    if duration is not None:
        made = made.looped(parse_duration(duration))
    _hand_out(made, output, form, json=json)


def _open(text: str, time_column: str | None, rate_column: str | None) -> Trace:
    if time_column is None and rate_column is None:
        return open_trace(text)
    return load_trace(text, time_column=time_column, rate_column=rate_column)


def _hand_out(made: Trace, output: Path, form: str | None, *, json: bool) -> None:
    written = write_trace(made, output, form=form)
    if json:
        console.print_json({"file": str(output), "format": written, "trace": _document(made)})
        return
    console.say(f"{written} written to {output}", to=console.err)
    _print([made])


def _document(trace: Trace) -> dict[str, Any]:
    return {
        "name": trace.name,
        "source": trace.source,
        "statistics": statistics(trace).to_dict(),
    }


def _print(traces: Sequence[Trace]) -> None:
    rows = console.table(
        "",
        *("trace", "lasts", "mean", "p5", "p50", "p95", "variation"),
        *("outages", "of the time", "longest", "memory"),
        left=("trace",),
    )
    for trace in traces:
        rows.add_row(console.elided(trace.name), *_cells(statistics(trace)))
    console.show(rows)


def _cells(found: Statistics) -> list[str]:
    rates = (found.mean_bps, found.p5_bps, found.p50_bps, found.p95_bps)
    memory = math.nan if found.memory_s is None else found.memory_s
    return [
        format_duration(found.duration_s)
        if found.duration_s < 60
        else f"{found.duration_s:.0f} s",
        *(format_rate(rate) for rate in rates),
        f"{found.variation:.2f}",
        str(found.outages),
        f"{found.outage_share:.1%}",
        format_duration(found.longest_outage_s) if found.outages else "none",
        "none" if math.isnan(memory) else format_duration(memory),
    ]
