"""Results of a session: answers, and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from midstream_partitioner.costs.timings import Estimate, Timings
from midstream_wire.tensors import Array

Where = Literal["cloud", "edge", "edge-after-cloud-failed", "edge-before-cloud"]

#: The cloud ran the tail.
CLOUD: Final = "cloud"
#: The plan was edge-only, or there is no cloud.
EDGE: Final = "edge"
#: The edge finished what the cloud did not answer in time.
FALLBACK: Final = "edge-after-cloud-failed"
#: The edge ran the rest beside the cloud, and was first.
AHEAD: Final = "edge-before-cloud"


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """The network's outputs by name, and how they came about.

    `k` segments ran on the edge before the cut called `cut`, and `payload_nbytes` were encoded
    by `codec` to cross it. `reason` says why the edge finished alone when the cloud failed.

    `timings` add up to the time from the start of the head to the answer. Where the cloud
    answered, `uplink_s` is the remainder: it holds waiting for the link, too. Where the edge
    finished after all, `tail_s` is the local run of the rest, `queue_s` all the waiting before
    it, and both links are 0. Edge-only by plan is all `head_s`.

    `hedged` says whether the edge had begun the rest beside the cloud, and `busy_s` for how
    long the edge has computed for this answer, whichever side gave it. `estimate` is what the
    policy predicted of the way chosen and `expected_s` of the time until the answer, a hedge
    counted; None where no policy had chosen.
    """

    outputs: dict[str, Array]
    timings: Timings
    where: Where
    reason: str | None
    k: int
    cut: str
    codec: str
    payload_nbytes: int
    reply_nbytes: int
    hedged: bool
    busy_s: float
    estimate: Estimate | None
    expected_s: float | None


@final
@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the session began. `uplink_nbytes` and `downlink_nbytes` are payload.

    `cloud`, `edge`, `fallback`, `ahead` and `failed` count outcomes, `hedges` how often the
    edge ran the rest beside the cloud, whoever was first. `policy_errors` counts how often a
    policy raised, or answered what cannot be: its last decision stood, or edge-only did.
    """

    requests: int = 0
    cloud: int = 0
    edge: int = 0
    fallback: int = 0
    ahead: int = 0
    hedges: int = 0
    failed: int = 0
    reconnects: int = 0
    uplink_nbytes: int = 0
    downlink_nbytes: int = 0
    policy_errors: int = 0
