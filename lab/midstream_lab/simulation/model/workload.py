"""The source of an edge's requests, and of its link's outages, in a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_edge.policies.interface import Evidence
from midstream_lab.simulation.kernel.event_queue import Core, Steps
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import Arrivals, Closed, Every
from midstream_lab.simulation.model.duplex_link import NOTICE_S, RECONNECT_S
from midstream_lab.simulation.model.edge import Edge
from midstream_wire.errors import UsageError

#: A closed loop whose requests fail at once would stand still: nobody asks more often than a
#: thousand times a second.
LEAST_GAP_S = 0.001


@final
@dataclass(frozen=True, slots=True)
class Cut:
    """The link lets nothing through from `at_s` for `lasts_s`; what is under way is lost."""

    at_s: float
    lasts_s: float

    def __post_init__(self) -> None:
        if not (self.at_s >= 0 and self.lasts_s > 0):
            raise UsageError(
                f"a cut must begin at 0 s or later and last (not {self.at_s!r} s, "
                f"{self.lasts_s!r} s)"
            )


@final
class Source:
    """Sends an edge its requests until `until_s`.

    An edge that is `alone` begins even periods at once, as a session does that has just
    measured its link; of many, each has its own point of the period.
    """

    __slots__ = ("_arrivals", "_core", "_draws", "_edge", "_sent_s", "_until_s", "sent")

    def __init__(
        self,
        core: Core,
        edge: Edge,
        arrivals: Arrivals,
        *,
        draws: Draws,
        until_s: float,
        alone: bool = False,
    ) -> None:
        self._core = core
        self._edge = edge
        self._arrivals = arrivals
        self._draws = draws
        self._until_s = until_s
        self.sent = 0
        self._sent_s = 0.0
        if isinstance(arrivals, Closed) or (alone and isinstance(arrivals, Every)):
            first_s = 0.0
        else:
            first_s = arrivals.first_s(draws)
        core.at(first_s, self._send)

    def answered(self, now_s: float) -> None:
        """A request has ended: in a closed loop it is the next one's turn."""
        arrivals = self._arrivals
        if isinstance(arrivals, Closed):
            next_s = max(now_s + arrivals.think_s, self._sent_s + LEAST_GAP_S)
            self._core.at(next_s, self._send)

    def _send(self, _: object) -> None:
        now_s = self._core.now_s
        if now_s >= self._until_s:
            return
        arrivals = self._arrivals
        if not isinstance(arrivals, Closed):
            self._core.at(arrivals.next_s(now_s, self._draws), self._send)
        self.sent += 1
        self._sent_s = now_s
        self._edge.submit(self.sent, now_s)


def breaking(core: Core, edge: Edge, cut: Cut, *, notice_s: float = NOTICE_S) -> Steps:
    """One cut of a link, noticed after `notice_s`, and mended a while after its end."""
    yield cut.at_s
    edge.way.cut(core.now_s)
    if notice_s:
        yield notice_s
    edge.way.drop()
    edge.learn(Evidence(core.now_s, link="down"))
    edge.lose()
    yield max(0.0, cut.lasts_s - notice_s) + RECONNECT_S
    if edge.way.heal():
        edge.way.mend(core.now_s)
        edge.learn(Evidence(core.now_s, link="connected"))
        edge.send_again()
