"""Counts of a server's answers and refusals, logged without flooding.

Safe to use from any thread. The first refusal of a kind is logged at once, and at most one
every ten seconds after that, with the number of those that were not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from midstream_wire.errors import CloudRefused, CodecError, ProtocolError, TensorError
from midstream_wire.foreign_text import one_line
from midstream_wire.frames import Code, ServerTimings

_LOG = logging.getLogger(__name__)

#: Seconds from one line of a kind to the next.
LOG_EVERY_S = 10.0

#: Kinds of refusals where the error itself says no more than its status code.
_KINDS: dict[int, str] = {
    Code.INVALID_ARGUMENT: "invalid",
    Code.DEADLINE_EXCEEDED: "late",
    Code.NOT_FOUND: "not found",
    Code.FAILED_PRECONDITION: "failed precondition",
    Code.RESOURCE_EXHAUSTED: "overload",
    Code.UNAVAILABLE: "unavailable",
    Code.INTERNAL: "internal",
}

#: Calls without the token.
UNAUTHENTICATED = "unauthenticated"

#: All kinds of refusals, so that a page shows those that have not come about yet.
KINDS = (
    *_KINDS.values(),
    UNAUTHENTICATED,
    "in flight",
    "memory",
    "queue",
    "stalled",
    "threads",
    "work",
    "other",
)


@final
@dataclass(slots=True)
class _Told:
    """The last line that was logged of a kind."""

    at_s: float
    since: int = 0


@final
class Statistics:
    """Counts of one server, from its start on."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], object] = _LOG.warning,
    ) -> None:
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}
        #: Refusals by kind.
        self.refused: Counter[str] = Counter()
        self.sessions_opened = self.sessions_open = 0
        self.answered = 0
        self.received_nbytes = self.sent_nbytes = 0
        self.queue_s = self.decode_s = self.tail_s = 0.0

    def refuse(self, error: BaseException, peer: str) -> None:
        """Count what a peer was refused, and log it unless one like it was lately."""
        self.refuse_as(kind_of(error), peer, str(error))

    def refuse_as(self, kind: str, peer: str, why: str) -> None:
        """Do the same with a refusal that is no error."""
        now_s = self._clock()
        with self._lock:
            self.refused[kind] += 1
            told = self._told.get(kind)
            if told is not None and now_s - told.at_s < LOG_EVERY_S:
                told.since += 1
                return
            more = told.since if told is not None else 0
            self._told[kind] = _Told(now_s)
        also = f" ({more} more of this kind before)" if more else ""
        self._log(f"refused [{kind}] {one_line(peer, chars=80)}: {one_line(why)}{also}")

    def open_session(self) -> None:
        """Count a session that has begun."""
        with self._lock:
            self.sessions_opened += 1
            self.sessions_open += 1

    def close_session(self) -> None:
        """Count a session that has ended."""
        with self._lock:
            self.sessions_open -= 1

    def answer(self, timings: ServerTimings, received_nbytes: int, sent_nbytes: int) -> None:
        """Count a request that was answered, and the bytes of its payloads both ways."""
        with self._lock:
            self.answered += 1
            self.received_nbytes += received_nbytes
            self.sent_nbytes += sent_nbytes
            self.queue_s += timings.queue_s
            self.decode_s += timings.decode_s
            self.tail_s += timings.tail_s


def kind_of(error: BaseException) -> str:
    """Return the kind of refusal that `error` is: its own, or that of its status."""
    if isinstance(error, CloudRefused):
        return error.kind or _KINDS.get(error.code, KINDS[-1])
    if isinstance(error, ProtocolError | CodecError | TensorError):
        return "invalid"
    return "memory" if isinstance(error, MemoryError) else "internal"
