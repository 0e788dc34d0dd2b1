"""A circuit breaker for a cloud that is connected and does not answer.

    closed --FAILURES unanswered in a row--> open --its pause is over--> one trial
       ^                                      ^                            |
       |<------ any reply, a link that was down or suspect before ---------+

A link that is down is found by the failure detector; this is for a server that welcomes, pongs
and never replies, which would cost every request its whole timeout (M. Nygard, "Release It!",
2007). A trial costs no answer its time: the edge runs the rest beside it from the start, and
what the cloud says is heard even after that. Pauses double, and are drawn at random from their
upper half, so that many edges do not come back at once (M. Brooker, "Exponential backoff and
jitter", AWS 2015). Pure: moments and random numbers come in as values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

#: Requests in a row without any reply.
FAILURES = 3

#: Seconds of the first pause, and of the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


@final
@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of the breaker. `asks_at_s` is when to ask again, while open."""

    failures: int = 0
    pause_s: float = 0.0
    asks_at_s: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Return True if only trials may be sent."""
        return self.pause_s > 0

    def allows(self, now_s: float) -> bool:
        """Return True if a request may be sent at `now_s`."""
        return now_s >= self.asks_at_s

    def ask(self, now_s: float, draw: float) -> Breaker:
        """Return the breaker after a request was sent; `draw` is from 0 to 1.

        While open, the next one waits for twice as long as this one did, unless the cloud
        replies.
        """
        return self._paused(2 * self.pause_s, now_s, draw) if self.is_open else self

    def fail(self, now_s: float, draw: float) -> Breaker:
        """Return the breaker after a request had no reply in time; `draw` is from 0 to 1."""
        if self.is_open:  # it was sent before, or as a trial
            return self
        counted = replace(self, failures=self.failures + 1)
        if counted.failures < FAILURES:
            return counted
        return counted._paused(FIRST_PAUSE_S, now_s, draw)

    def hear(self) -> Breaker:
        """Return the breaker after a reply, whichever request it was for."""
        return CLOSED if self.failures else self

    def _paused(self, pause_s: float, now_s: float, draw: float) -> Breaker:
        pause_s = min(LONGEST_PAUSE_S, pause_s)
        return replace(self, pause_s=pause_s, asks_at_s=now_s + pause_s * (1 + draw) / 2)


CLOSED = Breaker()
