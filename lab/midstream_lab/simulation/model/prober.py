"""Probes of a silent link in virtual time, by the very rule that sessions keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.believing import belief_of
from midstream_edge.policies.interface import Evidence
from midstream_edge.policies.probe_budget import (
    SILENT_S,
    TICK_S,
    ProbeBudget,
    probe_due,
    probe_tells,
)
from midstream_edge.session.director import USED_S
from midstream_lab.simulation.kernel.event_queue import Core
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.chooser import Chooser
from midstream_lab.simulation.model.duplex_link import Way

#: How often the rule is asked while a probe lacks budget or an answer.
LOOK_S = 0.1
#: By how much an alarm wakes late: ticks wander over requests that come on the clock.
LATE_S = 0.0002
#: What comes back of a probe: its number and the server's time.
PONG_NBYTES = 64


class Learner(Protocol):
    """An edge, as far as probing is concerned."""

    way: Way
    chooser: Chooser

    def learn(self, evidence: Evidence) -> None: ...


@final
class Prober:
    """Sends probes for `edge` while nothing else tells of its link, until it is stopped.

    The edge's policy must be one that has a belief.
    """

    __slots__ = ("_core", "_edge", "_first_s", "_stopped", "_waits_in", "budget")

    def __init__(self, core: Core, edge: Learner, draws: Draws) -> None:
        self._core = core
        self._edge = edge
        self._stopped = False
        self._waits_in = -1  # the epoch of the probe that is not answered yet
        self.budget = ProbeBudget(core.now_s)
        self._first_s = core.now_s + draws.uniform() * TICK_S
        core.at(self._tick_s(core.now_s + SILENT_S), self._look)

    def heard(self, at_s: float, nbytes: int) -> None:
        """A request was answered that moved `nbytes` both ways."""
        self.budget = self.budget.heard(at_s, nbytes)

    def stop(self) -> None:
        self._stopped = True

    def _look(self, _: object) -> None:
        if self._stopped:
            return
        edge, now_s = self._edge, self._core.now_s
        belief = belief_of(edge.chooser.policy)
        assert belief is not None
        nbytes = probe_due(
            self.budget, now_s, uplink_bps=belief.uplink_bps, link=edge.way.link
        )
        used = now_s - edge.chooser.asked_s <= USED_S
        free = self._waits_in != edge.way.epoch and not edge.way.up.backlog_nbytes(now_s)
        if nbytes and used and free:
            self.budget = self.budget.probed(now_s, nbytes)
            self._send(nbytes, now_s)
        next_s = max(now_s + LOOK_S, self.budget.heard_at_s + SILENT_S)
        self._core.at(self._tick_s(next_s), self._look)

    def _tick_s(self, at_s: float) -> float:
        """Return when a session looks next, at `at_s` or later."""
        every_s = TICK_S + LATE_S
        return self._first_s + every_s * max(0, math.ceil((at_s - self._first_s) / every_s))

    def _send(self, nbytes: int, now_s: float) -> None:
        way = self._edge.way
        self._waits_in = way.epoch
        ahead_nbytes = way.up.backlog_nbytes(now_s)
        arrived_s = way.send_up(now_s, nbytes)
        probe = _Probe(nbytes, now_s, arrived_s, ahead_nbytes, way.uplink_nbytes, way.epoch)
        self._core.at(arrived_s, self._answer, probe)

    def _answer(self, probe: _Probe) -> None:
        way = self._edge.way
        if probe.epoch == way.epoch:
            self._core.at(way.send_down(self._core.now_s, PONG_NBYTES), self._take, probe)

    def _take(self, probe: _Probe) -> None:
        way, now_s = self._edge.way, self._core.now_s
        if probe.epoch != way.epoch:
            return
        self._waits_in = -1
        if not probe_tells(probe.handed_nbytes, way.uplink_nbytes):
            return
        up_s = probe.arrived_s - probe.sent_s - way.one_way_s
        transfer = Transfer(
            probe.nbytes,
            PONG_NBYTES,
            now_s - probe.sent_s,
            ahead_nbytes=probe.ahead_nbytes,
            up_s=up_s,
        )
        self._edge.learn(Evidence(now_s, transfer))


@final
@dataclass(frozen=True, slots=True)
class _Probe:
    """One under way: moments, bytes, and what had been handed over when it left."""

    nbytes: int
    sent_s: float
    arrived_s: float
    ahead_nbytes: int
    handed_nbytes: int
    epoch: int
