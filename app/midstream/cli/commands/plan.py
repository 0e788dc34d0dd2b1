"""`midstream plan`: what every useful cut would cost over a link, and which one wins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstream.cli.flags.common import Execution, Input, Json, Model, Size, takes_execution
from midstream.cli.flags.destinations import writable
from midstream.cli.flags.feed import takes_feed
from midstream.cli.flags.planning import (
    Devices,
    Planning,
    takes_devices,
    takes_link,
    takes_planning,
)
from midstream.cli.opening import opened_partition
from midstream.cli.output import console
from midstream.cli.output.plan_table import (
    FROM_BPS,
    TO_BPS,
    print_plan,
)
from midstream.cli.runs.planner import open_planner
from midstream.documents import plan_document, size_curve_document
from midstream.feeding import Feeding
from midstream_lab.report.matplotlib_figures import check_picture, draw_plan
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.envelope import envelope_of
from midstream_partitioner.planning.over_sizes import over_sizes
from midstream_partitioner.units import (
    format_duration,
    format_rate,
    parse_duration,
)
from midstream_wire.errors import UsageError


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
        str | None, typer.Option(help="Time that a request waits in the cloud's queue (5ms).")
    ] = None,
    input: Input = None,
    size: Size = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            callback=writable,
            help="File for a picture of candidates and envelope (.png or .svg).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show every useful cut, what each would cost, and which one wins.

    Edge-only, cloud-only with the raw and cloud-only with the compressed input are candidates
    like any cut. Profiles come from `midstream profile PARTITION -o FILE` on the devices
    themselves; without them this machine plays both, the edge slower by --edge-slowdown. A
    partition that was calibrated (midstream calibrate) is planned within a budget of accuracy,
    cut and codec together. Where the model leaves sizes open, --size seq=128 says what to
    plan for, and --size seq=8..512 shows also from which size on another candidate wins.
    """
    if link is None:
        raise UsageError("a plan needs a link: give --link lte, or --uplink 8Mbit --rtt 40ms")
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


def _title(part: Partition, edge: Device, cloud: Device, link: Link) -> str:
    return (
        f"{part.name}: edge {edge.label()}, cloud {cloud.label()}, "
        f"{format_rate(link.uplink_bps)} up, {format_rate(link.downlink_bps)} down, "
        f"RTT {format_duration(link.rtt_s)}"
    )
