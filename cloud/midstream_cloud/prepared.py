"""Partitions of the served models that edges have asked for, made while others are served.

One is made at a time, on a thread of its own: the network is cut in a child process of the
lowest priority, and compiled here from its files, which holds no other thread up. The
partition that a model was served with first is none of these and stays for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import final

from midstream_cloud.models import Model, time_tails
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.background import Prepared, recut_beside
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import Runs, checked_heads
from midstream_wire.allocator import release_freed_memory
from midstream_wire.descriptions import Preparation, Readiness
from midstream_wire.errors import CloudRefused, MidstreamError, ModelError, ResourceError
from midstream_wire.frames import Code

_LOG = logging.getLogger(__name__)

#: How long a partition that no session uses is kept: an edge whose link broke is back sooner,
#: and one that asked for it opens its session within a round trip.
LINGER_S = 60.0

Heads = tuple[tuple[int, ...], ...]
Cut = Callable[[Partition, Iterable[Runs]], Prepared]


@final
@dataclass(slots=True)
class _Entry:
    """A partition on its way, then ready; or the reason why it cannot be."""

    base: Model
    heads: Heads
    used_s: float
    sessions: int = 0
    model: Model | None = None
    error: CloudRefused | None = None

    @property
    def making(self) -> bool:
        return self.model is None and self.error is None


@final
class PreparedPartitions:
    """At most `per_model` further partitions of each model; the idle longest goes first.

    Methods may be called from any thread, and none of them waits for a partition.
    """

    def __init__(
        self,
        per_model: int,
        *,
        linger_s: float = LINGER_S,
        cut: Cut = recut_beside,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_model = per_model
        self._linger_s = linger_s
        self._cut = cut
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._prepared: list[_Entry] = []
        self._wanted: SimpleQueue[_Entry | None] | None = None  # the thread's, if there is one

    def prepare(self, base: Model, asked: Preparation) -> Readiness:
        """Begin to make what is `asked` of `base`, or say how far it is.

        Raises `CloudRefused`: not allowed here, of another partition, no cuts of the network,
        or all places taken.
        """
        heads = self._check(base, asked)
        if heads == tuple(cut.runs for cut in base.partition.cuts[1:-1]):
            return Readiness(True, base.partition.digest)
        with self._lock:
            found = next((e for e in self._of(base) if e.heads == heads), None)
            if found is None:
                self._make_room(base)
                found = _Entry(base, heads, self._clock())
                self._begin(found)
                self._prepared.append(found)
            found.used_s = self._clock()
            if found.error is not None:
                self._prepared.remove(found)
                raise found.error
            if found.model is None:
                return Readiness(False)
            return Readiness(True, found.model.partition.digest)

    def find(self, name: str, digest: str) -> Model | None:
        """Return the partition of `name` with this digest, if it is ready."""
        with self._lock:
            for entry in self._prepared:
                model = entry.model
                if model and (model.name, model.partition.digest) == (name, digest):
                    entry.used_s = self._clock()
                    return model
        return None

    def enter(self, model: Model) -> None:
        """Count a session of `model` that begins."""
        self._count(model, 1)

    def leave(self, model: Model) -> None:
        """Count a session of `model` that has ended."""
        self._count(model, -1)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is being made; whether that came about in time."""
        with self._lock:
            return self._changed.wait_for(
                lambda: not any(entry.making for entry in self._prepared), timeout_s
            )

    def close(self) -> None:
        """End the thread once it has made what it is at."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.put(None)

    def _check(self, base: Model, asked: Preparation) -> Heads:
        if self._per_model < 1:
            raise CloudRefused(
                Code.FAILED_PRECONDITION,
                "a server cuts a model anew only where its operator allows it, and this one "
                "does not: start it with --repartition 2",
            )
        held = base.partition
        if (asked.graph_digest, asked.partition_digest) != (held.graph_digest, held.digest):
            raise CloudRefused(
                Code.FAILED_PRECONDITION,
                f"both sides must cut the same partition of {base.name!r} anew: here it is "
                f"{held.digest[:12]}, there {asked.partition_digest[:12]!r}: begin with what "
                "Describe says",
            )
        try:
            return checked_heads(held, asked.heads)
        except ModelError as error:
            raise _refusal(error) from None

    def _of(self, base: Model) -> list[_Entry]:
        return [entry for entry in self._prepared if entry.base is base]

    def _make_room(self, base: Model) -> None:
        """Leave a place for one more. The caller holds the lock."""
        if any(entry.making for entry in self._prepared):
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                "a server makes one partition at a time, and is at one: ask again later",
            )
        idle = sorted(
            (entry for entry in self._of(base) if not entry.sessions), key=lambda e: e.used_s
        )
        for entry in idle[: max(0, len(self._of(base)) + 1 - self._per_model)]:
            self._prepared.remove(entry)
        if len(self._of(base)) >= self._per_model:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"at most {self._per_model} partitions of {base.name!r} may be held beside "
                "the first, and sessions use them all: ask again later",
            )

    def _begin(self, entry: _Entry) -> None:
        if self._wanted is None:
            wanted: SimpleQueue[_Entry | None] = SimpleQueue()
            maker = threading.Thread(
                target=self._work, args=(wanted,), name="midstream-prepare", daemon=True
            )
            try:
                maker.start()
            except (RuntimeError, MemoryError) as error:
                raise CloudRefused(
                    Code.RESOURCE_EXHAUSTED,
                    f"a server makes a partition on a thread of its own, and has none to give "
                    f"({error}): ask again later",
                ) from None
            self._wanted = wanted
        self._wanted.put(entry)

    def _count(self, model: Model, change: int) -> None:
        with self._lock:
            for entry in self._prepared:
                if entry.model is model:
                    entry.sessions += change
                    entry.used_s = self._clock()

    # The thread that makes them, and lets those go that nobody uses.

    def _work(self, wanted: SimpleQueue[_Entry | None]) -> None:
        while True:
            try:
                entry = wanted.get(timeout=self._linger_s / 4)
            except Empty:
                self._let_go()
                continue
            if entry is None:
                return
            self._make(entry)
            del entry  # waiting for the next one must not keep this one alive
            self._let_go()
            release_freed_memory()

    def _make(self, entry: _Entry) -> None:
        began_s = self._clock()
        try:
            model = compile_model(entry.base, self._cut(entry.base.partition, entry.heads))
        except (
            Exception
        ) as error:  # whatever it is: those who ask must know, and may ask again
            unexpected = not isinstance(error, MidstreamError)
            _LOG.warning(
                "%s was not cut anew: %s", entry.base.name, error, exc_info=unexpected
            )
            with self._lock:
                entry.error = _refusal(error)
                self._changed.notify_all()
            return
        took_s = self._clock() - began_s
        digest = model.partition.digest[:12]
        _LOG.info("%s cut anew as %s in %.1f s", entry.base.name, digest, took_s)
        with self._lock:
            entry.model = model
            entry.used_s = self._clock()
            self._changed.notify_all()

    def _let_go(self) -> None:
        """Drop what nobody has used for a while."""
        with self._lock:
            since_s = self._clock() - self._linger_s
            kept = [e for e in self._prepared if e.making or e.sessions or e.used_s > since_s]
            dropped, self._prepared = len(self._prepared) - len(kept), kept
        if dropped:
            release_freed_memory()


def compile_model(base: Model, prepared: Prepared) -> Model:
    """`prepared` ready to run as `base` does: compiled, and run once."""
    part = prepared.partition
    chain = Chain(part, threads=base.chain.threads, backend=base.chain.backend)
    for k in range(len(part.cuts)):
        for name in part.transforms_at(k):
            chain.transform(k, name).compile_decoders()
    chain = chain.at_speed(base.chain.slowdown)
    timed = time_tails(chain)  # which warms it up as well
    chain.fuse_stable(base.chain.fuses_after)
    return replace(
        base,
        partition=part,
        chain=chain,
        profile=None,
        timed=timed,
        scratch=prepared.scratch,
    )


def _refusal(error: Exception) -> CloudRefused:
    """Return what an edge is told; only what the edge itself asked wrongly is final."""
    if isinstance(error, ResourceError | OSError | MemoryError):
        told = str(error) or type(error).__name__
        return CloudRefused(
            Code.RESOURCE_EXHAUSTED, f"the partition asked for cannot be made now: {told}"
        )
    if isinstance(error, MidstreamError):
        return CloudRefused(
            Code.INVALID_ARGUMENT, f"the partition asked for cannot be: {error}"
        )
    return CloudRefused(
        Code.INTERNAL, "the cloud failed to make the partition asked for: see its log"
    )
