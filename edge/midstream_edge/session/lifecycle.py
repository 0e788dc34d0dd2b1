"""One request's life: where it stands, until when an answer is of use, and what is due next.

    WAITING --started--> HEAD --crossed--> SENT --replied--> DONE (the cloud's answer)
      |                   |                 |
      |                   |                 +--hedged--> LOCAL --finished--> DONE (the edge's)
      |                   |                 +--failed------^  `--replied---> DONE (the cloud's)
      |                   +--failed------------------------^
      |                   +--finished--> DONE (edge-only by plan)
      +--failed (no room among those under way)------------^

This is the core without threads, clock or sockets that sessions and simulations both drive:
events and moments come in, and what to do comes out. Every moment is of one clock, the
driver's.

A hedge is no failure: the edge runs the rest as well because the cloud may be late. In LOCAL
a request may be sent once more (`RESENT`), beside the local rest, when the link is back. One
that fails while the edge holds only a prefix of the segments goes to DONE with its error.
Whatever arrives in DONE changes nothing, so there is exactly one answer per request: the
thread that is told ANSWER or RAISE delivers it. The cloud may still answer in LOCAL: the first
result wins, and the other side is told to stop.
"""

from __future__ import annotations

import math
from enum import IntEnum, auto
from typing import final

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Evidence
from midstream_edge.session.local_time import give_up_at, left_s
from midstream_partitioner.costs.sizes import Sizes
from midstream_wire.codecs import split_codec

#: A reply counts as late after this many times its predicted latency: a plan for a slow link
#: may rightly take longer than the usual timeout.
PATIENCE = 3.0

#: A cloud whose answer is asked for although it can hardly be in time gets so long.
_LEAST_S = 1e-3


@final
class Stage(IntEnum):
    """The stage of a request. Integers, since simulations look them up by the million."""

    WAITING = auto()
    HEAD = auto()
    SENT = auto()
    LOCAL = auto()
    DONE = auto()


@final
class Event(IntEnum):
    """An event of a request."""

    STARTED = auto()  # its head begins
    CROSSED = auto()  # its head has run and the cloud is there: the activation goes out
    FINISHED = auto()  # all its segments have run on the edge
    REPLIED = auto()  # the cloud's outputs are here, decoded
    HEDGED = auto()  # the cloud may be late: the edge goes on from the cut, too
    FAILED = auto()  # the cloud is away, refuses, or is late
    RESENT = auto()  # the link is back, and faster than the local rest will be
    ABANDONED = auto()  # the session closes, or the edge itself cannot run it


@final
class Action(IntEnum):
    """An action that the driver of a request must take next."""

    NOTHING = auto()
    RUN_HEAD = auto()
    SEND = auto()
    RUN_REST = auto()
    ANSWER = auto()
    RAISE = auto()


_MOVES: dict[tuple[Stage, Event], tuple[Stage, Action]] = {
    (Stage.WAITING, Event.STARTED): (Stage.HEAD, Action.RUN_HEAD),
    (Stage.WAITING, Event.FAILED): (Stage.LOCAL, Action.RUN_REST),
    (Stage.HEAD, Event.CROSSED): (Stage.SENT, Action.SEND),
    (Stage.HEAD, Event.FINISHED): (Stage.DONE, Action.ANSWER),
    (Stage.HEAD, Event.FAILED): (Stage.LOCAL, Action.RUN_REST),
    (Stage.SENT, Event.REPLIED): (Stage.DONE, Action.ANSWER),
    (Stage.SENT, Event.HEDGED): (Stage.LOCAL, Action.RUN_REST),
    (Stage.SENT, Event.FAILED): (Stage.LOCAL, Action.RUN_REST),
    (Stage.LOCAL, Event.RESENT): (Stage.LOCAL, Action.SEND),
    (Stage.LOCAL, Event.FINISHED): (Stage.DONE, Action.ANSWER),
    (Stage.LOCAL, Event.REPLIED): (Stage.DONE, Action.ANSWER),
    (Stage.WAITING, Event.ABANDONED): (Stage.DONE, Action.RAISE),
    (Stage.HEAD, Event.ABANDONED): (Stage.DONE, Action.RAISE),
    (Stage.SENT, Event.ABANDONED): (Stage.DONE, Action.RAISE),
    (Stage.LOCAL, Event.ABANDONED): (Stage.DONE, Action.RAISE),
}


