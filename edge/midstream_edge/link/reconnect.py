"""The schedule of fresh channels after a link was lost, by TCP handshakes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import final

from midstream_edge.link.failure_detector import SPACINGS_S, handshake_spacing_s, spacing_s
from midstream_edge.link.monitored_stream import MonitoredStream
from midstream_edge.link.tcp_handshakes import HandshakeProbes, PeerAddress

#: Fresh channels on their way at the same time, each for `CONNECT_S`.
MOST_TRIALS = 6
#: Up to this share of each pause is left out at random: a thousand edges that lost one server
#: at one moment do not come back in step (M. Brooker, "Exponential backoff and jitter", 2015).
JITTER_SHARE = 0.5
#: How often to see whether a handshake was answered.
LISTEN_S = 0.02


@final
class ReconnectSchedule:
    """The attempts of one outage after the other; used under its connection's lock.

    `trials` are the channels that are being tried. The first channel of an outage is due at
    once. Later ones are when a handshake at one of the server's `addresses` was answered, and
    after a while in any case: the server may have moved, or there may be no address to try.
    """

    def __init__(self, now_s: float, *, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._spread = 1.0  # of the pause after the last channel
        self.addresses: tuple[PeerAddress, ...] = ()
        self.tried_s: float | None = None  # when the first handshake left
        self.answered = False  # any handshake was
        self._handshakes = HandshakeProbes()
        self._next_handshake_s = now_s
        self._tries = 0
        self._tried_s = now_s - SPACINGS_S[0]
        self._trouble_s = now_s
        self._not_before_s = now_s

    def begin_outage(self, now_s: float) -> None:
        """The link was lost, or is in doubt."""
        self._trouble_s, self._tries = now_s, 0
        # A server that takes streams only to end them is not to be stormed.
        self._not_before_s = max(now_s, self._tried_s + SPACINGS_S[0])

    def hold_off(self, until_s: float) -> None:
        """Neither channels nor handshakes before that moment."""
        self._not_before_s = until_s

    def note_try(self, now_s: float) -> None:
        """A channel is being opened."""
        self._tries += 1
        self._tried_s = now_s
        self._spread = self._spread_pause()

    def look(self, now_s: float, trials: Sequence[MonitoredStream]) -> tuple[bool, bool]:
        """Go on with handshakes; return (open a channel now, a handshake was answered)."""
        if len(trials) >= MOST_TRIALS or now_s < self._after_handshake_s(trials):
            self.rest()
            return False, False
        answered = bool(self._handshakes) and self._handshakes.are_answered(now_s)
        if answered:
            self.answered = True
            self._handshakes.close()
        elif self.addresses and self._tries and now_s >= self._next_handshake_s:
            self.tried_s = self.tried_s or now_s
            for address in self.addresses:
                self._handshakes.begin(address, now_s)
            spacing_s = handshake_spacing_s(now_s - self._trouble_s)
            self._next_handshake_s = now_s + spacing_s * self._spread_pause()
        return answered or now_s >= self._in_any_case_s(trials), answered

    def next_look_s(self, now_s: float, trials: Sequence[MonitoredStream]) -> float | None:
        """The moment at which to `look` again; None: when one of `trials` is over."""
        if len(trials) >= MOST_TRIALS:
            return None
        if not self.addresses or not self._tries:
            return self._in_any_case_s(trials)
        handshake_s = now_s + LISTEN_S if self._handshakes else self._next_handshake_s
        handshake_s = max(handshake_s, self._after_handshake_s(trials))
        return min(self._in_any_case_s(trials), handshake_s)

    def rest(self) -> None:
        """Forget the handshakes that are on their way."""
        self._handshakes.close()

    def _after_handshake_s(self, trials: Sequence[MonitoredStream]) -> float:
        """Return when a channel is due if a handshake was answered."""
        return self._spaced_s(pending=any(monitored.tried for monitored in trials))

    def _in_any_case_s(self, trials: Sequence[MonitoredStream]) -> float:
        # Where there is an address, a handshake finds out sooner, and costs less.
        return self._spaced_s(pending=bool(self.addresses or trials))

    def _spaced_s(self, *, pending: bool) -> float:
        if self._tries == 0:
            return self._not_before_s
        outage_s = self._tried_s - self._trouble_s
        spaced_s = spacing_s(self._tries, outage_s=outage_s, pending=pending)
        return max(self._not_before_s, self._tried_s + spaced_s * self._spread)

    def _spread_pause(self) -> float:
        return 1 - JITTER_SHARE * self._draw()
