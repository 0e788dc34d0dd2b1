"""Having both sides cut their copy of a network anew, while requests go on.

Nothing here touches a session: what comes out is a chain over a partition that the server
holds as well, ready to be swapped in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import final

from midstream_edge.link.channel import fetch_readiness
from midstream_edge.link.endpoint import Endpoint
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.background import TIMEOUT_S, recut_beside
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import Runs, checked_heads
from midstream_partitioner.scratch import Scratch
from midstream_wire.descriptions import Preparation, Readiness
from midstream_wire.errors import DeadlineExceeded, ModelError

#: How long one question to the server may take.
ASK_S = 5.0
#: From one question to the next. Making a partition takes seconds, and asking costs little.
POLL_S = 0.2


@final
@dataclass(frozen=True, slots=True)
class Fresh:
    """A chain over a new partition, and the folder in which its files lie."""

    chain: Chain
    scratch: Scratch | None = field(default=None, repr=False)


def prepare(
    base: Partition,
    heads: Iterable[Runs],
    *,
    like: Chain,
    endpoint: Endpoint | None,
    model: str,
    timeout_s: float = TIMEOUT_S,
) -> Fresh:
    """The network of `base` cut behind `heads`, by the server at `endpoint` and here.

    `base` is the partition that the server describes, under the name `model`. The chain has
    the threads and the speed of `like`, and as much of the network: all segments, or those
    whose weights fit into what `like` holds. Takes seconds and blocks; the work here is done
    in a process of its own, and in compiling, which holds no other thread up. Raises
    `CloudRefused`, `CloudUnavailable`, `ModelError`, `DeadlineExceeded`, `ResourceError`.
    """
    until_s = time.monotonic() + timeout_s
    wanted = checked_heads(base, heads)
    if endpoint is not None:
        question = partial(ask, base, wanted, endpoint=endpoint, model=model)
        question()  # it begins, or refuses
    made = recut_beside(base, wanted, timeout_s=timeout_s)
    part = made.partition
    chain = Chain(part, last=_held(part, like), threads=like.threads, backend=like.backend)
    chain = chain.at_speed(like.slowdown)
    chain.fuse_stable(like.fuses_after)
    if endpoint is not None:
        there = _await(question, endpoint, until_s)
        if there.partition_digest != part.digest:
            raise ModelError(
                f"both sides must make the same partition of {model!r}; here it is "
                f"{part.digest[:12]}, there {there.partition_digest[:12]}: use the same "
                "version of midstream on both sides"
            )
    return Fresh(chain, made.scratch)


def ask(
    base: Partition, heads: Iterable[Runs], *, endpoint: Endpoint, model: str
) -> Readiness:
    """Ask the server at `endpoint` to make it, or how far it is; raises `PeerError`."""
    wanted = checked_heads(base, heads)
    asked = Preparation(model, base.graph_digest, base.digest, wanted)
    return fetch_readiness(endpoint, asked, timeout_s=ASK_S)


def _held(part: Partition, like: Chain) -> int:
    """Return how many segments of `part` an edge holds that now holds what `like` does."""
    count, whole = len(part.segments), len(like.partition.segments)
    if like.last == whole:
        return count
    room_nbytes = like.partition.weight_nbytes(0, like.last)
    fits = [last for last in range(count + 1) if part.weight_nbytes(0, last) <= room_nbytes]
    return max(fits)


def _await(question: Callable[[], Readiness], endpoint: Endpoint, until_s: float) -> Readiness:
    while not (readiness := question()).ready:
        if time.monotonic() > until_s:
            raise DeadlineExceeded(
                f"the server at {endpoint.address} must have the new partition in time, but "
                "is still making it: allow more time"
            )
        time.sleep(POLL_S)
    return readiness
