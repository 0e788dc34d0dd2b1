"""What a session remembers of a request while it is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import final

from midstream_edge.answers import Answer
from midstream_edge.channel import Stream
from midstream_edge.clock import ClockEstimate, CloudTimes, Exchange, split_timings
from midstream_edge.pilot import Choice
from midstream_edge.policies.values import Evidence, Transfer
from midstream_edge.requests import Request, Stage
from midstream_partitioner.crossing import parse_codec
from midstream_partitioner.runtime import Stop
from midstream_partitioner.timings import Timings
from midstream_wire import frames
from midstream_wire.codecs import Codec, encode
from midstream_wire.limits import MESSAGE_NBYTES
from midstream_wire.tensors import Array
from midstream_wire.transfers import Incoming, request_frames


@final
class Job:
    """A request's value, its tensors and its measurements. Times are of the edge's clock.

    `request` changes under the session's lock. Of the rest, the compute thread writes what
    comes before sending and `rest_began_s`, the sender `encode_s`, `payload_nbytes`, `left_s`
    and `sent_s`, the reader `incoming` and `served`.
    """

    __slots__ = (
        "ahead_nbytes",
        "asked_s",
        "began_s",
        "choice",
        "codec",
        "deadline_s",
        "encode_s",
        "future",
        "head_s",
        "hedged",
        "incoming",
        "k",
        "late_s",
        "learning",
        "left_s",
        "mark_nbytes",
        "message_nbytes",
        "payload_nbytes",
        "reply_nbytes",
        "request",
        "rest_began_s",
        "sent_s",
        "served",
        "state",
        "stop",
        "stream",
        "travelling",
        "unwanted",
        "useful_s",
    )

    def __init__(
        self, request: Request, inputs: Mapping[str, Array], *, deadline_s: float | None
    ) -> None:
        self.request = request
        #: The inputs, then the activation at the cut; kept until the answer, for the rest.
        self.state: Mapping[str, Array] | None = inputs
        self.future: Future[Answer] = Future()
        self.deadline_s = deadline_s  # a moment, as all of these
        self.began_s = 0.0
        self.head_s = 0.0
        self.choice: Choice | None = None
        self.k = 0
        self.codec = ""
        #: What of the state goes out, once; the names are those of what crosses.
        self.travelling: Mapping[str, Array] | None = None
        self.stream: Stream | None = None
        self.asked_s = 0.0
        self.late_s = 0.0  # from then on nobody waits for the cloud alone
        self.useful_s = 0.0  # until then its answer is welcome all the same
        self.hedged = False  # the edge has begun to run the rest beside
        self.rest_began_s: float | None = None
        self.stop = Stop()  # told when the answer is there, for a rest that still runs
        self.message_nbytes = MESSAGE_NBYTES
        self.ahead_nbytes = 0  # on their way already when the first frame went out
        self.mark_nbytes = 0  # handed to the stream so far, this request's included
        self.left_s: float | None = None  # when the first frame went out
        self.sent_s: float | None = None  # when the latest one did
        self.unwanted = False  # what is not sent yet need not be
        self.learning = False  # the local rest runs to its end, to be measured
        self.encode_s = 0.0
        self.payload_nbytes = 0
        self.incoming: Incoming | None = None
        self.served = frames.ServerTimings()
        self.reply_nbytes = 0

    @property
    def id(self) -> int:
        return self.request.id

    def frames(self, slowdown: float) -> Iterator[frames.ClientFrame]:
        """The request's frames, encoded when pulled, until nobody wants them any more."""
        travelling, self.travelling = self.travelling, None
        if travelling is None or self._is_dropped:
            return
        transform, kind = parse_codec(self.codec)
        payloads = {
            name: self._encode(kind, array, slowdown) for name, array in travelling.items()
        }
        pulled = request_frames(
            self.id,
            self.k,
            payloads,
            budget_s=max(1e-3, self.useful_s - time.monotonic()),
            transform=transform,
            message_nbytes=self.message_nbytes,
        )
        del travelling, payloads
        for frame in pulled:
            self.sent_s = time.monotonic()
            if self.left_s is None:
                self.left_s = self.sent_s
            yield frame
            if self._is_dropped:
                # Harmless after the last frame: the server knows which it has answered.
                yield frames.Cancel(self.id)
                return

    @property
    def _is_dropped(self) -> bool:
        return self.unwanted or self.request.stage is Stage.DONE

    def _encode(
        self, kind: Codec, array: Array, slowdown: float
    ) -> Iterator[bytes | memoryview]:
        """Pieces of `array`; encoding takes `slowdown` times as long as it does here."""
        pieces = encode(kind, array)
        while True:
            began_s = time.monotonic()
            piece = next(pieces, None)
            if slowdown > 1.0:
                time.sleep((slowdown - 1.0) * (time.monotonic() - began_s))
            self.encode_s += time.monotonic() - began_s
            if piece is None:
                return
            self.payload_nbytes += len(piece)
            yield piece

    def exchange(self, answered_s: float) -> Exchange | None:
        """The exchange that the request was, as far as the clocks are concerned."""
        if self.sent_s is None:
            return None
        return Exchange(
            self.sent_s, self.served.received_s, self.served.finished_s, answered_s
        )

    def busy_s(self, now_s: float) -> float:
        """For how long the edge has computed for this request by `now_s`."""
        rest_s = 0.0 if self.rest_began_s is None else now_s - self.rest_began_s
        return self.head_s + self.encode_s + rest_s

    def evidence(self, ended_s: float, transfer: Transfer | None) -> Evidence:
        """What a policy may learn from the request, which ended at `ended_s`."""
        assert self.choice is not None
        replied = transfer is not None and transfer.complete
        return Evidence(
            at_s=ended_s,
            transfer=transfer,
            option=self.choice.option,
            latency_s=ended_s - self.began_s,
            hedged=self.hedged,
            head_s=self.head_s,
            queue_s=self.served.queue_s if replied else None,
            tail_s=self.served.tail_s if replied else None,
        )

    def cloud_timings(self, clock: ClockEstimate, answered_s: float) -> Timings:
        """Where the time went when the cloud has answered."""
        served = self.served
        return split_timings(
            clock,
            CloudTimes(served.finished_s, served.queue_s, served.decode_s, served.tail_s),
            head_s=self.head_s,
            encode_s=self.encode_s,
            total_s=answered_s - self.began_s,
            answered_s=answered_s,
        )

    def edge_timings(self, rest_s: float, answered_s: float) -> Timings:
        """Where the time went when the edge finished alone, the last `rest_s` computing."""
        waited_s = max(0.0, answered_s - self.began_s - self.head_s - rest_s)
        encode_s = min(self.encode_s, waited_s)
        return Timings(
            head_s=self.head_s,
            encode_s=encode_s,
            queue_s=waited_s - encode_s,
            tail_s=rest_s,
        )
