"""The interface of policies: frozen values, without a clock or a socket.

A policy is itself a value. `decide` picks one placement of the menu for the next request,
`learn` gives the policy that knows one thing more. Sessions, experiments and simulations run
the same policies through this one interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, final, runtime_checkable

from midstream_edge.link.observations import LinkState, Transfer
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.costs.timings import Estimate


@final
@dataclass(frozen=True, slots=True)
class Situation:
    """The situation as a request's head is about to begin.

    `now_s` is of a monotonic clock, the same as in every `Evidence`. `current` indexes the
    placement of the request before (None at the start). `in_flight` counts other requests
    under way. `deadline_s` is the time left for this one. `link` is the connection's state.
    `waiting` counts requests whose head has not begun, which this one keeps from the edge's
    processor. `backlog_nbytes` were handed to the link before, for requests under way or given
    up, and are not acknowledged yet: they leave first. `sizes` are what the request's inputs
    have where the network leaves dimensions open: `menu.at(sizes)` prices the placements
    there.
    """

    now_s: float
    link: LinkState = "connected"
    current: int | None = None
    in_flight: int = 0
    deadline_s: float | None = None
    waiting: int = 0
    backlog_nbytes: int = 0
    sizes: Sizes = ()


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """A decision on one request: a placement of the menu, and when to hedge it.

    `hedge_after_s` counts from when the activation stands ready to leave: then the edge runs
    the remaining segments as well, and the first result wins. 0.0 races from the start, None
    leaves it to the session's timeout. `estimate` is what the policy expects of the cloud's
    way (for edge-only: of the edge's). `expected_s` is what it expects until the answer,
    whichever side is first; None where that is the estimate's total. Both are for the log.
    """

    placement: int
    hedge_after_s: float | None = None
    estimate: Estimate | None = None
    expected_s: float | None = None


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing learnt at `at_s`, from a request, a part of one, or a probe.

    `placement`, `latency_s` and `hedged` are given when a request has ended: which placement
    of the menu it took, its time from the head's start to the answer, and whether the edge had
    run the rest as well. `head_s`, `queue_s` and `tail_s` are its measured times, where known.
    `link` is given when the connection's state has changed, and is the new one. `sizes` are
    the request's, as in its `Situation`.
    """

    at_s: float
    transfer: Transfer | None = None
    placement: int | None = None
    latency_s: float | None = None
    hedged: bool = False
    head_s: float | None = None
    queue_s: float | None = None
    tail_s: float | None = None
    link: LinkState | None = None
    sizes: Sizes = ()


@runtime_checkable
class Policy(Protocol):
    """Chooses a placement for each request; a value that `learn` makes a new one of."""

    @property
    def name(self) -> str:
        """As on the command line and in results: "adaptive", "race", "fixed:CUT:CODEC"."""

    def decide(self, situation: Situation) -> Decision:
        """The choice for the next request; pure, and within 50 us."""

    def learn(self, evidence: Evidence) -> Self:
        """The policy that knows `evidence` too; evidence comes in the order of `at_s`."""
