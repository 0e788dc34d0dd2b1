"""The simulated link between one edge and the cloud: two lines and their state.

When a link is suspect and when it is given up is the rule of sessions
(`midstream_edge.link.failure_detector`). A session asks TCP for how long nothing was
acknowledged; here the lines know.
"""

from __future__ import annotations

import math
from typing import final

from midstream_edge.link.clock_offset import Exchange
from midstream_edge.link.failure_detector import (
    ACK_S,
    LOOK_S,
    PING_S,
    USED_S,
    LinkEvent,
    ack_patience_s,
    judge,
    move,
    moves,
)
from midstream_edge.link.link_measurement import measure_link
from midstream_edge.link.observations import LinkState
from midstream_edge.link.uplink_backlog import Uplink
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.congestion_window import Window
from midstream_lab.simulation.model.http2_pings import FRESH_S, Estimator
from midstream_lab.simulation.model.link_spec import Network, steady
from midstream_lab.simulation.model.tcp_flow import Line

#: What a ping or its answer takes of the link besides padding.
PING_NBYTES = 64
#: A break is noticed, and mended once the link is back, in so long: what missing
#: acknowledgements and fresh channels take.
NOTICE_S, RECONNECT_S = ACK_S, 0.35


@final
class Way:
    """Both directions of one edge's link.

    `epoch` grows with every break: what left before it never arrives.
    """

    __slots__ = (
        "_cuts",
        "_doubted",
        "_draws",
        "_estimator",
        "_heard_s",
        "_jitter_s",
        "_used_s",
        "broken",
        "down",
        "downlink_nbytes",
        "epoch",
        "link",
        "one_way_s",
        "reconnects",
        "suspect_since_s",
        "up",
        "uplink_nbytes",
    )

    def __init__(
        self, network: Network, draws: Draws, *, offset_s: float = 0.0, scale: float = 1.0
    ) -> None:
        self.up = Line(network, network.payload_up, offset_s=offset_s, scale=scale)
        self.down = Line(network, network.payload_down, offset_s=offset_s, scale=scale)
        self.up.window, self.down.window = measured_windows(network, scale)
        self.one_way_s = (network.rtt_s + network.fixed_s) / 2
        self._jitter_s = network.jitter_s
        self._draws = draws
        self._doubted = False  # an answer is overdue, and nothing has been heard since
        self.suspect_since_s = math.inf
        self.link: LinkState = "connected"
        self.broken = False
        self._cuts = 0  # that have begun and not ended
        self.epoch = self.reconnects = 0
        self.uplink_nbytes = self.downlink_nbytes = 0
        self._heard_s = self._used_s = 0.0  # when something came last, and a request went out
        self._estimator = Estimator()

    def send_up(self, at_s: float, nbytes: int) -> float:
        """Return when `nbytes` that leave at `at_s` are in the cloud."""
        if self.broken:
            return math.inf
        self._ping_until(at_s)
        self._used_s = at_s
        self.uplink_nbytes += nbytes
        arrived_s = self.up.send(at_s, nbytes, self._partial(at_s, nbytes))
        if self._jitter_s:
            arrived_s += self._draws.exponential(self._jitter_s)
        return arrived_s

    def send_down(self, at_s: float, nbytes: int) -> float:
        """Return when `nbytes` that leave the cloud at `at_s` are here."""
        if self.broken:
            return math.inf
        self._ping_until(at_s)
        self.downlink_nbytes += nbytes
        arrived_s = self.down.send(at_s, nbytes)
        if self._jitter_s:
            arrived_s += self._draws.exponential(self._jitter_s)
        self._heard_s = arrived_s
        self._estimator.hear(arrived_s)
        return arrived_s

    def _partial(self, at_s: float, nbytes: int) -> int:
        """Return how many segments of a payload are not full: each message but the last ends
        with one, which costs a segment more or falls into the rounding.
        """
        messages = math.ceil(nbytes / Uplink(rate_bps=self.up.rate_bps(at_s)).message_nbytes)
        return self._draws.heads(messages - 1) if messages > 1 else 0

    def _ping_until(self, now_s: float) -> None:
        """Let the pings pass that a session sends while it hears nothing, and those of HTTP/2:
        an idle connection is not quite idle, and keeps more of its window than one that is."""
        until_s = min(now_s, self._used_s + USED_S)
        while True:
            own_s = self._heard_s + PING_S + LOOK_S / 2
            at_s = min(own_s if own_s < until_s else math.inf, self._estimator.due_s)
            if at_s >= now_s:
                return
            self.up.ping(at_s)
            self.down.ping(at_s + self.one_way_s)
            answered_s = at_s + 2 * self.one_way_s
            if at_s == own_s:
                self._heard_s = answered_s
                self._estimator.hear(answered_s)
            else:
                self._estimator.pinged(answered_s, self._draws)

    def notice(self, now_s: float) -> bool:
        """Look at the link; return True if `link` has changed by it."""
        waits = self.up.free_s > now_s or self.down.free_s > now_s
        if self.link == "down" or (self.link == "connected" and not waits):
            return False
        self._doubted = self._doubted and now_s < self.passed_s
        silent_s = max(self.up.silent_s(now_s), self.down.silent_s(now_s))
        patience_s = ack_patience_s(self.up.patience_s)
        if not (self._doubted or silent_s > patience_s):
            self.suspect_since_s = math.inf
        elif self.link == "connected":
            self.suspect_since_s = now_s if self._doubted else now_s - silent_s + patience_s
        event = judge(self.link, self.suspect_since_s, now_s)
        if event is None or event is LinkEvent.GIVEN_UP:
            return False
        self.link = move(self.link, event)
        return True

    def is_given_up(self, now_s: float) -> bool:
        """Return True if the link has been suspect for too long."""
        return judge(self.link, self.suspect_since_s, now_s) is LinkEvent.GIVEN_UP

    def doubt(self, now_s: float) -> None:
        """An answer is overdue: unless packets still pass, the link is suspect until all that
        was handed over has passed, and a sign of it come back.
        """
        self._doubted = not moves(self.up.still_s(now_s))

    @property
    def passed_s(self) -> float:
        """Return when all that was handed over will be known to have arrived."""
        return max(self.up.free_s, self.down.free_s) + 2 * self.one_way_s

    def take_back(self, now_s: float, arrives_s: float) -> int:
        """Stop sending what would arrive at `arrives_s`; the bytes that never leave."""
        nbytes = self.up.stop(now_s, arrives_s)
        self.uplink_nbytes -= nbytes
        return nbytes

    def cut(self, now_s: float) -> None:
        """Everything under way is lost, and nothing gets through; nobody knows yet."""
        self.epoch += 1
        self.broken = True
        self._cuts += 1
        self.uplink_nbytes -= self.up.drop(now_s)
        self.downlink_nbytes -= self.down.drop(now_s)

    def heal(self) -> bool:
        """One cut has ended; whether that was the last one."""
        self._cuts -= 1
        return self._cuts == 0

    def drop(self) -> None:
        """The break is noticed."""
        self.link = move(self.link, LinkEvent.ENDED)
        self.suspect_since_s = math.inf

    def give_up(self) -> None:
        """It was suspect for too long; what is under way will not be waited for."""
        self.epoch += 1
        self.link = move(self.link, LinkEvent.GIVEN_UP)
        self.suspect_since_s = math.inf

    def mend(self, now_s: float) -> None:
        """A fresh connection: nothing is under way, and TCP begins anew."""
        self.epoch += 1
        self.reconnects += 1
        self.broken = False
        self.link = move(self.link, LinkEvent.WELCOMED)
        self._doubted = False
        self.suspect_since_s = math.inf
        self.up.renew(now_s)
        self.down.renew(now_s)
        self._heard_s = now_s
        self._estimator = Estimator(FRESH_S)


def measured_windows(network: Network, scale: float = 1.0) -> tuple[Window, Window]:
    """Return TCP's windows, up and down, as a session has them at its beginning.

    It measures its link first; where HyStart ends slow start then, it ends from then on.
    """
    link = network.mean_link(scale)
    up, down = Line(network, steady(link.uplink_bps)), Line(network, steady(link.downlink_bps))
    now_s = 0.0

    def ping(up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange:
        nonlocal now_s
        sent_s = now_s
        arrived_s = up.send(sent_s, up_nbytes + PING_NBYTES)
        now_s = down.send(arrived_s, down_nbytes + PING_NBYTES)
        return Exchange(sent_s, arrived_s, arrived_s, now_s)

    measure_link(ping)
    for line in (up, down):
        line.window.sent_s -= now_s
    return up.window, down.window
