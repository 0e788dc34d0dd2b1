"""`midstream plan`: what every useful cut would cost over a link, and which one wins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from midstream.cli import console
from midstream.cli.opened import opened_partition
from midstream.cli.options import (
    Devices,
    Execution,
    Input,
    Json,
    Model,
    Planning,
    Size,
    takes_devices,
    takes_execution,
    takes_feed,
    takes_link,
    takes_planning,
)
from midstream.cli.places import writable
from midstream.documents import plan_document, size_curve_document
from midstream.feeding import Feeding
from midstream.serving import measure_chain
from midstream_lab.draw import check_picture, draw_plan
from midstream_partitioner.backend import Backend
from midstream_partitioner.chain import ONNXRUNTIME, Chain
from midstream_partitioner.curves import check_sized
from midstream_partitioner.device import Device
from midstream_partitioner.envelope import Envelope, envelope_of
from midstream_partitioner.link import Link
from midstream_partitioner.over_sizes import over_sizes
from midstream_partitioner.partition import Partition
from midstream_partitioner.plan import Candidate, Plan, Planner
from midstream_partitioner.profile import Profile, load_profile
from midstream_partitioner.timings import FIELDS
from midstream_partitioner.units import (
    format_duration,
    format_nbytes,
    format_rate,
    parse_duration,
)
from midstream_wire.errors import UsageError

#: The envelope is told, and drawn, over this range: from a poor 2G cell to a fast wire.
FROM_BPS, TO_BPS = 50e3, 10e9

#: Rows of the table for one cut, where a whole ladder of codecs was calibrated.
MOST_PER_CUT = 4


@takes_feed
@takes_link
@takes_planning
@takes_devices
@takes_execution
def plan(
    model: Model,
    feed: Feeding,
    link: Link | None,
    planning: Planning,
    *,
    devices: Devices,
    execution: Execution,
    queue: Annotated[
        str | None, typer.Option(help="How long a request waits in the cloud: 5ms.")
    ] = None,
    input: Input = None,
    size: Size = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            callback=writable, help="Draw candidates and envelope to this .png or .svg."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show every useful cut, what each would cost, and which one wins.

    Edge-only, cloud-only with the raw and cloud-only with the compressed input are candidates
    like any cut. Profiles come from `midstream profile PARTITION -o FILE` on the devices
    themselves; without them this machine plays both, the edge slower by --edge-slowdown. A
    partition that was calibrated (midstream calibrate) is planned within a budget of accuracy,
    cut and codec together. Where the network leaves sizes open, --size seq=128 says what to
    plan for, and --size seq=8..512 shows also from which size on another candidate wins.
    """
    if link is None:
        raise UsageError(
            "a plan needs a link: give --network lte, or --uplink 8Mbit --rtt 40ms"
        )
    queue_s = parse_duration(queue) if queue is not None else 0.0
    if draw is not None:
        check_picture(draw)
    part = opened_partition(model, feed=feed, size=size, like=input)
    planner, at_edge, in_cloud = open_planner(
        part, planning, devices, backend=execution.open(), source=input
    )
    if planner.told:
        console.note(planner.told)
    made = planner.plan(link, queue_s=queue_s)
    curves = over_sizes(planner, link, part.feed.asked, queue_s=queue_s)
    rows = envelope_of(planner, link, queue_s=queue_s, from_bps=FROM_BPS, to_bps=TO_BPS)
    if draw is not None:
        draw_plan(made, rows, planner, draw, title=part.name, curves=curves)
    if json:
        sides = {"edge": at_edge.device.to_dict(), "cloud": in_cloud.device.to_dict()}
        sized = {
            "sizes": dict(planner.sizes),
            "over_sizes": [size_curve_document(curve) for curve in curves],
        }
        console.print_json({"model": part.name, **sides, **sized, **plan_document(made, rows)})
        return
    print_plan(made, rows, title=_title(part, at_edge.device, in_cloud.device, link))
    for curve in curves:
        console.say(curve.sentence())
    if draw is not None:
        console.say(f"drawn to {draw}", to=console.err)


def open_planner(
    part: Partition,
    planning: Planning,
    devices: Devices,
    *,
    source: str | None,
    backend: Backend = ONNXRUNTIME,
) -> tuple[Planner, Profile, Profile]:
    """A planner of `part`, and the profiles of edge and cloud."""
    named = planning.constraints.codecs or ()
    planning.constraints.budget(part.calibration)  # raises before anything is measured
    planning.constraints.check_forbidden(part)
    at_edge, in_cloud = open_profiles(
        part, devices, source=source, named=named, backend=backend
    )
    planner = Planner(
        part,
        at_edge,
        in_cloud,
        objective=planning.objective,
        constraints=planning.constraints,
    )
    return planner.at(part.feed.sizes), at_edge, in_cloud


