"""The pings of HTTP/2 by which gRPC's client estimates a link, in virtual time.

A session leaves the estimator on (`grpc.http2.bdp_probe`). Its pings are 17 bytes; what they
do to a connection is to end its rests. The rules are those of gRPC's `bdp_estimator.cc`.
"""

from __future__ import annotations

import math
from typing import final

from midstream_lab.simulation.kernel.random_streams import Draws

#: From an answer to the next ping, on a fresh connection.
FRESH_S = 0.1
#: The same once a session has measured its link, which takes it some seconds.
MEASURED_S = 0.4
#: Every second answer that shows nothing new makes the pause longer by this and up to as much
#: again, until it is `MOST_S`.
LONGER_S, MOST_S = 0.1, 10.0


@final
class Estimator:
    """The time of the next ping: a pause after the answer to the one before, and no sooner
    than anything has been received since. `pause_s` is the first one."""

    __slots__ = ("_pause_s", "_stable", "_timer_s", "due_s")

    def __init__(self, pause_s: float = MEASURED_S) -> None:
        self._pause_s = pause_s
        self._stable = 0
        self._timer_s = pause_s
        self.due_s = math.inf

    def hear(self, at_s: float) -> None:
        """Something has been received."""
        if self.due_s == math.inf:
            self.due_s = max(self._timer_s, at_s)

    def pinged(self, answered_s: float, draws: Draws) -> None:
        """The ping that was due is answered at `answered_s`."""
        self._stable += 1
        if self._stable == 2 and self._pause_s < MOST_S:
            self._stable = 0
            self._pause_s += LONGER_S * (1 + draws.uniform())
        self._timer_s = answered_s + self._pause_s
        self.due_s = math.inf
