"""When to stop asking a cloud that is there and does not answer: a circuit breaker.

    closed --FAILURES unanswered in a row--> open --its pause is over--> one trial
       ^                                      ^                            |
       |<---------------- any reply ----------+------ unanswered ----------+

A link that is down is found by the failure detector; this is for a server that welcomes, pongs
and never replies, which would cost every request its whole timeout (M. Nygard, "Release It!",
2007). Pauses double, and are drawn at random from their upper half, so that many edges do not
come back at once (M. Brooker, "Exponential backoff and jitter", AWS 2015). Pure: moments and
random numbers come in as values.
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
    """What is known of a cloud's replies. `asks_at_s` is when to ask again, while open.

    `since_s` is when it opened, or its last trial failed.
    """

    failures: int = 0
    pause_s: float = 0.0
    asks_at_s: float = -math.inf
    since_s: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Return True if only trials may be sent."""
        return self.pause_s > 0

    def allows(self, now_s: float) -> bool:
        """Return True if a request may be sent at `now_s`."""
        return now_s >= self.asks_at_s

    def ask(self, now_s: float) -> Breaker:
        """Return the breaker after a request was sent; while open, the next one waits."""
        return replace(self, asks_at_s=now_s + self.pause_s) if self.is_open else self

    def fail(self, now_s: float, draw: float, *, asked_s: float) -> Breaker:
        """Return the breaker after a request of `asked_s` had no reply in time.

        `draw` is from 0 to 1. Of requests that waited side by side, one counts while open.
        """
        failures = self.failures + 1
        if failures < FAILURES:
            return replace(self, failures=failures)
        if asked_s < self.since_s:
            return self
        pause_s = min(LONGEST_PAUSE_S, 2 * self.pause_s or FIRST_PAUSE_S)
        return Breaker(failures, pause_s, now_s + pause_s * (1 + draw) / 2, now_s)

    def retry(self) -> Breaker:
        """Return the breaker after the link has come back: the next request may try."""
        return replace(self, asks_at_s=-math.inf) if self.is_open else self

    def hear(self) -> Breaker:
        """Return the breaker after a reply, whichever request it was for."""
        return CLOSED if self.failures else self


CLOSED = Breaker()
