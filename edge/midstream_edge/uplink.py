"""What one request's journey says about the uplink, and how large its messages should be.

Pure: readings of clocks come in as values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

from midstream_edge.clock import ClockEstimate, Exchange
from midstream_edge.policies.values import Transfer
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
class Uplink:
    """When the line last became free, by the edge's clock, and about how fast it is.

    Requests that are pipelined share the line: what was sent before must have arrived before
    the line works for the next one, so a transfer's time counts from then.
    """

    free_s: float = -math.inf
    rate_bps: float = math.inf

    @property
    def message_nbytes(self) -> int:
        """What the line carries in `MESSAGE_S`, within the limits that messages have."""
        most = min(self.rate_bps * MESSAGE_S / 8, MESSAGE_NBYTES)
        return max(LEAST_NBYTES, int(most))

    def transfer(
        self,
        exchange: Exchange,
        clock: ClockEstimate,
        *,
        left_s: float,
        nbytes: int,
        reply_nbytes: int,
    ) -> tuple[Uplink, Transfer]:
        """The line after `exchange`, and what that says; its first byte left at `left_s`.

        The cloud's own time between the two readings of its clock is no part of it.
        """
        delay_s = clock.best.delay_s if clock.best is not None else 0.0
        began_s = max(left_s, min(self.free_s - delay_s / 2, exchange.sent_s))
        served_s = max(0.0, exchange.replied_s - exchange.received_s)
        took_s = max(0.0, exchange.answered_s - began_s - served_s)
        arrived_s = clock.to_edge(exchange.received_s)
        line = self if arrived_s is None else replace(self, free_s=arrived_s)
        serial_s = took_s - delay_s
        if nbytes >= TELLING_NBYTES and serial_s > 0:
            seen_bps = 8 * nbytes / serial_s
            known_bps = self.rate_bps if math.isfinite(self.rate_bps) else seen_bps
            line = replace(line, rate_bps=known_bps + GAIN * (seen_bps - known_bps))
        return line, Transfer(nbytes, reply_nbytes, took_s)
