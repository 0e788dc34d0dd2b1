"""The books of a session's way up: what requests handed over, and what their journeys tell."""

from __future__ import annotations

import threading
from typing import final

from midstream_edge.channel import Stream
from midstream_edge.clock import Exchange
from midstream_edge.policies.values import Transfer
from midstream_edge.transmission import Transmission
from midstream_edge.uplink import Uplink
from midstream_wire.frames import ClientFrame, More, Request


@final
class Ledger:
    """Books of the present stream, written by the sender's and the reader's thread."""

    def __init__(self) -> None:
        self._line = Uplink()
        self._stream: Stream | None = None
        self._lock = threading.Lock()

    @property
    def backlog_nbytes(self) -> int:
        """Payload that was handed over and is not known to have arrived."""
        return self._line.backlog_nbytes(_acked_nbytes(self._stream))

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

    def close(self, sending: Transmission, exchange: Exchange, delay_s: float) -> Transfer:
        """Book the reply to a request; `delay_s` is that of an empty exchange."""
        assert sending.left_s is not None
        served_s = max(0.0, exchange.replied_s - exchange.received_s)
        transfer = Transfer(
            sending.payload_nbytes,
            sending.reply_nbytes,
            max(0.0, exchange.answered_s - sending.left_s - served_s),
            ahead_nbytes=sending.ahead_nbytes,
        )
        acked_nbytes = _acked_nbytes(sending.stream)
        with self._lock:
            if sending.stream is self._stream:
                line = self._line.arrive(sending.mark_nbytes, acked_nbytes)
                self._line = line.learn(transfer, delay_s)
        return transfer

    def unfinished(self, sending: Transmission, now_s: float) -> Transfer | None:
        """What a request tells that has begun to go out and was not answered by `now_s`."""
        if sending.left_s is None:
            return None
        missing_nbytes, line = 0, self._line
        if sending.stream is self._stream:
            acked_nbytes = _acked_nbytes(sending.stream)
            missing_nbytes = line.missing_nbytes(sending.mark_nbytes, acked_nbytes)
        gone_nbytes = max(0, sending.ahead_nbytes + sending.payload_nbytes - missing_nbytes)
        ahead_nbytes = min(sending.ahead_nbytes, gone_nbytes)
        return Transfer(
            gone_nbytes - ahead_nbytes,
            0,
            now_s - sending.left_s,
            complete=False,
            ahead_nbytes=ahead_nbytes,
        )


def _acked_nbytes(stream: Stream | None) -> int | None:
    """TCP's count of what the server has acknowledged, where the system tells."""
    info = None if stream is None else stream.tcp_info()
    return None if info is None else info.acked_nbytes
