"""A request while its pieces come: what it holds, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_cloud.budget import Claim
from midstream_wire.frames import Code, Piece, Status
from midstream_wire.limits import KIB
from midstream_wire.transfers import Incoming

#: So much of a request that is not complete yet is worth a thread's time: large ones are
#: decoded while they arrive.
_AHEAD_NBYTES = 256 * KIB

#: Bytes per second of a request that is to hold memory until it is complete; a link of
#: 0.5 Mbit/s carries sixty times as many.
_LEAST_RATE = KIB


@final
@dataclass(slots=True)
class Arriving:
    """A request that is not complete yet.

    `growth` is how many times larger its transform's inverse makes what comes. Its next piece
    is due `until_s`, which is at most `stall_s` away. `fed_nbytes` have come.
    """

    first_segment: int
    transform: str
    incoming: Incoming
    deadline_s: float | None
    claim: Claim
    growth: float
    stall_s: float
    until_s: float
    fed_nbytes: int = 0
    _timed_nbytes: int = 0  # that were given time
    _asked_nbytes: int = 0  # that somebody was asked to decode

    def feed(self, pieces: tuple[Piece, ...]) -> None:
        """Take pieces in, and claim what they hold before any of it is allocated."""
        for piece in pieces:
            self.incoming.feed(piece)
            self.fed_nbytes += len(piece.data)
        decoded_nbytes = int(self.incoming.nbytes * self.growth)
        self.claim.hold(self.incoming.waiting_nbytes + decoded_nbytes)

    def go_on(self, now_s: float) -> bool:
        """Wait for more, as long as what came allows; whether it is enough to decode ahead."""
        more_s = (self.fed_nbytes - self._timed_nbytes) / _LEAST_RATE
        self._timed_nbytes = self.fed_nbytes
        self.until_s = min(now_s + self.stall_s, self.until_s + more_s)
        ahead = self.fed_nbytes - self._asked_nbytes >= _AHEAD_NBYTES
        if ahead:
            self._asked_nbytes = self.fed_nbytes
        return ahead

    def is_overdue(self, now_s: float) -> bool:
        """Return True if it has had its time, or nobody waits for it any more."""
        return now_s > self.until_s or (
            self.deadline_s is not None and now_s > self.deadline_s
        )

    def overdue_status(self) -> Status:
        """Return what its peer is told then."""
        return Status(
            Code.DEADLINE_EXCEEDED,
            f"a request's pieces must come within {self.stall_s:g} s of each other and at "
            f"{_LEAST_RATE} bytes a second, and within its own time ({self.fed_nbytes} bytes "
            "came): send it again",
        )

    def drop(self) -> None:
        """Forget what came."""
        self.incoming.drop()
        self.claim.release()
