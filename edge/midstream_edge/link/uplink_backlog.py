"""The uplink's backlog: bytes of payload that were handed over and have not arrived.

Pure: counts and readings of clocks come in as values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from midstream_edge.link.observations import Transfer
from midstream_wire.limits import KIB, MESSAGE_NBYTES

#: A message is handed over whole and cannot be taken back; a request that is given up wastes
#: at most this much of the link's time on one.
MESSAGE_S = 0.02
#: Smaller messages cost more in calls than they save on any link above 6 Mbit/s.
LEAST_NBYTES = 16 * KIB
#: Weight of a new measurement of the rate; it only sizes messages, so it may follow quickly.
GAIN = 0.5
#: Transfers below this measure the delay, not the rate.
TELLING_NBYTES = 8 * KIB


@final
@dataclass(frozen=True, slots=True)
class Departure:
    """The moment a frame was handed over, and the payload bytes in front of it."""

    at_s: float
    before_nbytes: int


def busy_since(
    departures: Sequence[Departure], gone_nbytes: int, *, until_s: float, blur_s: float
) -> Departure:
    """From which frame on the link carried a request without waiting for the encoder.

    `gone_nbytes` of payload had arrived at `until_s`. A link of rate r that begins with frame
    i at t_i and has S_i bytes left ends at t_i + S_i / r or, if it pauses later, after that.
    So its rate is the largest S_i / (until_s - t_i), and the frame that gives it is the one
    after the last pause. `blur_s` keeps the noise of clocks from preferring small ends.
    """

    def rate(each: Departure) -> float:
        return (gone_nbytes - each.before_nbytes) / (max(0.0, until_s - each.at_s) + blur_s)

    return max(departures, key=rate)


@final
@dataclass(frozen=True, slots=True)
class Uplink:
    """One stream's way up: `handed_nbytes` so far, of which `arrived_nbytes` surely arrived.

    A stream keeps its order, so a reply says that all has arrived that was handed over before
    its request ended, also of requests that were given up. Between replies the
    acknowledgements of TCP say it, where the system tells them: `overhead_nbytes` is by how
    much those exceeded the payload when last all of it had arrived.
    """

    handed_nbytes: int = 0
    arrived_nbytes: int = 0
    overhead_nbytes: int | None = None
    rate_bps: float = math.inf

    @property
    def message_nbytes(self) -> int:
        """Return what the line carries in `MESSAGE_S`, within the limits that messages
        have.
        """
        most = min(self.rate_bps * MESSAGE_S / 8, MESSAGE_NBYTES)
        return max(LEAST_NBYTES, int(most))

    def hand(self, nbytes: int) -> Uplink:
        """The line after `nbytes` more of payload were given to it."""
        return replace(self, handed_nbytes=self.handed_nbytes + nbytes)

    def backlog_nbytes(self, acked_nbytes: int | None) -> int:
        """Payload on its way, as far as is known; `acked_nbytes` is TCP's count, if any."""
        seen = self._acknowledged(acked_nbytes) or 0
        return max(0, self.handed_nbytes - max(seen, self.arrived_nbytes))

    def missing_nbytes(self, mark_nbytes: int, acked_nbytes: int | None) -> int:
        """Return how much of the first `mark_nbytes` handed over has surely not arrived."""
        seen = self._acknowledged(acked_nbytes)
        if seen is None:
            return 0
        return max(0, mark_nbytes - max(seen, self.arrived_nbytes))

    def arrive(self, mark_nbytes: int, acked_nbytes: int | None) -> Uplink:
        """The line after the first `mark_nbytes` handed over are known to have arrived."""
        line = replace(self, arrived_nbytes=max(self.arrived_nbytes, mark_nbytes))
        if acked_nbytes is None or line.arrived_nbytes < line.handed_nbytes:
            return line
        return replace(line, overhead_nbytes=acked_nbytes - line.handed_nbytes)

    def learn(self, transfer: Transfer, delay_s: float) -> Uplink:
        """The line after a whole `transfer` over a link of `delay_s` there and back."""
        serial_s = transfer.took_s - delay_s if transfer.up_s is None else transfer.up_s
        if transfer.nbytes < TELLING_NBYTES or serial_s <= 0:
            return self
        seen_bps = 8 * (transfer.nbytes + transfer.ahead_nbytes) / serial_s
        known_bps = self.rate_bps if math.isfinite(self.rate_bps) else seen_bps
        return replace(self, rate_bps=known_bps + GAIN * (seen_bps - known_bps))

    def _acknowledged(self, acked_nbytes: int | None) -> int | None:
        """Return what TCP's count comes to in payload, once it has been compared."""
        if acked_nbytes is None or self.overhead_nbytes is None:
            return None
        return acked_nbytes - self.overhead_nbytes
