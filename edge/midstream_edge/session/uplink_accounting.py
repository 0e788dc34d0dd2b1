"""The books of a session's way up: what requests handed over, and what their journeys tell."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import final

from midstream_edge.link.channel import Stream
from midstream_edge.link.clock_offset import ClockEstimate, Exchange
from midstream_edge.link.observations import Transfer
from midstream_edge.link.uplink_backlog import Uplink, busy_since
from midstream_edge.session.transmission import Transmission
from midstream_wire.frames import ClientFrame, More, Request

#: How far a moment of arrival may be off: the software's share, and where the clocks are not
#: compared, one of the delay.
BLUR_S, BLUR_SHARE = 0.001, 1 / 4


@final
class UplinkAccounts:
    """Books of the present stream, written by the sender's and the reader's thread."""

    def __init__(self) -> None:
        self._line = Uplink()
        self._stream: Stream | None = None
        self._lock = threading.Lock()

    @property
    def backlog_nbytes(self) -> int:
        """Payload that was handed over and is not known to have arrived."""
        return self._line.backlog_nbytes(_acked_nbytes(self._stream))

    @property
    def handed_nbytes(self) -> int:
        """Payload that was handed to the present stream."""
        return self._line.handed_nbytes

    @property
    def missing_nbytes(self) -> int:
        """Payload that has surely not arrived yet."""
        line = self._line
        return line.missing_nbytes(line.handed_nbytes, _acked_nbytes(self._stream))

    def open(self, stream: Stream) -> int:
        """Begin a request on `stream`, with new books if it is new; bytes of a message."""
        with self._lock:
            if stream is not self._stream:
                self._line = Uplink(rate_bps=self._line.rate_bps)
                self._stream = stream
            return self._line.message_nbytes

    def hand(self, sending: Transmission, frame: ClientFrame) -> None:
        """Book what of a request is about to be given to the link."""
        if not isinstance(frame, Request | More):
            return
        acked_nbytes = _acked_nbytes(sending.stream)
        with self._lock:
            if sending.stream is not self._stream:
                return
            if isinstance(frame, Request):
                sending.ahead_nbytes = self._line.backlog_nbytes(acked_nbytes)
            self._line = self._line.hand(sum(len(piece.data) for piece in frame.pieces))
            sending.mark_nbytes = self._line.handed_nbytes

    def close(
        self, sending: Transmission, exchange: Exchange, clock: ClockEstimate
    ) -> Transfer:
        """Book the reply to a request: what it tells of the link, without the encoder."""
        delay_s = 0.0 if clock.best is None else clock.best.delay_s
        served_s = max(0.0, exchange.replied_s - exchange.received_s)
        ended_s = exchange.answered_s - served_s
        gone_s = clock.gone_s(exchange.received_s)
        transfer = _carried(
            sending,
            sending.payload_nbytes,
            until_s=ended_s - delay_s if gone_s is None else gone_s,
            ended_s=ended_s,
            blur_s=BLUR_S + (BLUR_SHARE * delay_s if gone_s is None else 0.0),
        )
        if gone_s is not None:
            up_s = transfer.took_s - (ended_s - gone_s)
            transfer = replace(transfer, up_s=min(max(0.0, up_s), transfer.took_s))
        acked_nbytes = _acked_nbytes(sending.stream)
        with self._lock:
            if sending.stream is self._stream:
                line = self._line.arrive(sending.mark_nbytes, acked_nbytes)
                self._line = line.learn(transfer, delay_s)
        return transfer

    def unfinished(self, sending: Transmission, now_s: float) -> Transfer | None:
        """Return what a request tells that has begun to go out and was not answered by
        `now_s`.
        """
        if not sending.departures:
            return None
        missing_nbytes, line = 0, self._line
        if sending.stream is self._stream:
            missing_nbytes = line.missing_nbytes(
                sending.mark_nbytes, _acked_nbytes(sending.stream)
            )
        gone_nbytes = sending.payload_nbytes - missing_nbytes
        found = _carried(sending, gone_nbytes, until_s=now_s, ended_s=now_s, blur_s=BLUR_S)
        return replace(found, complete=False, reply_nbytes=0)


def _carried(
    sending: Transmission, gone_nbytes: int, *, until_s: float, ended_s: float, blur_s: float
) -> Transfer:
    """The exchange since the link carried the request without a pause, until `ended_s`.

    `gone_nbytes` of its payload had arrived at `until_s`; below zero, what was ahead had not.
    """
    # Behind what was ahead, the request's first frame left when that did.
    first, *later = sending.departures
    ahead_first = replace(first, before_nbytes=-sending.ahead_nbytes)
    since = busy_since([ahead_first, *later], gone_nbytes, until_s=until_s, blur_s=blur_s)
    sent_nbytes = max(0, gone_nbytes - max(0, since.before_nbytes))
    ahead_nbytes = max(0, min(0, gone_nbytes) - min(0, since.before_nbytes))
    return Transfer(
        sent_nbytes,
        sending.reply_nbytes,
        max(0.0, ended_s - since.at_s),
        ahead_nbytes=ahead_nbytes,
    )


def _acked_nbytes(stream: Stream | None) -> int | None:
    """TCP's count of what the server has acknowledged, where the system tells."""
    info = None if stream is None else stream.tcp_info()
    return None if info is None else info.acked_nbytes
