"""Planners and profiles as commands open them: measured now, or read from files."""

from __future__ import annotations

from collections.abc import Sequence

from midstream.cli.flags.planning import Devices, Planning
from midstream.cli.opening import read_profile
from midstream.cli.output import console
from midstream.serving import measure_chain
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.costs.curves import check_sized
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.planner import Planner


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
