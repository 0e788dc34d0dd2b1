"""What a session gives back: answers, and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from midstream_partitioner.timings import Timings
from midstream_wire.tensors import Array

Where = Literal["cloud", "edge", "edge-after-cloud-failed"]

#: The cloud ran the tail.
CLOUD: Final = "cloud"
#: The plan was edge-only, or there is no cloud.
EDGE: Final = "edge"
#: The edge finished what the cloud did not answer in time.
FALLBACK: Final = "edge-after-cloud-failed"


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """The network's outputs by name, and how they came about.

    `k` segments ran on the edge before the cut, and `payload_nbytes` were encoded by `codec`
    to cross it. `reason` says why the edge finished alone when it did.

    `timings` add up to the time from the start of the head to the answer. Where the cloud
    answered, `uplink_s` is the remainder: it holds waiting for the link, too. Where the edge
    finished after all, `tail_s` is the local run of the rest, `queue_s` all the waiting before
    it, and both links are 0. Edge-only by plan is all `head_s`.
    """

    outputs: dict[str, Array]
    timings: Timings
    where: Where
    reason: str | None
    k: int
    codec: str
    payload_nbytes: int


@final
@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the session began. `uplink_nbytes` and `downlink_nbytes` are payload."""

    requests: int = 0
    cloud: int = 0
    edge: int = 0
    fallback: int = 0
    failed: int = 0
    reconnects: int = 0
    uplink_nbytes: int = 0
    downlink_nbytes: int = 0
