"""Keeps a policy informed while requests say nothing of the link: states, delays, probes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import final

from midstream_edge.link.clock_offset import ClockEstimate, Exchange
from midstream_edge.link.observations import LinkState, Transfer
from midstream_edge.policies.interface import Evidence
from midstream_edge.policies.probe_budget import TICK_S, probe_tells
from midstream_edge.session.director import PolicyDirector
from midstream_edge.session.engine import Engine
from midstream_edge.session.threads import Alarms
from midstream_wire.errors import MidstreamError


@final
class LinkReporter:
    """Looks at the link of the present engine for as long as `director` decides there.

    Runs on the session's alarms; the link's threads bring the answers.
    """

    def __init__(
        self, engine: Callable[[], Engine], director: PolicyDirector, alarms: Alarms
    ) -> None:
        self._engine = engine
        self._director = director
        self._alarms = alarms
        self._state: LinkState | None = None
        self._probe: Future[Exchange] | None = None
        self._look()

    def _look(self) -> None:
        engine, now_s = self._engine(), time.monotonic()
        if engine.director is not self._director:
            return
        self._alarms.at(now_s + TICK_S, self._look)  # first, whatever comes of this look
        connection = engine.connection
        if connection is not None:
            self._tell_state(connection.state, now_s)
            for exchange in connection.take_exchanges():
                self._tell(exchange, Transfer(0, 0, exchange.delay_s))
            if self._probe is None:
                self._maybe_probe(engine, now_s)

    def _tell_state(self, state: LinkState, now_s: float) -> None:
        if self._state not in (None, state):
            self._director.learn(Evidence(at_s=now_s, link=state))
        self._state = state

    def _maybe_probe(self, engine: Engine, now_s: float) -> None:
        nbytes = self._director.probe_due(now_s, engine.link_state)
        connection = engine.connection
        if nbytes == 0 or connection is None or engine.missing_nbytes:
            return  # what is on its way tells of the link itself
        ahead_nbytes, before_nbytes = engine.backlog_nbytes, engine.handed_nbytes
        try:
            self._probe = probe = connection.begin_ping(nbytes, 0)
        except MidstreamError:  # the link has just broken
            return
        self._director.probed(now_s, nbytes)

        def hear(probe: Future[Exchange]) -> None:
            self._probe = None
            if probe.cancelled() or probe.exception() is not None:
                return
            if probe_tells(before_nbytes, engine.handed_nbytes):
                found = probed(probe.result(), connection.clock, nbytes, ahead_nbytes)
                self._tell(probe.result(), found)

        probe.add_done_callback(hear)

    def _tell(self, exchange: Exchange, transfer: Transfer) -> None:
        self._director.learn(Evidence(at_s=exchange.answered_s, transfer=transfer))


def probed(
    exchange: Exchange, clock: ClockEstimate, nbytes: int, ahead_nbytes: int
) -> Transfer:
    """Return what a probe of `nbytes` tells that left behind `ahead_nbytes`."""
    took_s, gone_s = exchange.delay_s, clock.gone_s(exchange.received_s)
    up_s = None if gone_s is None else min(max(0.0, gone_s - exchange.sent_s), took_s)
    return Transfer(nbytes, 0, took_s, ahead_nbytes=ahead_nbytes, up_s=up_s)
