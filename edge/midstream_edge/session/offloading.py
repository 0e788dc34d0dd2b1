"""The cloud's part of requests: what crosses goes out, and replies come back.

`Offloading._send` is the only place from which a request goes out. It takes the id of a
transmission and queues it on the stream under the table's lock, on whichever thread: the
compute thread, a caller's, or the link's after an outage. So ids ascend on every stream, as
the wire demands: a server refuses an id that is not above the last one. `_transform` runs
before, without the lock.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Iterator
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.connection import Connection
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.observations import LinkState, Transfer
from midstream_edge.session.answers import CLOUD
from midstream_edge.session.breaker import CLOSED
from midstream_edge.session.inflight import Job
from midstream_edge.session.inflight_table import InFlightTable, weakly
from midstream_edge.session.lifecycle import Action, Event, Stage, needs_no_turn
from midstream_edge.session.local_time import Again, smooth
from midstream_edge.session.outcomes import late, outcome_of, unanswered
from midstream_edge.session.transmission import Transmission
from midstream_edge.session.uplink_accounting import UplinkAccounts
from midstream_partitioner.codec_spec import family_of, is_private
from midstream_partitioner.costs.sizes import Binder, Sizes
from midstream_partitioner.costs.timings import Timings
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import transform_crossing
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import split_codec
from midstream_wire.errors import MidstreamError, PeerError
from midstream_wire.frames import Cancel, ClientFrame, Hello, More, Reply
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array, TensorSpec
from midstream_wire.transfers import check_carried

_LOG = logging.getLogger(__name__)

#: Placements and sizes whose outputs' shapes are remembered.
_MOST_SHAPES = 64


@final
class Offloading:
    """Sends the requests of `table` to the cloud and takes its replies.

    `connection` is None for an edge on its own.
    """

    def __init__(self, chain: Chain, table: InFlightTable) -> None:
        self.connection: Connection | None = None
        self._chain = chain
        self._outputs = functools.lru_cache(_MOST_SHAPES)(
            functools.partial(_outputs, chain.partition, Binder(chain.partition.inputs))
        )
        self._table = table
        self._accounts = UplinkAccounts()
        self._breaker = CLOSED
        self._rises = 0  # of the link, when the breaker was asked last
        self._refusal = ""  # what the server said last of a codec that it does not take
        self._cloud_s: dict[tuple[int, str], float] = {}  # from sending to the reply, by plan

    def connect(
        self, endpoint: Endpoint, hello: Hello, *, beside: Stream | None = None
    ) -> Connection:
        """Begin to use a server, over the channel of `beside` while that stands."""
        self.connection = Connection(
            endpoint,
            hello,
            on_frame=weakly(self._receive),
            on_down=weakly(self._fail_all),
            on_up=weakly(self._send_again),
            beside=beside,
        )
        return self.connection

    @property
    def link_state(self) -> LinkState:
        """State of the link; down without a server."""
        return "down" if self.connection is None else self.connection.state

    @property
    def backlog_nbytes(self) -> int:
        """Payload that was handed to the link and is not known to have arrived."""
        return self._accounts.backlog_nbytes

    @property
    def missing_nbytes(self) -> int:
        """Payload that was handed to the link and has surely not arrived."""
        return self._accounts.missing_nbytes

    @property
    def handed_nbytes(self) -> int:
        """Payload that requests have given to the present stream so far."""
        return self._accounts.handed_nbytes

    def unfinished(self, job: Job, now_s: float) -> Transfer | None:
        """Return what a request that was not answered by `now_s` tells of the link."""
        return None if job.sending is None else self._accounts.unfinished(job.sending, now_s)

    # Whoever ran the head.

    def cross(self, job: Job) -> None:
        """Hand the activation over to the cloud, or straight to the local rest."""
        connection, table = self.connection, self._table
        assert connection is not None
        self._notice_link(connection)
        now_s, rest_s = time.monotonic(), table.pace.rest_s(job.k, job.sizes)
        trial = self._breaker.is_open and table.complete
        if not job.cross(now_s, rest_s=rest_s, contended=len(table) > 1, trial=trial):
            table.move(job, Event.FAILED, late("the head has run too late for it"))
            return
        stream = connection.stream
        if stream is None:
            table.move(job, Event.FAILED, connection.error)
            if connection.stream is not None:  # it has come back this very moment
                self._send_again()
            return
        if table.complete and not self._breaker.allows(job.asked_s):
            table.move(job, Event.FAILED, unanswered(self._breaker.asks_at_s - job.asked_s))
            return
        self._transform(job)
        if not self._send(job, stream, Event.CROSSED):
            return
        with table.lock:
            self._breaker = self._breaker.ask(job.asked_s, random.random())
        if connection.stream is not stream:
            # It may have broken before the request counted as sent, and nobody would know.
            table.move(job, Event.FAILED, connection.error)
        elif job.alarm_s <= job.asked_s:  # a hedge at once, which needs no other thread
            self._ring(job.id)
        else:
            table.set_alarm(job, job.alarm_s, self._ring)

    def _notice_link(self, connection: Connection) -> None:
        """Close the breaker after the link has come back: what was silent was the link."""
        if connection.rises != self._rises:
            with self._table.lock:
                self._rises, self._breaker = connection.rises, CLOSED

    # The alarms' thread.

    def _ring(self, id: int) -> None:
        """The cloud is late with a request, or may be."""
        job, now_s = self._table.find(id, Stage.SENT), time.monotonic()
        event = None if job is None else job.ring(now_s)
        if job is None or job.sending is None:
            return
        if event is Event.FAILED:
            assert self.connection is not None
            self.connection.doubt(job.asked_s)
            if not job.is_wanted(now_s):  # a deadline alone says nothing of the cloud
                with self._table.lock:
                    self._breaker = self._breaker.fail(now_s, random.random())
            job.sending.unwanted = not job.is_wanted(now_s)
            waited_s = now_s - job.asked_s
            self._table.move(job, event, late(f"nothing came in {waited_s:.3g} s"))
        elif event is not None:
            self._table.move(job, event)
        if job.stage is Stage.SENT:
            self._table.set_alarm(job, job.alarm_s, self._ring)

    # The link's threads.

    def _fail_all(self, stream: Stream, error: PeerError) -> None:
        for job in self._table.at(Stage.SENT):
            if job.sending is not None and job.sending.stream is stream:
                self._table.move(job, Event.FAILED, error)

    def _send_again(self) -> None:
        """The link is back: what failed on it goes out again where that is sooner."""
        connection = self.connection
        stream = None if connection is None else connection.stream
        if stream is None:
            return
        now_s, again = time.monotonic(), Again()
        for job in self._table.at(Stage.LOCAL):
            rest_s, cloud_s = self._table.rest_s(job, now_s), self._cloud_s.get(_plan(job))
            try:
                ready = again.is_sooner(rest_s, cloud_s)
                ready = ready and self._prepare_again(job, stream, now_s)
            except MidstreamError:  # more than the server carries: it goes on here
                ready = False
            if ready and self._send(job, stream, Event.RESENT):
                again.note_sent()

    def _prepare_again(self, job: Job, stream: Stream, now_s: float) -> bool:
        """Return True if a request may go out on `stream`, where it was not before."""
        sending, state = job.sending, job.state
        if state is None or job.choice is None or (sending and sending.stream is stream):
            return False
        if job.travelling is None:
            if not needs_no_turn(0, job.codec):  # a transform would take the processor
                return False
            self._transform(job)
        return job.ask(now_s)

    def _receive(self, stream: Stream, frame: Reply | More) -> None:
        if self._breaker is not CLOSED:
            with self._table.lock:
                self._breaker = self._breaker.hear()
        found = self._table.find_sent(frame.id)
        if found is None or found[1].stream is not stream:
            return  # answered already: on the edge, or cancelled
        job, sending = found
        try:
            outputs = sending.read(frame, self._outputs(sending.k, job.sizes))
            if outputs is not None:
                self._take_reply(job, sending, outputs)
        except BaseException as error:
            sending.give_up()
            self._table.move(job, Event.FAILED, outcome_of(error))

    def _take_reply(self, job: Job, sending: Transmission, outputs: dict[str, Array]) -> None:
        answered_s = time.monotonic()
        connection, state = self.connection, job.state
        assert connection is not None
        exchange = sending.exchange(answered_s)
        if exchange is not None:
            connection.observe(sending.stream, exchange)
        if self._table.move(job, Event.REPLIED) is not Action.ANSWER:
            return
        job.stop.tell()

        def told() -> tuple[Transfer | None, Timings]:
            plan, took_s = _plan(job), answered_s - sending.asked_s
            self._cloud_s[plan] = smooth(self._cloud_s.get(plan), took_s)
            transfer = exchange and self._accounts.close(sending, exchange, connection.clock)
            return transfer, job.cloud_timings(connection.clock, answered_s)

        self._table.answer(job, {**(state or {}), **outputs}, CLOUD, answered_s, told)

    # Whoever sends, and the sender's thread.

    def _transform(self, job: Job) -> None:
        """Compute what travels of the activation, which itself is kept for the local rest."""
        assert job.state is not None
        began_s = time.monotonic()
        codec, travelling = transform_crossing(self._chain, job.k, job.codec, job.state)
        check_carried(travelling, max_nbytes=self._most_nbytes())
        job.codec, job.travelling = codec, travelling
        job.transform_s = time.monotonic() - began_s

    def _most_nbytes(self) -> int:
        """Return what the tensors of one request may take, as the server or the protocol
        says.
        """
        welcome = None if self.connection is None else self.connection.welcome
        allowed = welcome.max_request_nbytes if welcome else 0
        return min(MAX_REQUEST_NBYTES, allowed) if allowed else MAX_REQUEST_NBYTES

    def _send(self, job: Job, stream: Stream, event: Event) -> bool:
        """Queue what travels on `stream`, if the request can still make use of it."""
        codec = self._agreed(job.codec)
        with self._table.lock:  # so that ids ascend on the stream (see the module)
            travelling = job.travelling
            if travelling is None or self._table.move(job, event) is not Action.SEND:
                return False
            job.codec = codec
            sending = Transmission(
                next(self._table.ids),
                stream,
                travelling,
                k=job.k,
                codec=job.codec,
                useful_s=job.useful_s,
                message_nbytes=self._accounts.open(stream),
            )
            self._table.note_sending(job, sending)
            stream.send(self._frames(job, sending))
            return True

    def _agreed(self, codec: str) -> str:
        """Return `codec`, or "lossless" in its place where the server does not take it.

        Plans leave such codecs out; this is for a server that has started again without one.
        """
        if not is_private(codec):
            return codec
        welcome = None if self.connection is None else self.connection.welcome
        refusal = "" if welcome is None else welcome.refusal_of(family_of(codec))
        if refusal and refusal != self._refusal:
            self._refusal = refusal
            _LOG.warning("lossless is sent in place of %s: %s", codec, refusal)
        transform = split_codec(codec)[0]
        spared = f"{transform}+lossless" if transform else "lossless"
        return spared if refusal else codec

    def _frames(self, job: Job, sending: Transmission) -> Iterator[ClientFrame]:
        """The request's frames; what goes wrong in encoding fails the request alone."""
        try:
            for frame in sending.frames(self._chain.slowdown):
                self._accounts.hand(sending, frame)
                yield frame
        except GeneratorExit:  # the stream has ended, and tells of it itself
            raise
        except BaseException as error:
            yield Cancel(sending.id)
            if job.sending is sending:
                self._table.move(job, Event.FAILED, outcome_of(error))


def _outputs(part: Partition, binder: Binder, k: int, sizes: Sizes) -> tuple[TensorSpec, ...]:
    """Return what a reply to a request of `sizes` carries: its dimensions are those of the
    inputs.
    """
    return binder.tie(part.outputs_from(k), sizes)


def _plan(job: Job) -> tuple[int, str]:
    return job.k, job.codec
