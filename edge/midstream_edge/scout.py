"""Keeps a policy informed while requests say nothing of the link: states, delays, probes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import final

from midstream_edge.clock import Exchange
from midstream_edge.engine import Engine
from midstream_edge.pilot import Pilot
from midstream_edge.policies.values import Evidence, LinkState, Transfer
from midstream_edge.worker import Alarms
from midstream_wire.errors import MidstreamError

#: How often the link is looked at: a break or a silence is noticed so much later.
TICK_S = 0.05


@final
class Scout:
    """Looks at the link of the present engine for as long as its director is `pilot`.

    Runs on the session's alarms; the link's threads bring the answers.
    """

    def __init__(self, engine: Callable[[], Engine], pilot: Pilot, alarms: Alarms) -> None:
        self._engine = engine
        self._pilot = pilot
        self._alarms = alarms
        self._state: LinkState | None = None
        self._probe: Future[Exchange] | None = None
        self._look()

    def _look(self) -> None:
        engine, now_s = self._engine(), time.monotonic()
        if engine.director is not self._pilot:
            return
        self._alarms.at(now_s + TICK_S, self._look)  # first, whatever comes of this look
        connection = engine.connection
        if connection is not None:
            self._tell_state(connection.state, now_s)
            for exchange in connection.take_exchanges():
                self._tell_exchange(exchange, nbytes=0, ahead_nbytes=0)
            if self._probe is None:
                self._maybe_probe(engine, now_s)

    def _tell_state(self, state: LinkState, now_s: float) -> None:
        if self._state not in (None, state):
            self._pilot.learn(Evidence(at_s=now_s, link=state))
        self._state = state

    def _maybe_probe(self, engine: Engine, now_s: float) -> None:
        nbytes = self._pilot.probe_due(now_s, engine.link_state)
        if nbytes == 0 or engine.connection is None:
            return
        ahead_nbytes = engine.backlog_nbytes
        try:
            self._probe = probe = engine.connection.begin_ping(nbytes, 0)
        except MidstreamError:  # the link has just broken
            return
        self._pilot.probed(now_s, nbytes)
        probe.add_done_callback(partial(self._hear, nbytes=nbytes, ahead_nbytes=ahead_nbytes))

    def _hear(self, probe: Future[Exchange], *, nbytes: int, ahead_nbytes: int) -> None:
        self._probe = None
        if not probe.cancelled() and probe.exception() is None:
            self._tell_exchange(probe.result(), nbytes=nbytes, ahead_nbytes=ahead_nbytes)

    def _tell_exchange(self, exchange: Exchange, *, nbytes: int, ahead_nbytes: int) -> None:
        transfer = Transfer(nbytes, 0, exchange.delay_s, ahead_nbytes=ahead_nbytes)
        self._pilot.learn(Evidence(at_s=exchange.answered_s, transfer=transfer))
