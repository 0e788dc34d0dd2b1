"""The streams of one connection, and the state of its link that they add up to.

No threads and no callbacks: values change under the connection's lock, at moments that it
names. `failure_detector` has the states as a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from midstream_edge.link.clock_offset import ClockEstimate
from midstream_edge.link.endpoint import CONNECT_S
from midstream_edge.link.failure_detector import (
    LOOK_S,
    USED_S,
    LinkEvent,
    judge,
    move,
)
from midstream_edge.link.failures import is_settled, no_answer
from midstream_edge.link.monitored_stream import MonitoredStream
from midstream_edge.link.observations import LinkState
from midstream_edge.link.reconnect import ReconnectSchedule
from midstream_wire.errors import PeerError
from midstream_wire.frames import Welcome

#: After a refusal that only a person can lift: look again now and then, the person may.
SETTLED_PAUSE_S = 5.0
#: How long a server that is leaving may take to finish what is under way.
LEAVING_S = 30.0


@final
class MonitoredStreams:
    """The stream in use, those on trial, and those that end.

    `present` is in use: connected or suspect. `others` are on trial, leaving, or over and not
    yet closed. `error` is why there was no stream when there was none last. `on_change` is
    called when the link's state changes, or something is to be closed.
    """

    def __init__(self, server: str, now_s: float, *, on_change: Callable[[], None]) -> None:
        self.state: LinkState = "down"
        self.present: MonitoredStream | None = None
        self.others: list[MonitoredStream] = []
        self.attempts = ReconnectSchedule(now_s)
        self.error: PeerError = no_answer(server, CONNECT_S)
        self.welcomes = 0
        self.used_s = now_s  # when a request last went out
        self._server = server
        self._clock = ClockEstimate()
        self._risen = False
        self.rises = 0  # how often the link has become connected
        self._on_change = on_change

    @property
    def clock(self) -> ClockEstimate:
        """The server's clock, by the present stream or the last one."""
        return self.present.clock if self.present else self._clock

    @property
    def trials(self) -> list[MonitoredStream]:
        """The streams that wait for a welcome."""
        return [each for each in self.others if not (each.served or each.ended)]

    def take_risen(self) -> bool:
        """Return True if the link was connected since the last call."""
        risen, self._risen = self._risen, False
        return risen

    def next_trial(self, now_s: float) -> MonitoredStream | None:
        """Begin the next trial if one is due."""
        if self.state == "connected":
            self.attempts.rest()
            return None
        due, tried = self.attempts.look(now_s, self.trials)
        if not due:
            return None
        self.attempts.note_try(now_s)
        monitored = MonitoredStream(now_s, tried=tried)
        self.others.append(monitored)
        return monitored

    def sweep(self, now_s: float) -> list[MonitoredStream]:
        """Look at the present stream; return the streams that are over."""
        if self.present is not None:
            used = now_s - self.used_s < USED_S
            self.present.look(now_s, used=used)
            self._judge(self.present, now_s)
        for monitored in self.others:
            unneeded = self.state == "connected" and not monitored.served
            if monitored.ended is None and (unneeded or now_s >= monitored.expires_s):
                monitored.ended = monitored.leaving or no_answer(self._server, CONNECT_S)
        over = [monitored for monitored in self.others if monitored.ended]
        self.others = [monitored for monitored in self.others if not monitored.ended]
        return over

    def leave(self, now_s: float) -> list[MonitoredStream]:
        """Give the link up; return all streams, which are over."""
        if self.present is not None:
            self._part(self.present, self.error, now_s)
        self.state = "down"
        self.attempts.rest()
        left, self.others = self.others, []
        for monitored in left:
            monitored.ended = monitored.ended or self.error
        return left

    def pause_s(self, now_s: float) -> float | None:
        """Seconds until the next sweep or trial; None: until something happens."""
        due_s = [monitored.expires_s for monitored in self.others]
        if self.state != "connected":
            next_s = self.attempts.next_look_s(now_s, self.trials)
            due_s.extend([] if next_s is None else [next_s])
        if self.present is not None:
            due_s.append(self._next_look_s(self.present, now_s))
        soonest_s = min(due_s, default=math.inf)
        return None if soonest_s == math.inf else max(0.0, soonest_s - now_s)

    def doubt(self, now_s: float, since_s: float) -> None:
        """Take note that an answer is overdue that was asked for at `since_s`."""
        if self.present is not None and self.state == "connected":
            self.present.doubt(now_s, since_s)
            self._judge(self.present, now_s)

    def hear(self, monitored: MonitoredStream, now_s: float) -> bool:
        """Take note of a frame on `monitored`; False if that is over."""
        if monitored.ended is not None:
            return False
        monitored.heard_s = now_s
        if monitored is self.present and self.state == "suspect":
            monitored.look(now_s, used=True)
            self._judge(monitored, now_s)
        return True

    def greet(self, monitored: MonitoredStream, welcome: Welcome, now_s: float) -> bool:
        """Use `monitored`, which was welcomed; False if it comes too late to be of use."""
        if monitored.ended or monitored.served or self.state == "connected":
            return False
        if (suspected := self.present) is not None:
            suspected.lost, suspected.ended = True, self.error
            self._part(suspected, self.error, now_s)
        self.others.remove(monitored)
        self.present = monitored
        monitored.serve(welcome, now_s)
        peer_address = monitored.stream.peer_address if monitored.stream else None
        if peer_address is not None:
            self.attempts.addresses = (peer_address,)
        self.welcomes += 1
        self._enter(LinkEvent.WELCOMED, now_s)
        return True

    def see_off(self, monitored: MonitoredStream, error: PeerError, now_s: float) -> None:
        """Let `monitored` finish what it has: its server is leaving."""
        monitored.leaving = error
        monitored.expires_s = now_s + LEAVING_S
        if not monitored.served:
            monitored.ended = error
            self._on_change()
        elif monitored is self.present:
            self._part(monitored, error, now_s)

    def finish(self, monitored: MonitoredStream, error: PeerError, now_s: float) -> None:
        """Take note that `monitored` has ended."""
        if monitored.ended is None:
            monitored.ended = monitored.leaving or error
            if monitored is self.present:
                self._part(monitored, monitored.ended, now_s)
            self._on_change()

    def note_failure(self, monitored: MonitoredStream, error: PeerError, now_s: float) -> bool:
        """Take note of what ended `monitored`; True if a trial has failed while down."""
        if monitored.served or self.state != "down":
            return False
        self.error = error
        self._hold_off(error, now_s)
        return True

    def _next_look_s(self, present: MonitoredStream, now_s: float) -> float:
        """Return when to look at the present stream: often while something is expected of
        it.
        """
        used = now_s - self.used_s < USED_S
        if used or self.state == "suspect" or present.pings.under_way:
            return now_s + LOOK_S
        idle_s = present.keepalive_s
        return math.inf if idle_s is None else max(now_s + LOOK_S, present.heard_s + idle_s)

    def _judge(self, monitored: MonitoredStream, now_s: float) -> None:
        """Act on what a look at the present stream means for the link."""
        event = judge(self.state, monitored.detector.overdue_s, now_s)
        if event is LinkEvent.ALIVE:
            self._enter(event, now_s)
        elif event is LinkEvent.OVERDUE:
            self.error = no_answer(self._server, now_s - monitored.heard_s)
            self._enter(event, now_s)
        elif event is LinkEvent.GIVEN_UP:
            monitored.lost, monitored.ended = True, self.error
            self._part(monitored, self.error, now_s)

    def _enter(self, event: LinkEvent, now_s: float) -> None:
        before, self.state = self.state, move(self.state, event)
        if self.state == "connected" != before:
            self._risen = True
            self.rises += 1
        if before == "connected" and self.state != before:
            self.attempts.begin_outage(now_s)
        self._on_change()

    def _part(self, monitored: MonitoredStream, error: PeerError, now_s: float) -> None:
        """The present stream takes no new requests any more."""
        self.present, self._clock, self.error = None, monitored.clock, error
        self.others.append(monitored)
        self._enter(LinkEvent.GIVEN_UP if monitored.lost else LinkEvent.ENDED, now_s)
        self._hold_off(error, now_s)

    def _hold_off(self, error: PeerError, now_s: float) -> None:
        if is_settled(error):
            self.attempts.hold_off(now_s + SETTLED_PAUSE_S)
