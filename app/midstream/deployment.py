"""An edge ready to plan: its partition agreed with the server, both profiles, a session."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from midstream.feeding import AS_IT_IS, Feeding
from midstream.loaders import at_sizes, cut_alike, open_network, open_partition
from midstream.serving import measure_chain
from midstream_edge.link.describe import describe
from midstream_edge.link.endpoint import CONNECT_S, Endpoint
from midstream_edge.session.local_time import DeclaredRest
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.costs.curves import Curve, check_sized
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.size_spans import Spans, checked_sizes
from midstream_partitioner.costs.sizes import Sizes, open_names
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain
from midstream_partitioner.graph.cuts import head_of
from midstream_partitioner.inputs.feed_terms import Terms, difference, terms_of
from midstream_partitioner.partition.folder import is_partition
from midstream_partitioner.partition.memory_estimate import weights_of
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.profiling.profiler import Progress, no_progress
from midstream_wire.codecs.plugins import refused_by
from midstream_wire.codecs.registry import unread_by
from midstream_wire.descriptions import ModelDescription
from midstream_wire.errors import CloudRefused, MidstreamError, ModelError, UsageError
from midstream_wire.frames import Code


@final
@dataclass(frozen=True, slots=True)
class EdgeSide:
    """An edge's part of a model with its profile, whichever server has the rest."""

    partition: Partition
    model: str
    chain: Chain
    edge: Profile

    def join(self, remote: ModelDescription) -> Deployment:
        """Both sides, with a server that holds the same partition.

        Raises `ModelError` if the server has no profile to plan with.
        """
        cloud = _profile_of(remote)
        check_sized(cloud, self.partition.inputs)
        refused = (*unread_by(remote.codecs), *refused_by(remote.own_codecs))
        return Deployment(self.partition, remote.name, self.chain, self.edge, cloud, refused)


@final
@dataclass(frozen=True, slots=True)
class EdgeSetup:
    """Settings by which an edge loads its part of a model, and measures it.

    `segments` limits what it holds, and so does the memory that they may take together,
    `within_nbytes`. `profile` stands in for measuring, and sets the pace of an emulated
    device. Else `runs` runs are measured on `inputs` (a source as for `read_inputs`, random
    ones without), with `codecs` besides the usual ones and those of a calibration.
    """

    threads: int = 1
    slowdown: float = 1.0
    segments: int | None = None
    runs: int = 10
    profile: Profile | None = None
    inputs: str | None = None
    codecs: Sequence[str] = ()
    backend: Backend = ONNXRUNTIME
    within_nbytes: int | None = None

    def hold(
        self, part: Partition, *, model: str | None = None, progress: Progress = no_progress
    ) -> EdgeSide:
        """Compile the segments of `part` that are held, and measure them.

        `model` is the name under which a server holds it (None: its own).
        """
        profile, within_nbytes = self.profile, self.within_nbytes
        weights = weights_of(part)
        chain = Chain(
            part,
            last=self._last(part, weights),
            threads=self.threads,
            slowdown=self.slowdown,
            backend=self.backend,
            weigh=True,
            within_nbytes=within_nbytes,
        )
        edge = profile or measure_chain(
            chain,
            runs=self.runs,
            source=self.inputs,
            named=self.codecs,
            progress=progress,
        )
        if within_nbytes is not None:
            chain.keep(edge.fitting(within_nbytes, weights))
        if profile is not None:
            check_sized(profile, part.inputs)
            if not profile.others:  # else a segment takes as long as a request's size says
                chain.keep_pace([segment.median_s for segment in profile.segments])
        return EdgeSide(part, model or part.name, chain, edge)

    def _last(self, part: Partition, weights: Sequence[int]) -> int | None:
        """Return how many segments are held, as far as that is known; None: all."""
        segments = self.segments
        if segments is not None and segments > len(part.segments):
            raise UsageError(
                f"--segments must be at most {len(part.segments)}, of which {part.name} is "
                f"made (not {segments})"
            )
        if self.profile is None or self.within_nbytes is None:
            return segments
        fitting = self.profile.fitting(self.within_nbytes, weights)
        return fitting if segments is None else min(segments, fitting)


