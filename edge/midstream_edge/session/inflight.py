"""A session's record of a request while it is in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import final

from midstream_edge.link.clock_offset import ClockEstimate, CloudTimes, split_timings
from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Evidence
from midstream_edge.session.answers import Answer
from midstream_edge.session.director import Choice
from midstream_edge.session.lifecycle import Lifecycle
from midstream_edge.session.threads import Alarm
from midstream_edge.session.transmission import Transmission
from midstream_partitioner.backends.stopping import Stop
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.costs.timings import Timings
from midstream_wire.tensors import Array


@final
class Job(Lifecycle):
    """A request's life, its tensors and its measurements. Times are of the edge's clock.

    Its stage, `sending` and `alarms` change under the session's lock. Of the rest, whoever
    runs the head writes what comes before sending, and the compute thread `rest_began_s`.
    """

    __slots__ = (
        "alarms",
        "choice",
        "codec",
        "future",
        "k",
        "rest",
        "sending",
        "sizes",
        "state",
        "stop",
        "transform_s",
        "travelling",
    )

    def __init__(
        self,
        id: int,
        inputs: Mapping[str, Array],
        *,
        sizes: Sizes,
        complete: bool,
        deadline_s: float | None,
        rest: Callable[[Job], None],
    ) -> None:
        super().__init__(id, complete=complete, deadline_s=deadline_s)
        self.sizes = sizes  # of the inputs' open dimensions
        self.rest = rest  # runs it from the cut on, on the compute thread
        #: The inputs, then the activation at the cut; kept until the answer, for the rest.
        self.state: Mapping[str, Array] | None = inputs
        self.future: Future[Answer] = Future()
        self.transform_s = 0.0
        self.choice: Choice | None = None
        self.k = 0
        self.codec = ""
        #: What of the state goes out, kept as long: it may have to be sent again. The names
        #: are those of what crosses.
        self.travelling: Mapping[str, Array] | None = None
        self.sending: Transmission | None = None  # the latest
        self.alarms: list[Alarm] = []
        self.stop = Stop()  # told when the answer is there, for a rest that still runs

    def choose(self, choice: Choice) -> None:
        """Do what the director says."""
        self.choice = choice
        self.timeout_s, self.hedge_after_s = choice.timeout_s, choice.hedge_after_s

    @property
    def encode_s(self) -> float:
        """Spent in the transform and in the codec."""
        return self.transform_s + (0.0 if self.sending is None else self.sending.encode_s)

    @property
    def payload_nbytes(self) -> int:
        """Return what left of it, encoded."""
        return 0 if self.sending is None else self.sending.payload_nbytes

    @property
    def reply_nbytes(self) -> int:
        """Return what came back of it, encoded."""
        return 0 if self.sending is None else self.sending.reply_nbytes

    def forget(self) -> None:
        """Let go of its tensors, now that the answer is there."""
        self.state = self.travelling = None
        if self.sending is not None and not self.trial:
            self.sending.unwanted = True

    def busy_s(self, now_s: float) -> float:
        """For how long the edge has computed for this request by `now_s`."""
        rest_s = 0.0 if self.rest_began_s is None else now_s - self.rest_began_s
        return self.head_s + self.encode_s + rest_s

    def tell(self, ended_s: float, transfer: Transfer | None) -> Evidence:
        """Return what a policy may learn from the request, which ended at `ended_s`."""
        assert self.choice is not None
        served = None if self.sending is None else self.sending.served
        return self.evidence(
            ended_s,
            transfer,
            placement=self.choice.placement,
            queue_s=None if served is None else served.queue_s,
            tail_s=None if served is None else served.tail_s,
            sizes=self.sizes,
        )

    def cloud_timings(self, clock: ClockEstimate, answered_s: float) -> Timings:
        """Return where the time went when the cloud has answered."""
        assert self.sending is not None
        served = self.sending.served
        return split_timings(
            clock,
            CloudTimes(served.finished_s, served.queue_s, served.decode_s, served.tail_s),
            head_s=self.head_s,
            encode_s=self.encode_s,
            total_s=answered_s - self.began_s,
            answered_s=answered_s,
        )

    def edge_timings(self, rest_s: float, answered_s: float) -> Timings:
        """Return where the time went when the edge finished alone, the last `rest_s`
        computing.
        """
        waited_s = max(0.0, answered_s - self.began_s - self.head_s - rest_s)
        encode_s = min(self.encode_s, waited_s)
        return Timings(
            head_s=self.head_s,
            encode_s=encode_s,
            queue_s=waited_s - encode_s,
            tail_s=rest_s,
        )
