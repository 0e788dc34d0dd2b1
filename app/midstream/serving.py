"""From the names of models to a repository that a server can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from midstream.sources import open_inputs, open_models
from midstream_cloud.repository import Model, Repository
from midstream_partitioner.chain import Chain
from midstream_partitioner.device import this_device
from midstream_partitioner.measure import Progress, no_progress, profile_segments
from midstream_partitioner.partition import Partition
from midstream_partitioner.profile import Profile


def open_repository(
    sources: Sequence[str],
    *,
    threads: int = 1,
    slowdown: float = 1.0,
    runs: int = 10,
    progress: Progress = no_progress,
) -> Repository:
    """Load what `sources` name, measure it on this machine, and hold it ready to serve."""
    return make_repository(
        open_models(sources), threads=threads, slowdown=slowdown, runs=runs, progress=progress
    )


def make_repository(
    partitions: Mapping[str, Partition],
    *,
    threads: int = 1,
    slowdown: float = 1.0,
    runs: int = 10,
    progress: Progress = no_progress,
) -> Repository:
    """A repository of `partitions`; with `runs`, each has a profile for edges to plan with."""
    repository = Repository()
    for name, part in partitions.items():
        chain = Chain(part, threads=threads, slowdown=slowdown)
        measured = measure_chain(chain, runs=runs, progress=progress) if runs > 0 else None
        repository.hold(Model(name, part, chain, measured))
    return repository


def measure_chain(
    chain: Chain,
    *,
    runs: int = 10,
    source: str | None = None,
    progress: Progress = no_progress,
) -> Profile:
    """The profile of a compiled chain here, on inputs from `source` or random ones."""
    device = this_device(threads=chain.threads, slowdown=chain.slowdown)
    samples = open_inputs(chain.partition, source, count=4)
    return profile_segments(chain, samples, device, runs=runs, progress=progress)
