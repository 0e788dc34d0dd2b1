"""Watching whether a session's partition is still the right one, and having a better one made.

One thread looks at the belief of the link every few seconds. What it decides is `Replanner`'s
and `Watch`'s; making is `preparation.prepare`'s; going over is the caller's `adopt`, who knows
the policies and plans of the application.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, final

from midstream_edge.link.endpoint import Endpoint
from midstream_edge.repartition.prepare import Fresh, ask, prepare
from midstream_edge.session.local_time import quarter_octaves
from midstream_edge.session.threads import start_thread
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Bucket, Profile
from midstream_partitioner.costs.sizes import Sizes, bind_sizes, listed
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import UNCONSTRAINED, Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.planning.replan import (
    Replanner,
    Watch,
    estimated_profile,
    node_seconds,
)
from midstream_partitioner.profiling.codec_ladder import usual_codecs
from midstream_partitioner.profiling.profiler import profile_codecs
from midstream_wire.errors import MidstreamError, PlanError
from midstream_wire.tensors import Array

_LOG = logging.getLogger(__name__)

_Kept = TypeVar("_Kept", Graph, Replanner)

#: From one look to the next: a replanner takes a millisecond, a better partition ten seconds
#: of patience and some of making.
LOOK_S = 2.0

#: Sizes, a quarter of an octave wide, whose graphs and replanners are kept.
MOST_SIZES = 16


@final
@dataclass(frozen=True, slots=True)
class Believed:
    """The present estimate of the link, and of the devices against their profiles.

    `sizes` are those that requests usually have of late; () are the profile's.
    """

    link: Link
    edge_scale: float = 1.0
    cloud_scale: float = 1.0
    sizes: Sizes = ()


@final
@dataclass(frozen=True, slots=True)
class Sides:
    """A partition, and what to expect of it on either side."""

    chain: Chain
    edge: Profile
    cloud: Profile

    @property
    def partition(self) -> Partition:
        return self.chain.partition


class Prepare(Protocol):
    """Makes a partition on both sides, as `preparation.prepare` does."""

    def __call__(
        self,
        base: Partition,
        heads: tuple[tuple[int, ...], ...],
        *,
        like: Chain,
        endpoint: Endpoint | None,
        model: str,
    ) -> Fresh: ...


@final
class Repartitioner:
    """Has a better partition made when there is one; a context manager that stops looking.

    `base` is the partition that the server describes as `model`, with the profiles of both
    sides in `now`; `graph` is its network's, `graph_at` gives it at other sizes of open
    dimensions, which takes as long as loading does, `sample` an input like those that come,
    `codecs` are those that plans may use. `believed` says how things stand (None: nothing is
    known), `adopt` takes the session over to what was made, `stranded` says whether the server
    has forgotten it (as one does that was restarted). All are called on the thread of this.
    """

    def __init__(
        self,
        now: Sides,
        *,
        base: Partition,
        graph: Graph,
        graph_at: Callable[[Sizes], Graph],
        model: str,
        endpoint: Endpoint | None,
        sample: Mapping[str, Array],
        believed: Callable[[], Believed | None],
        adopt: Callable[[Sides], None],
        stranded: Callable[[], bool] = lambda: False,
        codecs: Sequence[str] | None = None,
        constraints: Constraints = UNCONSTRAINED,
        look_s: float = LOOK_S,
        prepare: Prepare = prepare,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._base = base
        self._graph = graph
        self._graph_at = graph_at
        self._graphs: dict[Sizes, Graph] = {}
        self._model = model
        self._endpoint = endpoint
        self._sample = sample
        self._codecs = tuple(map(full_id, usual_codecs() if codecs is None else codecs))
        self._believed = believed
        self._adopt = adopt
        self._stranded = stranded
        self._constraints = constraints
        self._look_s = look_s
        self._prepare = prepare
        self._clock = clock
        self._watch = Watch()
        self._fresh: Fresh | None = None  # its files are read when a transform is first used
        self._replanners: dict[Sizes, Replanner] = {(): self._new_replanner()}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="midstream-repartition", daemon=True
        )
        self.repartitions = 0

    def __enter__(self) -> Repartitioner:
        start_thread(self._thread, "looking for better partitions")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._look_s)  # what is being made is not waited for

    def look(self) -> bool:
        """Look once, and go over if that is worth it; whether the session went over."""
        self._remind()
        believed = self._believed()
        if believed is None:
            return False
        try:
            better = self._replanner(believed.sizes).better(
                believed.link,
                edge_scale=believed.edge_scale,
                cloud_scale=believed.cloud_scale,
            )
        except PlanError:
            return False  # no placement at all keeps to the constraints
        self._watch, go = self._watch.look(self._clock(), better=better is not None)
        if better is None or not go:
            return False
        _LOG.info("a partition that is %.0f %% faster is being made", 100 * better.gain)
        try:
            self._repartition(tuple(cut.runs for cut in better.cuts))
        except MidstreamError as error:
            _LOG.warning("staying with the present partition: %s", error)
            return False
        return True

    def _remind(self) -> None:
        """Have a server that has forgotten the present partition make it again."""
        part = self._now.partition
        if self._endpoint is None or part is self._base or not self._stranded():
            return
        heads = [cut.runs for cut in part.cuts]
        try:
            ask(self._base, heads, endpoint=self._endpoint, model=self._model)
        except MidstreamError as error:
            _LOG.warning("the server does not hold the present partition: %s", error)

    def _repartition(self, heads: tuple[tuple[int, ...], ...]) -> None:
        like = self._now.chain
        fresh = self._prepare(
            self._base, heads, like=like, endpoint=self._endpoint, model=self._model
        )
        made = self._expected(fresh.chain)
        self._adopt(made)
        self._now, self._fresh = made, fresh
        self._replanners = {(): self._new_replanner()}
        self.repartitions += 1

    def _expected(self, chain: Chain) -> Sides:
        """Profiles of a new partition: segments estimated, payloads as they are.

        Times measured now would be those of a device that is busy with requests. Encoding
        runs the segments once, which the first request would otherwise wait for.
        """
        old, part = self._now, chain.partition
        edge, cloud = (
            estimated_profile(self._graph, old.partition, part, profile)
            for profile in (old.edge, old.cloud)
        )
        known = {cost.cut for cost in edge.codecs}
        new = [cut.id for cut in part.cuts if cut.id not in known]
        costs = profile_codecs(chain, [self._sample], codecs=self._codecs, cuts=new)
        here = Bucket(bind_sizes(part.inputs, self._sample), (), tuple(costs), ())
        here = here.slowed(edge.device.slowdown)
        first, *others = (
            replace(
                bucket,
                segments=bucket.segments[: chain.last],
                codecs=(*bucket.codecs, *here.grown(bucket.sizes or here.sizes)),
            )
            for bucket in edge.buckets
        )
        return Sides(chain, edge.holding(first, others), cloud)

    def _replanner(self, sizes: Sizes) -> Replanner:
        """Return the replanner for requests of `sizes`, and of all that are close to them.

        Where the network has no graph at these, the profile's own sizes stand in for them.
        """
        key = quarter_octaves(sizes)
        if key not in self._replanners:
            try:
                self._keep(
                    self._replanners, key, self._new_replanner(self._sized(sizes, key), sizes)
                )
            except MidstreamError as error:
                shown = listed(sizes)
                _LOG.warning(
                    "cuts are judged at the profile's sizes, not %s: %s", shown, error
                )
                self._keep(self._replanners, key, self._replanners[()])
        return self._replanners[key]

    def _sized(self, sizes: Sizes, key: Sizes) -> Graph:
        if key not in self._graphs:
            self._keep(self._graphs, key, self._graph_at(sizes))
        return self._graphs[key]

    @staticmethod
    def _keep(kept: dict[Sizes, _Kept], key: Sizes, value: _Kept) -> None:
        """Hold `value`, and drop the oldest but the profile's own where there are many."""
        kept[key] = value
        if len(kept) > MOST_SIZES:
            del kept[next(each for each in kept if each)]

    def _new_replanner(self, graph: Graph | None = None, sizes: Sizes = ()) -> Replanner:
        """Return the replanner for requests of `sizes`, at which the network has `graph`."""
        now = self._now
        graph = self._graph if graph is None else graph
        edge, cloud = (
            Curve(each).at(sizes or now.edge.sizes) for each in (now.edge, now.cloud)
        )
        found = now.partition.calibration
        # A cut that nothing is known of allows what is allowed without any row.
        blind = None if found is None else found.within(now.partition.digest, ())
        known, elsewhere = (
            _least_nbytes(
                Planner(
                    now.partition,
                    edge,
                    cloud,
                    constraints=self._constraints,
                    calibration=each,
                )
            )
            for each in (found, blind)
        )
        return Replanner(
            graph,
            now.partition,
            edge_s=node_seconds(graph, now.partition, edge),
            cloud_s=node_seconds(graph, now.partition, cloud),
            known_nbytes=known,
            elsewhere_nbytes=elsewhere,
            constraints=self._constraints,
            edge=edge,
        )

    def _run(self) -> None:
        while not self._stop.wait(self._look_s):
            try:
                self.look()
            except Exception:  # requests go on without it, and the next look may succeed
                _LOG.exception("staying with the present partition")


def _least_nbytes(planner: Planner) -> dict[str, float]:
    """The smallest payload that is allowed, by the cut's id."""
    least: dict[str, float] = {}
    for placement in planner.allowed:
        if placement.remote:
            size = float(placement.payload_nbytes)
            least[placement.cut] = min(size, least.get(placement.cut, size))
    return least
