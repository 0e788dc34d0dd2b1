"""One sending of a request over one stream, and the reply to it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.clock_offset import Exchange
from midstream_edge.link.uplink_backlog import Departure
from midstream_partitioner.codec_spec import parse_codec
from midstream_wire.codecs import Codec, encode
from midstream_wire.codecs.plugins import loaded_codes
from midstream_wire.errors import CloudRefused, DeadlineExceeded
from midstream_wire.frames import (
    Cancel,
    ClientFrame,
    Code,
    More,
    Reply,
    ServerTimings,
    Status,
)
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array, TensorSpec
from midstream_wire.transfers import Incoming, request_frames


@final
class Transmission:
    """One request sent to the cloud under `id`, and its reply. Times are of the edge's clock.

    `id` ascends on each stream, in the order of sending: a request that is sent again has
    another one. The sender's thread writes `encode_s`, `payload_nbytes`, `departures`,
    `sent_s` and what `accounts` keeps here, the reader's the reply.
    """

    __slots__ = (
        "_incoming",
        "_travelling",
        "ahead_nbytes",
        "asked_s",
        "codec",
        "departures",
        "encode_s",
        "id",
        "k",
        "mark_nbytes",
        "message_nbytes",
        "payload_nbytes",
        "reply_nbytes",
        "sent_s",
        "served",
        "stream",
        "unwanted",
        "useful_s",
    )

    def __init__(
        self,
        id: int,
        stream: Stream,
        travelling: Mapping[str, Array],
        *,
        k: int,
        codec: str,
        useful_s: float,
        message_nbytes: int,
    ) -> None:
        self.id = id
        self.stream = stream
        self._travelling: Mapping[str, Array] | None = travelling
        self.k = k
        self.codec = codec
        self.useful_s = useful_s  # until when an answer is welcome
        self.message_nbytes = message_nbytes
        self.asked_s = time.monotonic()
        self.ahead_nbytes = 0  # of requests before, not known to have arrived
        self.mark_nbytes = 0  # handed to the stream so far, this request's included
        self.departures: list[Departure] = []  # of its frames
        self.sent_s: float | None = None  # when the latest one did
        self.unwanted = False  # what is not sent yet need not be
        self.encode_s = 0.0
        self.payload_nbytes = 0
        self.served = ServerTimings()
        self.reply_nbytes = 0
        self._incoming: Incoming | None = None

    def frames(self, slowdown: float) -> Iterator[ClientFrame]:
        """The request's frames, encoded when pulled, until nobody wants them any more."""
        travelling, self._travelling = self._travelling, None
        if travelling is None or self.unwanted:
            return
        transform, kind = parse_codec(self.codec)
        payloads = {
            name: self._encode(kind, array, slowdown) for name, array in travelling.items()
        }
        left_s = self.useful_s - time.monotonic()
        pulled = request_frames(
            self.id,
            self.k,
            payloads,
            budget_s=0.0 if math.isinf(left_s) else max(1e-3, left_s),
            transform=transform,
            message_nbytes=self.message_nbytes,
        )
        del travelling, payloads
        handed_nbytes = 0
        for frame in pulled:
            self.sent_s = time.monotonic()
            self.departures.append(Departure(self.sent_s, handed_nbytes))
            handed_nbytes += sum(len(piece.data) for piece in frame.pieces)
            yield frame
            if self.unwanted:
                # Harmless after the last frame: the server knows which it has answered.
                yield Cancel(self.id)
                return

    def _encode(
        self, kind: Codec, array: Array, slowdown: float
    ) -> Iterator[bytes | memoryview]:
        """Pieces of `array`; encoding takes `slowdown` times as long as it does here."""
        began_s = time.monotonic()  # codecs look at the whole array before the first piece
        pieces = encode(kind, array, codes=loaded_codes())
        while True:
            piece = next(pieces, None)
            if slowdown > 1.0:
                time.sleep((slowdown - 1.0) * (time.monotonic() - began_s))
            self.encode_s += time.monotonic() - began_s
            if piece is None:
                return
            self.payload_nbytes += len(piece)
            yield piece
            began_s = time.monotonic()

    def read(
        self, frame: Reply | More, specs: Iterable[TensorSpec]
    ) -> dict[str, Array] | None:
        """Take in a frame of the reply; all outputs once they are there.

        Raises `DeadlineExceeded` or `CloudRefused` for a status, `ProtocolError` or
        `CodecError` for a reply that is not `specs`.
        """
        if isinstance(frame, Reply):
            _raise_status(frame.status)
            self.served = frame.timings
            self._incoming = Incoming(frame.tensors, specs, max_nbytes=MAX_REQUEST_NBYTES)
        incoming = self._incoming
        if incoming is None:
            return None
        for piece in frame.pieces:
            incoming.feed(piece)
            self.reply_nbytes += len(piece.data)
        return incoming.result() if incoming.done else None

    def give_up(self) -> None:
        """Read no more of the reply."""
        self._incoming = None

    def exchange(self, answered_s: float) -> Exchange | None:
        """The exchange that this was, as far as the clocks are concerned."""
        if self.sent_s is None:
            return None
        return Exchange(
            self.sent_s, self.served.received_s, self.served.finished_s, answered_s
        )


def _raise_status(status: Status) -> None:
    if status.code == Code.DEADLINE_EXCEEDED:
        raise DeadlineExceeded(f"the server gave no answer: {status.message}")
    if not status.ok:
        raise CloudRefused(status.code, f"the server gave no answer: {status.message}")
