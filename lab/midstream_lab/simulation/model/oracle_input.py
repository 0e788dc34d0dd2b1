"""The oracle's knowledge of the uplink's future."""

from __future__ import annotations

import numpy as np

from midstream_edge.policies.oracle import Curve
from midstream_lab.traces.trace import Trace

#: Of an uplink that never carries anything: for the oracle there must be some end.
DEAD_BPS = 1.0


def foresight(uplink: Trace, *, offset_s: float = 0.0, scale: float = 1.0) -> Curve:
    """The curve of `uplink`, `scale` times as fast, from its moment `offset_s` on."""
    rates_bps = uplink.rates_bps * scale
    if not rates_bps.any():
        rates_bps = np.full_like(rates_bps, DEAD_BPS)
    return Curve(uplink.times_s, rates_bps, -offset_s)
