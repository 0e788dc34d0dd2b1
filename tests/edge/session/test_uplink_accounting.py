"""What the books tell of a request's journey, in virtual time: the link's share alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.link.clock_offset import ClockEstimate, Exchange
from midstream_edge.link.observations import Transfer
from midstream_edge.link.uplink_backlog import Departure
from midstream_edge.session.transmission import Transmission
from midstream_edge.session.uplink_accounting import UplinkAccounts

#: The cloud's clock on the edge's.
OFFSET_S = 1000.0
shares = st.floats(0.0, 0.5)


def told(
    frames: list[tuple[float, int]],
    *,
    rate_bps: float,
    up_s: float,
    down_s: float,
    decode_s: float,
    late_s: float,
    clock: ClockEstimate,
) -> Transfer:
    """What a request tells whose frames are each ready some seconds after the one before.

    An empty way takes `up_s` and `down_s`; the reply is `late_s` later than it need be.
    """
    departures, now_s, ended_s, before_nbytes = [], 0.0, 0.0, 0
    for encode_s, nbytes in frames:
        now_s += encode_s
        departures.append(Departure(now_s, before_nbytes))
        ended_s = max(ended_s, now_s) + 8 * nbytes / rate_bps
        before_nbytes += nbytes
    received_s = ended_s + up_s
    replied_s = received_s + decode_s
    sending: Any = SimpleNamespace(
        departures=departures,
        payload_nbytes=before_nbytes,
        reply_nbytes=100,
        ahead_nbytes=0,
        mark_nbytes=0,
        stream=None,
    )
    exchange = Exchange(
        departures[-1].at_s,
        received_s + OFFSET_S,
        replied_s + OFFSET_S,
        replied_s + down_s + late_s,
    )
    return UplinkAccounts().close(cast(Transmission, sending), exchange, clock)


@given(
    frames=st.lists(st.tuples(shares, st.integers(40_000, 500_000)), min_size=1, max_size=8),
    rate_bps=st.floats(1e6, 2e7),
    up_s=st.floats(0.0, 0.1),
    down_s=st.floats(0.0, 0.1),
    decode_s=shares,
    late_s=shares,
)
def test_neither_encoding_nor_decoding_nor_a_late_reply_is_the_links_time(
    frames: list[tuple[float, int]],
    rate_bps: float,
    up_s: float,
    down_s: float,
    decode_s: float,
    late_s: float,
) -> None:
    there_s = up_s - 1.0 + OFFSET_S
    ping = Exchange(-1.0, there_s, there_s, up_s + down_s - 1.0, empty=True)
    transfer = told(
        frames,
        rate_bps=rate_bps,
        up_s=up_s,
        down_s=down_s,
        decode_s=decode_s,
        late_s=late_s,
        clock=ClockEstimate().observe(ping),
    )
    assert transfer.up_s is not None
    assert 8 * transfer.nbytes / transfer.up_s == pytest.approx(rate_bps, rel=0.1)
    assert transfer.up_s <= transfer.took_s


def test_without_a_clock_the_whole_exchange_is_all_that_is_known() -> None:
    transfer = told(
        [(0.1, 100_000)],
        rate_bps=8e6,
        up_s=0.02,
        down_s=0.03,
        decode_s=0.4,
        late_s=0.0,
        clock=ClockEstimate(),
    )
    assert transfer.up_s is None
    assert transfer.took_s == pytest.approx(0.1 + 0.02 + 0.03)
