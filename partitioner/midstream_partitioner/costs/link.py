"""The link between edge and cloud, as planning sees it: two rates, a delay, a fixed cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from midstream_wire.errors import UsageError

#: Software cost of one exchange over a standing gRPC stream, both directions together.
#: Measured on two x86-64 cores: 0.3-0.5 ms on a bidirectional stream, 0.5-0.9 ms unary.
EXCHANGE_S = 0.0005


@final
@dataclass(frozen=True, slots=True)
class Link:
    """Rates in bit/s of payload, `rtt_s` for an empty exchange on the idle link.

    A transfer of n bytes takes 8 n / rate + rtt_s / 2 + fixed_s / 2 in either direction;
    `fixed_s` is what the software adds to one exchange whatever its size. An infinite rate
    stands for a link without bandwidth limit (both sides in one process). Raises `UsageError`
    for rates that are not positive, and for delays that are negative or not finite.
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    fixed_s: float = EXCHANGE_S

    def __post_init__(self) -> None:
        for name in ("uplink_bps", "downlink_bps"):
            rate = getattr(self, name)
            if not rate > 0:
                raise UsageError(
                    f"a link's {name} must be more than 0 bit/s (not {rate!r}): "
                    "give the measured or expected rate"
                )
        for name in ("rtt_s", "fixed_s"):
            delay = getattr(self, name)
            if not (delay >= 0 and math.isfinite(delay)):
                raise UsageError(
                    f"a link's {name} must be a finite number of seconds from 0 up "
                    f"(not {delay!r}): give the measured or expected delay"
                )

    @property
    def one_way_s(self) -> float:
        """Return what a transfer costs in one direction before its first byte counts."""
        return (self.rtt_s + self.fixed_s) / 2

    def uplink_serial_s(self, nbytes: float) -> float:
        """Return how long `nbytes` occupy the uplink."""
        return nbytes * 8 / self.uplink_bps

    def downlink_serial_s(self, nbytes: float) -> float:
        """Return how long `nbytes` occupy the downlink."""
        return nbytes * 8 / self.downlink_bps

    def uplink_s(self, nbytes: float) -> float:
        """From the first byte leaving the edge to the last one in the cloud's hands."""
        return self.uplink_serial_s(nbytes) + self.one_way_s

    def downlink_s(self, nbytes: float) -> float:
        """From the first byte leaving the cloud to the last one in the edge's hands."""
        return self.downlink_serial_s(nbytes) + self.one_way_s