@final
@dataclass(frozen=True, slots=True)
class Deployment:
    """Both sides of one model: the partition they share and what they measured.

    `refused` are families of codecs that the server does not take, and why so.
    """

    partition: Partition
    model: str
    chain: Chain
    edge: Profile
    cloud: Profile
    refused: tuple[tuple[str, str], ...] = ()

    def allowed(self, constraints: Constraints) -> Constraints:
        """`constraints`, without the codecs that the server does not take."""
        return replace(constraints, refused=self.refused)


def agree(
    source: str,
    remote: tuple[ModelDescription, ...],
    *,
    feed: Feeding,
    sizes: Spans,
    model: str | None,
) -> tuple[Partition, ModelDescription]:
    """The partition of `source` that the server holds, and the server's description of it.

    A partition's folder must be the server's own; a bare network is cut where the server cut
    its copy. Raises `CloudRefused` if the server has no such network, `UsageError` if it has
    none called `model`.
    """
    names = [each.name for each in remote]
    if model is not None and model not in names:
        raise UsageError(
            f"--name must be a model that the server holds, {', '.join(names)} (not {model!r})"
        )
    if is_partition(Path(source)):
        part = open_partition(source, feed=feed, sizes=sizes)
        for each in remote:
            if each.partition_digest == part.digest and model in (None, each.name):
                return part, each
        raise _unlike(part, remote, model)
    network = open_network(source, feed=feed, sizes=sizes)
    for each in remote:
        if each.graph_digest == network.graph.digest and model in (None, each.name):
            count = len(network.graph.nodes)
            heads = [head_of(cut.head_runs, node_count=count) for cut in each.cuts]
            part = cut_alike(network, heads)
            if part.digest != each.partition_digest:
                raise ModelError(
                    f"{source} cut where the server cuts it must give the server's digest "
                    f"{each.partition_digest[:12]}, and gives {part.digest[:12]}: use the "
                    "same version of midstream on both sides, or give both one partition's "
                    "folder"
                )
            return part, each
    inputs = [network.graph.tensors[name].spec for name in network.graph.inputs]
    terms = terms_of(network.feed, inputs)
    raise _disagreement(network.name, network.graph.digest, terms, remote, model)


@contextmanager
def explained(part: Partition, endpoint: Endpoint | None) -> Iterator[None]:
    """Have a server that refuses `part` be asked what it holds, and the refusal say so."""
    try:
        yield
    except CloudRefused as error:
        if endpoint is None or error.code not in (Code.NOT_FOUND, Code.FAILED_PRECONDITION):
            raise
        try:
            models = describe(endpoint)
        except MidstreamError:
            raise error from None
        if any(each.partition_digest == part.digest for each in models):
            raise
        raise _unlike(part, models, None) from error


def _unlike(
    part: Partition, remote: tuple[ModelDescription, ...], model: str | None
) -> CloudRefused:
    terms = terms_of(part.feed, part.inputs)
    return _disagreement(part.name, part.graph_digest, terms, remote, model)


def _disagreement(
    name: str,
    graph_digest: str,
    terms: Terms,
    remote: tuple[ModelDescription, ...],
    model: str | None,
) -> CloudRefused:
    """Return what to raise where the server holds no model like the one of this side."""
    meant = [each for each in remote if each.name == (model or name)] or list(remote)
    differs = difference(terms, meant[0].feed) if len(meant) == 1 and meant[0].feed else ""
    if differs and meant[0].graph_digest != graph_digest:
        return CloudRefused(
            Code.FAILED_PRECONDITION,
            f"both sides must feed {meant[0].name} alike, and the feed differs: {differs}: "
            "give both the same feed flags, the same TOML file, or one partition's folder",
        )
    served = ", ".join(f"{each.name} {each.graph_digest[:12]}" for each in remote) or "nothing"
    alike = any(each.graph_digest == graph_digest for each in remote)
    what = "holds it cut at other places" if alike else f"serves {served}"
    return CloudRefused(
        Code.FAILED_PRECONDITION if alike else Code.NOT_FOUND,
        f"both sides must hold the same model; the edge has {name} {graph_digest[:12]}, and "
        f"the server {what}: serve the same file or folder there",
    )


