"""The monitor of an edge's link in virtual time, by the rules of sessions.

A session looks every 50 ms (`midstream_edge.link.streams`). What it sees matters when a
request is about to be decided or to leave, and when the link has been suspect for so long that
it is given up; only then does this look.
"""

from __future__ import annotations

import math
from typing import Protocol, final

from midstream_edge.link.failure_detector import SUSPECT_S as GIVE_UP_S
from midstream_edge.link.observations import LinkState
from midstream_edge.policies.interface import Evidence
from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.model.duplex_link import Way


class Watched(Protocol):
    """An edge, as far as its link is concerned."""

    way: Way

    def learn(self, evidence: Evidence) -> None: ...
    def lose(self) -> None: ...
    def send_again(self) -> None: ...


@final
class LinkMonitor:
    """Tells `edge` how its link stands, and gives the link up when it is suspect for long."""

    __slots__ = ("_core", "_edge", "_until_s")

    def __init__(self, core: Core, edge: Watched) -> None:
        self._core = core
        self._edge = edge
        self._until_s = 0.0  # up to when it is being looked at

    def state(self) -> LinkState:
        """Return how the link stands, as far as the edge can know."""
        self._notice()
        return self._edge.way.link

    def overdue(self) -> None:
        """An answer has not come in time."""
        self._edge.way.doubt(self._core.now_s)
        self._notice()
        self.follow(self._edge.way.passed_s)

    def follow(self, until_s: float) -> None:
        """A long transfer is under way until then; one that never arrives is not followed."""
        if until_s == math.inf:
            return
        now_s = self._core.now_s
        if self._until_s <= now_s:
            self._core.at(now_s + GIVE_UP_S, self._look)
        self._until_s = max(self._until_s, until_s)

    def _notice(self) -> None:
        edge, now_s = self._edge, self._core.now_s
        if edge.way.notice(now_s):
            edge.learn(Evidence(now_s, link=edge.way.link))

    def _look(self, _: object) -> None:
        self._notice()
        way, now_s = self._edge.way, self._core.now_s
        if way.is_given_up(now_s):
            self._give_up()
        elif now_s < self._until_s:
            # A link that is not suspect yet will not have been for long enough before that.
            self._core.at(min(way.suspect_since_s, now_s) + GIVE_UP_S, self._look)

    def _give_up(self) -> None:
        """A fresh connection comes about once all that is under way has passed before it."""
        edge, now_s = self._edge, self._core.now_s
        self._until_s = now_s
        edge.way.give_up()
        edge.learn(Evidence(now_s, link="down"))
        edge.lose()
        self._core.at(edge.way.passed_s, self._reconnect, edge.way.epoch)

    def _reconnect(self, epoch: int) -> None:
        edge, now_s = self._edge, self._core.now_s
        if edge.way.epoch == epoch:
            edge.way.mend(now_s)
            edge.learn(Evidence(now_s, link="connected"))
            edge.send_again()
