"""From the names of models to a repository that a server can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from midstream.feeding import AS_IT_IS, Feeding
from midstream.loaders import LeftOut, open_buckets, open_models, refuse
from midstream_cloud.models import tails_timed
from midstream_cloud.repository import Model, Repository
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.costs.curves import check_sized
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.size_spans import Spans
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.codec_ladder import usual_codecs
from midstream_partitioner.profiling.profiler import Progress, no_progress
from midstream_wire.errors import ModelError, TensorError, UsageError


def open_repository(
    sources: Sequence[str],
    *,
    feed: Feeding = AS_IT_IS,
    sizes: Spans = (),
    threads: int = 1,
    slowdown: float = 1.0,
    runs: int = 10,
    repartition: int = 0,
    profile: Profile | None = None,
    workers: int = 1,
    backend: Backend = ONNXRUNTIME,
    progress: Progress = no_progress,
    left_out: LeftOut = refuse,
) -> Repository:
    """Load what `sources` name, measure it on this machine, and hold it ready to serve.

    `repartition` is as in `Repository`, `profile` as in `make_repository`; `backend` runs it.
    A model that cannot be opened or run is handed to `left_out`, and the others are served;
    `ModelError` where none is left.
    """
    return make_repository(
        open_models(sources, feed=feed, sizes=sizes, left_out=left_out),
        threads=threads,
        slowdown=slowdown,
        runs=runs,
        repartition=repartition,
        profile=profile,
        workers=workers,
        backend=backend,
        progress=progress,
        left_out=left_out,
    )


def make_repository(
    models: Mapping[str, Partition],
    *,
    threads: int = 1,
    slowdown: float = 1.0,
    runs: int = 10,
    repartition: int = 0,
    profile: Profile | None = None,
    workers: int = 1,
    backend: Backend = ONNXRUNTIME,
    progress: Progress = no_progress,
    left_out: LeftOut = refuse,
) -> Repository:
    """A repository of `models`; with `runs`, each has a profile for edges to plan with.

    `profile` stands in for measuring the only model there is, and sets the pace of an
    emulated device; plans are told that `workers` tails run at once. Raises `UsageError`
    where there are more. `left_out` as for `open_repository`.
    """
    if profile is not None and len(models) != 1:
        raise UsageError(
            f"a profile is of one model, and {len(models)} are served: serve one, or let them "
            "be measured"
        )
    repository = Repository(repartition=repartition)
    for name, part in models.items():
        try:
            chain = Chain(part, threads=threads, slowdown=slowdown, backend=backend)
            measured = profile
            if profile is not None:
                check_sized(profile, part.inputs)
                if not profile.others:
                    chain.keep_pace([segment.median_s for segment in profile.segments])
            elif runs > 0:
                measured = measure_chain(chain, runs=runs, progress=progress)
            told = None if measured is None else measured.serving(workers)
            timed = tails_timed(chain) if told is None else ()
            repository.hold(Model(name, part, chain, told, timed))
        except (ModelError, TensorError) as error:
            if len(models) == 1:
                raise
            left_out(name, error)
    if not repository.models:
        raise ModelError("at least one model must be one that can be served, and none is left")
    return repository


def measure_chain(
    chain: Chain,
    *,
    runs: int = 10,
    source: str | None = None,
    named: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Profile:
    """The profile of a compiled chain here, on inputs from `source` or random ones.

    It has the usual codecs with those of a user's own that are loaded, those `named`, and
    those that the partition's calibration knows.
    """
    device = this_device(threads=chain.threads, slowdown=chain.slowdown)
    samples = open_buckets(chain.partition, source)
    return profile_sizes(
        chain, samples, device, runs=runs, codecs=(*usual_codecs(), *named), progress=progress
    )
