"""Measuring an idle link by exchanges of growing size.

Pure but for the exchanges themselves, which come in as a function: a session's `ping`, or a
made-up link in a test. The rate of a direction is S / (T - rtt) (goodput as a request sees it:
within 6 % for S >= 60 KB on a shaped link), at the largest size that the time allows, because
small transfers measure the delay and not the rate.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Protocol

from midstream_edge.link.clock_offset import Exchange
from midstream_partitioner.costs.link import EXCHANGE_S, Link

#: Exchanges that measure the round trip: at least FEWEST, more while they fit into SHORT_S.
FEWEST, MOST, SHORT_S = 5, 20, 0.25
#: Sizes grow fourfold from 16 KiB (a quarter of a second at 0.5 Mbit/s) to 1 MiB (40 ms at
#: 200 Mbit/s), until one transfer takes ENOUGH_S.
SMALLEST_NBYTES, LARGEST_NBYTES, GROWTH = 16 * 1024, 1024 * 1024, 4
ENOUGH_S = 0.25
#: The decisive size is measured this often, as far as BUDGET_S per direction allows.
REPEATS, BUDGET_S = 3, 0.75
#: One exchange may take this long; a link that is slower is no use for split inference.
PATIENCE_S = 10.0
#: Above this the time of 1 MiB (0.8 ms) drowns in the software's own.
MOST_BPS = 10e9


class Ping(Protocol):
    """One exchange with padding in either direction, within `timeout_s`.

    Raises `CloudUnavailable` or `DeadlineExceeded`.
    """

    def __call__(self, up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange: ...


def measure_link(ping: Ping) -> Link:
    """Round trip and both rates of an idle link, in 1.5 s of transfers at most.

    Some twenty round trips come on top. Requests under way at the same time make the link
    look slower than it is. `Link.rtt_s` is the median round trip less the software's share
    (`Link.fixed_s`); the rates are capped at 10 Gbit/s. Raises what `ping` raises.
    """
    delays = _round_trips(ping)
    rtt_s = min(delays)

    def up_s(nbytes: int) -> float:
        return ping(nbytes, 0, PATIENCE_S).delay_s - rtt_s

    def down_s(nbytes: int) -> float:
        return ping(0, nbytes, PATIENCE_S).delay_s - rtt_s

    return Link(
        uplink_bps=_rate_bps(up_s),
        downlink_bps=_rate_bps(down_s),
        rtt_s=max(0.0, median(delays) - EXCHANGE_S),
    )


def _round_trips(ping: Ping) -> list[float]:
    ping(0, 0, PATIENCE_S)  # the first one also wakes both sides up
    delays: list[float] = []
    while len(delays) < FEWEST or (len(delays) < MOST and sum(delays) < SHORT_S):
        delays.append(ping(0, 0, PATIENCE_S).delay_s)
    return delays


def _rate_bps(serial_s: Callable[[int], float]) -> float:
    nbytes, spent_s = SMALLEST_NBYTES, 0.0
    while True:
        took_s = serial_s(nbytes)
        spent_s += took_s
        if nbytes >= LARGEST_NBYTES or took_s >= ENOUGH_S:
            break
        if spent_s + took_s * GROWTH > BUDGET_S:
            break
        nbytes *= GROWTH
    samples_s = [took_s]
    while len(samples_s) < REPEATS and spent_s + took_s <= BUDGET_S:
        samples_s.append(serial_s(nbytes))
        spent_s += samples_s[-1]
    least_s = nbytes * 8 / MOST_BPS
    return nbytes * 8 / max(least_s, median(samples_s))
