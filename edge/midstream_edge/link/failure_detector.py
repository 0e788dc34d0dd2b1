"""Detection of a suspect link, and the pace of fresh channels: values, without a clock.

    connected --overdue--> suspect --given up, ended--> down
        ^                     |                          |
        |<--alive, welcomed---+          welcomed--------+
        +-------------------------------------------------

Two clocks run on a stream. That of acknowledgements runs while TCP has something outstanding:
it needs nothing from the server's program and finds a cut within `ACK_S`. That of pongs runs
while a ping is unanswered; it finds what TCP cannot see, a proxy or a load balancer that goes
on acknowledging for a far side that is gone, and a server that hangs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import final

from midstream_edge.link.observations import LinkState
from midstream_edge.link.tcp_info import TcpInfo

#: A suspected stream that stays silent this long is given up. Longer than a round trip over a
#: satellite behind half a second of queue.
SUSPECT_S = 3.0

#: How often a stream is looked at, while it is used: a break is found so much later.
LOOK_S = 0.05

#: A connection counts as used for so long after each request.
USED_S = 5.0

#: Nothing heard for this long makes a ping of our own due, while the connection is used. While
#: it is not, the server says how long.
PING_S = 0.5

#: No byte acknowledged for this long, or for srtt + 4 rttvar where that is longer (RFC 6298's
#: timeout without its floor of a second), is suspect. One lost packet at the end of a message
#: is repaired within 0.2 s and a round trip.
ACK_S = 0.3
#: The same while the receiver's window is closed: it lives and has no room. A proxy opens its
#: window in steps of half its buffer, 32 KiB: 0.5 s at 0.5 Mbit/s.
WINDOW_S = 1.0
#: A pong later than this, or than four round trips, is suspect: the server's program may be
#: busy where its kernel is not.
PONG_S = 0.5
#: A false alarm of these two doubles both patiences, up to this; timely pongs bring them back.
MOST_LENIENT = 6.0
#: What gRPC itself may hold in front of a ping.
GRPC_NBYTES = 64 * 1024

#: Seconds from one fresh channel to the next while they fail at once; the last one goes on.
SPACINGS_S = (0.1, 0.2, 0.3)
#: The same while one may still be on its way: over a satellite, TCP, TLS and the welcome take
#: four round trips, 2.4 s. It may also be lost, or the server's address have changed.
PENDING_SPACING_S = 1.0
#: Seconds from one handshake to the next.
HANDSHAKE_S = 0.1
#: In long outages, both grow to this share of what has passed, and at most to these: a channel
#: costs 5 to 10 ms, a handshake 50 us and 60 bytes. A server that comes up is used a
#: second later.
SHARE, MOST_S, MOST_HANDSHAKE_S = 1 / 40, 2.0, 0.5


@final
class LinkEvent(Enum):
    """An event of a link."""

    OVERDUE = auto()  # nothing came when something was due
    ALIVE = auto()  # the suspected stream has spoken
    WELCOMED = auto()  # a fresh stream stands
    GIVEN_UP = auto()  # the suspected stream was silent for too long
    ENDED = auto()  # the stream is over, or takes no new requests


_MOVES: dict[tuple[LinkState, LinkEvent], LinkState] = {
    ("connected", LinkEvent.OVERDUE): "suspect",
    ("connected", LinkEvent.ENDED): "down",
    ("suspect", LinkEvent.ALIVE): "connected",
    ("suspect", LinkEvent.WELCOMED): "connected",
    ("suspect", LinkEvent.GIVEN_UP): "down",
    ("suspect", LinkEvent.ENDED): "down",
    ("down", LinkEvent.WELCOMED): "connected",
}


def move(state: LinkState, event: LinkEvent) -> LinkState:
    """Return the state after `event`; what has no place in `state` leaves it as it is."""
    return _MOVES.get((state, event), state)


def judge(state: LinkState, overdue_since_s: float, now_s: float) -> LinkEvent | None:
    """Return the event that a look at a link in `state` finds; None: it stays as it is.

    `overdue_since_s` is when what is overdue became so; infinite if nothing is.
    """
    if overdue_since_s == math.inf:
        return LinkEvent.ALIVE if state == "suspect" else None
    if state == "connected":
        return LinkEvent.OVERDUE
    given_up = state == "suspect" and now_s >= overdue_since_s + SUSPECT_S
    return LinkEvent.GIVEN_UP if given_up else None


def ack_patience_s(rto_s: float) -> float:
    """Return how long acknowledgements that are due may stay away before the link is suspect.

    `rto_s` is TCP's own estimate, srtt + 4 rttvar, in seconds.
    """
    return max(ACK_S, rto_s)


def moves(still_s: float) -> bool:
    """Return True if a link on which nothing was acknowledged for `still_s` still counts as
    moving: an answer that is overdue then means that it is slow, and not dead.
    """
    return still_s <= ACK_S / 2


def spacing_s(tries: int, *, outage_s: float, pending: bool) -> float:
    """Seconds from the fresh channel number `tries` (from 1) of an outage to the next one.

    `pending`: one may still be on its way.
    """
    least_s = PENDING_SPACING_S if pending else SPACINGS_S[min(tries, len(SPACINGS_S)) - 1]
    return max(least_s, min(MOST_S, SHARE * outage_s))


def handshake_spacing_s(outage_s: float) -> float:
    """Seconds from one handshake to the next, so long after the link was lost."""
    return max(HANDSHAKE_S, min(MOST_HANDSHAKE_S, SHARE * outage_s))


@final
@dataclass(frozen=True, slots=True)
class Observations:
    """Observations of a stream at one look.

    `heard_s` is when the last frame came, `asked_s` when the oldest unanswered ping left, and
    `rtt_s` the round trip as pings see it. `tcp` is None where the system does not tell.
    """

    now_s: float
    heard_s: float
    asked_s: float | None = None
    rtt_s: float = 0.0
    tcp: TcpInfo | None = None


@final
class Overdue(Enum):
    """The kind of message that is overdue."""

    ACK = "acknowledged"
    WINDOW = "taken"
    PONG = "answered"
    ANSWER = "answered in time"


@final
@dataclass(frozen=True, slots=True)
class FailureDetector:
    """The state of one stream's detector; call `look` every 50 ms or so while it is used.

    `moved_s`: when an acknowledgement last came, or nothing was to be acknowledged. `life_s`:
    when anything last came for sure. `due_s`: since when a pong is due, once its ping has
    arrived; until then `mark_nbytes` is the count of acknowledged bytes at which it will have.
    `overdue`, since `overdue_s`, makes the stream suspect; infinite while nothing is.
    """

    looked_s: float
    moved_s: float
    life_s: float
    outstanding: bool = False
    acked_nbytes: int = 0
    received_nbytes: int = 0
    due_s: float | None = None
    mark_nbytes: int | None = None
    lenience: float = 1.0
    overdue: Overdue | None = None
    overdue_s: float = math.inf

    def look(self, observed: Observations) -> FailureDetector:
        """Return the detector after one more look."""
        seen = self._hear(observed)._time_pong(observed)
        if self.overdue is None:
            late = seen._late(observed)
            return seen if late is None else seen._suspect(late, observed.now_s)
        moved = self.overdue is Overdue.ACK and seen.acked_nbytes > self.acked_nbytes
        if not moved and observed.heard_s <= self.overdue_s:
            return seen
        false_alarm = self.overdue in (Overdue.WINDOW, Overdue.PONG)
        lenience = min(MOST_LENIENT, self.lenience * (2 if false_alarm else 1))
        return replace(
            seen, overdue=None, overdue_s=math.inf, moved_s=observed.now_s, lenience=lenience
        )

    def doubt(self, now_s: float, since_s: float) -> FailureDetector:
        """Return the detector after a caller missed an answer that it asked for at `since_s`.

        Suspect unless anything came since, or acknowledgements keep coming: then the link is
        slow, and not dead.
        """
        moving = self.outstanding and moves(now_s - self.moved_s)
        if self.overdue or moving or self.life_s >= since_s:
            return self
        return self._suspect(Overdue.ANSWER, now_s)

    def _suspect(self, late: Overdue, now_s: float) -> FailureDetector:
        return replace(self, overdue=late, overdue_s=now_s)

    def _hear(self, observed: Observations) -> FailureDetector:
        tcp, life_s = observed.tcp, max(self.life_s, observed.heard_s)
        if tcp is None:
            seen = replace(self, life_s=life_s, outstanding=False)
            return replace(seen, looked_s=observed.now_s, moved_s=observed.now_s)
        if tcp.received_nbytes > self.received_nbytes:
            life_s = max(life_s, self.looked_s)  # at some time since then
        still = tcp.outstanding and tcp.acked_nbytes == self.acked_nbytes
        return replace(
            self,
            looked_s=observed.now_s,
            moved_s=self.moved_s if still and self.outstanding else observed.now_s,
            life_s=life_s,
            outstanding=tcp.outstanding,
            acked_nbytes=tcp.acked_nbytes,
            received_nbytes=tcp.received_nbytes,
        )

    def _time_pong(self, observed: Observations) -> FailureDetector:
        """A pong's time begins when its ping has arrived behind what was sent before it."""
        tcp = observed.tcp
        if observed.asked_s is None:
            timely = self.due_s is not None and self.overdue is None
            lenience = max(1.0, 0.8 * self.lenience) if timely else self.lenience
            return replace(self, due_s=None, mark_nbytes=None, lenience=lenience)
        if self.due_s is not None:
            return self
        if tcp is None:
            return replace(self, due_s=observed.asked_s)
        before = tcp.acked_nbytes + tcp.in_flight_nbytes + tcp.unsent_nbytes + GRPC_NBYTES
        mark_nbytes = before if self.mark_nbytes is None else self.mark_nbytes
        arrived = not tcp.outstanding or tcp.acked_nbytes >= mark_nbytes
        due_s = observed.now_s if arrived else None
        return replace(self, due_s=due_s, mark_nbytes=mark_nbytes)

    def _late(self, observed: Observations) -> Overdue | None:
        now_s, tcp = observed.now_s, observed.tcp
        if tcp is not None and tcp.outstanding:
            patience_s = ack_patience_s(tcp.srtt_s + 4 * tcp.rttvar_s)
            closed = tcp.in_flight_nbytes == 0
            if closed:
                patience_s = self.lenience * max(WINDOW_S, patience_s)
            if now_s - max(self.moved_s, self.life_s) > patience_s:
                return Overdue.WINDOW if closed else Overdue.ACK
        if self.due_s is not None:
            patience_s = self.lenience * max(PONG_S, 4 * observed.rtt_s)
            if now_s - max(self.due_s, self.life_s) > patience_s:
                return Overdue.PONG
        return None