def open_profiles(
    part: Partition,
    devices: Devices,
    *,
    source: str | None,
    named: Sequence[str],
    backend: Backend = ONNXRUNTIME,
) -> tuple[Profile, Profile]:
    """The profiles in the files named; what is not named is measured here."""
    read = [read_profile(devices.edge), read_profile(devices.cloud)]
    for found in filter(None, read):
        check_sized(found, part.inputs)
    if None in read:
        with console.progress(f"profiling {part.name} on this machine") as tick:
            chain = Chain(part, threads=devices.threads, backend=backend, weigh=True)
            here = measure_chain(
                chain, runs=devices.runs, source=source, named=named, progress=tick
            )
        slower = here.slowed(devices.edge_slowdown)
        return read[0] or slower, devices.serving(read[1] or here)
    at_edge, in_cloud = read
    assert at_edge is not None
    assert in_cloud is not None
    return at_edge, devices.serving(in_cloud)


def read_profile(path: Path | None, backend: Backend | None = None) -> Profile | None:
    """The profile in a file; a note follows where it was measured on another backend."""
    if path is None:
        return None
    found = load_profile(path)
    if backend is not None and found.device.backend != backend.name:
        console.note(
            f"{path} was measured on {found.device.backend}, and {backend.name} runs here: "
            "times will be others; measure it with the flags that it is used with"
        )
    return found


def _title(part: Partition, edge: Device, cloud: Device, link: Link) -> str:
    return (
        f"{part.name}: edge {edge.label()}, cloud {cloud.label()}, "
        f"{format_rate(link.uplink_bps)} up, {format_rate(link.downlink_bps)} down, "
        f"RTT {format_duration(link.rtt_s)}"
    )


def print_plan(made: Plan, rows: Envelope, *, title: str) -> None:
    """The table of candidates, the sentence that explains it, and the envelope."""
    fields = [name.removesuffix("_s") for name in FIELDS]
    accuracy = ("agreement", "loss") if made.budget is not None else ()
    listing = console.table(
        title, "", "candidate", "payload", *fields, "total ms", "energy", "rate", *accuracy,
        left=("", "candidate"),
    )  # fmt: skip
    listed = _listed(made)
    for candidate in listed:
        cells = _cells(candidate) + (_accuracy(candidate) if accuracy else [])
        listing.add_row(_mark(made, candidate), console.elided(candidate.label), *cells)
    console.show(listing)
    if len(listed) < len(made.candidates):
        hidden = len(made.candidates) - len(listed)
        console.say(
            f"and {hidden} more, slower at the same cuts (--json has all)", style="dim"
        )
    console.say(made.explain())
    console.say(f"accuracy: {made.accuracy}")
    if made.scaled():
        console.say(f"not measured but scaled are the times {made.scaled()}")
    console.say(f"over the uplink: {rows.sentence()}")
    if made.rejected:
        shown = {f"{candidate.label} {why}": None for candidate, why in made.rejected}
        first, more = next(iter(shown)), len(shown) - 1
        others = f", and {more} more (--json has all)" if more else ""
        console.say(f"left out: {first}{others}", style="dim")


def _listed(made: Plan) -> list[Candidate]:
    """All candidates; of a calibrated ladder, the best of each cut and the raw baseline."""
    if made.budget is None:
        return list(made.candidates)
    count: dict[str, int] = {}
    listed = []
    for candidate in made.candidates:
        count[candidate.cut] = count.get(candidate.cut, 0) + 1
        baseline = candidate.codec == "raw" or candidate == made.chosen
        if count[candidate.cut] <= MOST_PER_CUT or baseline:
            listed.append(candidate)
    return listed


def _accuracy(candidate: Candidate) -> list[str]:
    row = candidate.fidelity
    if row is None:
        return ["", ""]
    loss = "" if row.top1_loss is None else f"{row.top1_loss:+.2f} pt"
    return ["" if row.agreement is None else f"{row.agreement:.2%}", loss]


def _mark(made: Plan, candidate: Candidate) -> str:
    if candidate is made.chosen:
        return "best"
    return "2nd" if candidate is made.runner_up else ""


def _cells(candidate: Candidate) -> list[str]:
    estimate = candidate.estimate
    return [
        format_nbytes(candidate.payload_nbytes) if candidate.payload_nbytes else "",
        *(console.ms(getattr(estimate, name)) for name in FIELDS),
        console.ms(estimate.total_s),
        f"{candidate.energy_j:.2g} J",
        f"{candidate.throughput_hz:.3g}/s",
    ]