class Lifecycle:
    """One request, for a driver to derive its own from: a session's, or a simulation's.

    `complete` says that this edge can finish alone, `deadline_s` is a moment. The driver sets
    `began_s`, `head_s`, `timeout_s` and `hedge_after_s` as it chooses and computes, and
    `rest_began_s` when the local rest begins. A session advances it under its lock.
    """

    __slots__ = (
        "asked_s",
        "began_s",
        "complete",
        "deadline_s",
        "error",
        "head_s",
        "hedge_after_s",
        "hedge_at_s",
        "hedged",
        "id",
        "late_s",
        "learning",
        "rest_began_s",
        "stage",
        "timeout_s",
        "trial",
        "useful_s",
    )

    def __init__(self, id: int, *, complete: bool, deadline_s: float | None) -> None:
        self.id = id
        self.complete = complete
        self.deadline_s = deadline_s
        self.stage = Stage.WAITING
        #: Why the cloud's answer was given up, or why there is no answer at all.
        self.error: Exception | None = None
        self.began_s = 0.0
        self.head_s = 0.0
        self.timeout_s = math.inf  # that the cloud has from `asked_s` on
        self.hedge_after_s: float | None = None
        self.asked_s = -1.0  # when the activation was ready to leave
        self.useful_s = math.inf  # until then the cloud's answer is welcome
        self.late_s = math.inf  # from then on the cloud alone is not waited for
        self.hedge_at_s = math.inf
        self.hedged = False  # the edge has begun to run the rest beside the cloud
        self.trial = False  # of a silent cloud, which is heard even after the edge's answer
        self.learning = False  # the local rest is run to its end, to be measured
        self.rest_began_s: float | None = None

    def advance(self, event: Event, error: Exception | None = None) -> Action:
        """Take in `event` and return what the driver must do about it.

        FAILED and ABANDONED bring their `error`. An event that has no place in the present
        stage (a second reply, a break after the answer) leaves the request as it is, and so
        does a hedge on an edge that cannot finish.
        """
        found = _MOVES.get((self.stage, event))
        if found is None:
            return Action.NOTHING
        stage, action = found
        if action is Action.RUN_REST:
            hedge = event is Event.HEDGED
            if hedge:
                self.hedge_at_s = math.inf
            if self.complete:
                self.hedged = self.hedged or hedge
            elif hedge:
                return Action.NOTHING
            else:
                stage, action = Stage.DONE, Action.RAISE
        self.stage = stage
        self.error = error or self.error
        return action

    def ask(self, now_s: float) -> bool:
        """Count the cloud's time from now on; True if its answer can still be of use."""
        self.asked_s = now_s
        self.useful_s = now_s + self.timeout_s
        if self.deadline_s is not None:
            self.useful_s = min(self.useful_s, self.deadline_s)
        return now_s < self.useful_s

    def cross(
        self, now_s: float, *, rest_s: float | None, contended: bool, trial: bool = False
    ) -> bool:
        """Decide how long to wait for the cloud, now that the activation is ready to leave.

        `rest_s` is what the edge would take for the rest, None where that is unknown.
        `contended` says that other requests may hold the compute thread up for a head's time.
        A `trial` of a cloud that has not replied lately is hedged from the start.
        Returns False where neither side can be in time any more.
        """
        self.ask(now_s)
        self.late_s = self._give_up_at(rest_s, contended)
        self.trial = trial
        hedge_after_s = 0.0 if self.learning or trial else self.hedge_after_s
        if self.late_s <= now_s:
            # The edge alone would be late: both begin at once, and either may still make it.
            hedge_after_s, self.late_s = 0.0, self.useful_s
        self.hedge_at_s = math.inf if hedge_after_s is None else now_s + hedge_after_s
        return now_s < self.late_s

    def _give_up_at(self, rest_s: float | None, contended: bool) -> float:
        """Return when to stop waiting for the cloud alone."""
        if self.deadline_s is None or not self.complete:
            return self.useful_s
        if rest_s is None:
            self.learning = True
            return max(self.useful_s, self.asked_s + _LEAST_S)
        busy_s = self.head_s if contended else 0.0
        return min(self.useful_s, give_up_at(self.deadline_s, rest_s=rest_s, busy_s=busy_s))

    @property
    def alarm_s(self) -> float:
        """Return when to `ring` next, while the cloud has the request."""
        return min(self.late_s, self.hedge_at_s)

    def ring(self, now_s: float) -> Event | None:
        """Return what is due: FAILED where the cloud is late, HEDGED, or None."""
        if self.stage is not Stage.SENT:
            return None
        if now_s >= self.late_s:
            return Event.FAILED
        return Event.HEDGED if now_s >= self.hedge_at_s else None

    def is_wanted(self, now_s: float) -> bool:
        """Return True if the cloud's answer is still welcome.

        What a deadline makes the edge begin with, the cloud may yet end before it.
        """
        return now_s < self.useful_s

    def rest_left_s(self, rest_s: float, now_s: float) -> float:
        """Seconds that the local rest still takes, where `rest_s` were predicted for it."""
        ran_s = 0.0 if self.rest_began_s is None else now_s - self.rest_began_s
        return left_s(rest_s, ran_s)

    def evidence(
        self,
        ended_s: float,
        transfer: Transfer | None,
        *,
        placement: int | None,
        queue_s: float | None,
        tail_s: float | None,
        sizes: Sizes = (),
    ) -> Evidence:
        """Return what a policy may learn from the request, which ended at `ended_s`.

        The cloud's times count only where its answer came: `transfer` is then complete.
        """
        served = transfer is not None and transfer.complete
        return Evidence(
            ended_s,
            transfer,
            placement,
            ended_s - self.began_s,
            self.hedged,
            self.head_s,
            queue_s if served else None,
            tail_s if served else None,
            sizes=sizes,
        )


def patience_s(timeout_s: float, predicted_s: float) -> float:
    """Seconds that the cloud may take for a request predicted to take `predicted_s`."""
    return max(timeout_s, PATIENCE * predicted_s)


def needs_no_turn(k: int, codec: str) -> bool:
    """Return True if a plan computes nothing before it sends: no head, no transform."""
    return k == 0 and not split_codec(codec)[0]
