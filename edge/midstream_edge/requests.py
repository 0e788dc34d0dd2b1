"""One request's life, as a value and a table: no threads, no clock, no sockets.

    WAITING --started--> HEAD --crossed--> SENT --replied--> DONE (the cloud's answer)
      |                   |                 |
      |                   |                 +--hedged--> LOCAL --finished--> DONE (the edge's)
      |                   |                 +--failed------^  `--replied---> DONE (the cloud's)
      |                   +--failed------------------------^
      |                   +--finished--> DONE (edge-only by plan)
      +--failed (no room among those under way)------------^

A hedge is no failure: the edge runs the rest as well because the cloud may be late. In LOCAL
a request may be sent once more (`RESENT`), beside the local rest, when the link is back. One
that fails while the edge holds only a prefix of the segments goes to DONE with its
error. Whatever arrives in DONE changes nothing, so there is exactly one answer per request:
who advances it under the session's lock and is told ANSWER or RAISE delivers, nobody else. The
cloud may still answer in LOCAL: the first result wins, and the other side is told to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import final


@final
class Stage(Enum):
    """Where a request stands."""

    WAITING = auto()
    HEAD = auto()
    SENT = auto()
    LOCAL = auto()
    DONE = auto()


@final
class Event(Enum):
    """What can happen to a request."""

    STARTED = auto()  # the compute thread takes it up
    CROSSED = auto()  # its head has run and the cloud is there: the activation goes out
    FINISHED = auto()  # all its segments have run on the edge
    REPLIED = auto()  # the cloud's outputs are here, decoded
    HEDGED = auto()  # the cloud may be late: the edge goes on from the cut, too
    FAILED = auto()  # the cloud is away, refuses, or is late
    RESENT = auto()  # the link is back, and faster than the local rest will be
    ABANDONED = auto()  # the session closes, or the edge itself cannot run it


@final
class Action(Enum):
    """What whoever advanced a request must do next."""

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


@final
@dataclass(frozen=True, slots=True)
class Request:
    """A request's id and stage, why the cloud's answer was given up, and whether this edge can
    finish alone (`complete`: it holds all segments)."""

    id: int
    complete: bool
    stage: Stage = Stage.WAITING
    error: Exception | None = None

    def advance(self, event: Event, error: Exception | None = None) -> tuple[Request, Action]:
        """The request after `event`, and what to do about it.

        FAILED and ABANDONED bring their `error`. An event that has no place in the present
        stage (a second reply, a break after the answer) leaves the request as it is, and so
        does a hedge on an edge that cannot finish.
        """
        stage, action = _MOVES.get((self.stage, event), (self.stage, Action.NOTHING))
        if action is Action.RUN_REST and not self.complete:
            if event is Event.HEDGED:
                return self, Action.NOTHING
            stage, action = Stage.DONE, Action.RAISE
        if action is Action.NOTHING:
            return self, action
        return Request(self.id, self.complete, stage, error or self.error), action
