"""One request while it is simulated."""

from __future__ import annotations

import math
from typing import Protocol, final

from midstream_edge.session.answers import AHEAD, CLOUD, EDGE, FALLBACK
from midstream_edge.session.lifecycle import Lifecycle
from midstream_lab.simulation.model.replica import Replica
from midstream_partitioner.costs.timings import Estimate


class Sender(Protocol):
    """Whose request it is; the cloud's end of it comes back there."""

    index: int

    def reply(self, job: Job) -> None:
        """The cloud has served it."""

    def refuse(self, job: Job) -> None:
        """The cloud cannot serve it."""


@final
class Job(Lifecycle):
    """A request's life, with its moments and sizes; all moments are of the core's clock."""

    __slots__ = (
        "ahead_nbytes",
        "air_s",
        "cancelled_s",
        "due_s",
        "edge",
        "encode_s",
        "epoch",
        "estimate",
        "kind",
        "left_s",
        "payload_nbytes",
        "placement",
        "queued_s",
        "replica",
        "replied_s",
        "reply_air_s",
        "rest_s",
        "sent_s",
        "served_s",
        "service_s",
        "started_s",
        "switched",
        "tail_s",
    )

    def __init__(
        self, edge: Sender, number: int, due_s: float, *, deadline_s: float | None = None
    ) -> None:
        super().__init__(number, complete=True, deadline_s=deadline_s)
        self.edge = edge
        self.due_s = due_s
        self.placement = -1  # none yet
        self.kind = 0
        self.began_s = due_s
        self.encode_s = 0.0
        self.left_s = -1.0
        self.sent_s = -1.0  # when the last byte has arrived at the cloud
        self.ahead_nbytes = 0
        self.air_s = self.reply_air_s = 0.0  # of the payload, of the reply
        self.payload_nbytes = 0
        self.replica: Replica | None = None  # where it waits or runs, or did
        self.queued_s = -1.0
        self.started_s = -1.0
        self.served_s = -1.0
        self.replied_s = -1.0  # when the reply is here
        self.service_s = 0.0
        self.tail_s = 0.0
        self.cancelled_s = math.inf
        self.rest_s = 0.0
        self.switched = False
        self.epoch = 0
        self.estimate: Estimate | None = None

    def note_rest(self, now_s: float) -> None:
        """Count what the processor has spent on its local rest by now."""
        assert self.rest_began_s is not None
        self.rest_s = now_s - self.rest_began_s


#: How a request can end, by the numbers in records.
WHERE = (CLOUD, EDGE, FALLBACK, AHEAD)
BY_CLOUD, BY_EDGE, BY_FALLBACK, BY_AHEAD = range(4)
#: Neither the cloud nor the edge could answer.
FAILED = 4