def deploy(
    source: str,
    endpoint: Endpoint,
    setup: EdgeSetup,
    *,
    feed: Feeding = AS_IT_IS,
    sizes: Spans = (),
    model: str | None = None,
    progress: Progress = no_progress,
    held: EdgeSide | None = None,
    models: tuple[ModelDescription, ...] | None = None,
) -> Deployment:
    """Agree with the server at `endpoint`, compile the edge's segments, and measure them.

    `held` is what the edge began with while the server was away: nothing is made again where
    the server holds that partition. `models` is what the server holds, if it has been asked.
    Raises `CloudUnavailable`, `CloudRefused`, and `ModelError` if the server has no profile to
    plan with.
    """
    models = describe(endpoint) if models is None else models
    if held is not None:
        for each in models:
            if each.partition_digest == held.partition.digest and model in (None, each.name):
                return held.join(with_profile(endpoint, each))
    part, remote = agree(source, models, feed=feed, sizes=sizes, model=model)
    remote = with_profile(endpoint, remote)
    cloud = _profile_of(remote)  # before anything is measured for it
    part = part if setup.inputs is not None else _sized_as(part, cloud)
    return setup.hold(part, model=remote.name, progress=progress).join(remote)


def _sized_as(part: Partition, cloud: Profile) -> Partition:
    """`part`, its figures for the sizes that the server measured where none are told here."""
    if part.feed.sizes or not cloud.sizes:
        return part
    names = set(open_names(part.inputs))
    measured: dict[str, object] = {
        name: [
            dict(bucket.sizes)[name] for bucket in cloud.buckets if name in dict(bucket.sizes)
        ]
        for name, _ in cloud.sizes
        if name in names
    }
    return at_sizes(part, checked_sizes(measured))


def with_profile(endpoint: Endpoint, remote: ModelDescription) -> ModelDescription:
    """`remote` with its profile: servers of many models tell it of one model at a time."""
    return remote if remote.profile else describe(endpoint, model=remote.name)[0]


def _profile_of(remote: ModelDescription) -> Profile:
    if not remote.profile:
        raise ModelError(
            f"planning needs the server's profile of {remote.name}, and it has none: start "
            "it with --runs 10"
        )
    return Profile.from_json(remote.profile, source="the server's profile")


def begin_session(
    side: EdgeSide | Deployment, endpoint: Endpoint, *, patience_s: float = CONNECT_S
) -> EdgeSession:
    """A session that begins edge-only where the edge holds all segments, else cloud-only.

    It waits for the server's first word for `patience_s` at most.
    """
    plan, rest_s = _beginning(side)
    return EdgeSession(
        side.chain,
        endpoint,
        plan=plan,
        model=side.model,
        local_rest_s=rest_s,
        patience_s=patience_s,
    )


def go_over(session: EdgeSession, side: EdgeSide | Deployment) -> None:
    """Have a session that began with another partition or name go over to `side`."""
    plan, rest_s = _beginning(side)
    session.swap(side.chain, plan=plan, model=side.model, local_rest_s=rest_s)


def _beginning(side: EdgeSide | Deployment) -> tuple[tuple[int, str], DeclaredRest]:
    """The plan to begin with, and the seconds of every local rest at any sizes."""
    last = len(side.partition.segments)
    if side.chain.last < last:
        return (0, "raw"), {}
    return (last, "raw"), declared_rest(side.edge, last)


def declared_rest(edge: Profile, last: int) -> DeclaredRest:
    """Seconds of the segments from every k to `last`, by k, as a function of sizes."""
    curve = Curve(edge)

    @functools.lru_cache(maxsize=256)
    def rest_s(sizes: Sizes) -> Mapping[int, float]:
        there = curve.at(sizes)
        return {k: there.segments_s(k, last) for k in range(last)}

    return rest_s
