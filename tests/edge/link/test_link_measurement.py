"""Probing made-up links, in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.link.clock_offset import Exchange
from midstream_edge.link.link_measurement import measure_link
from midstream_wire.errors import CloudUnavailable


class FakeLink:
    """Takes S / rate + rtt, with some jitter; counts its own time."""

    def __init__(self, up_bps: float, down_bps: float, rtt_s: float, jitter_s: float) -> None:
        self.up_bps, self.down_bps, self.rtt_s = up_bps, down_bps, rtt_s
        self.jitter_s = jitter_s
        self.random = random.Random(0)
        self.now_s = 0.0
        self.round_trips_s = 0.0

    def ping(self, up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange:
        took_s = self.rtt_s + 8 * up_nbytes / self.up_bps + 8 * down_nbytes / self.down_bps
        took_s += self.random.uniform(0, self.jitter_s)
        assert took_s < timeout_s
        sent_s, self.now_s = self.now_s, self.now_s + took_s
        if up_nbytes == down_nbytes == 0:
            self.round_trips_s += took_s
        middle_s = 1000 + sent_s + took_s / 2
        return Exchange(sent_s, middle_s, middle_s, self.now_s)


@given(
    st.floats(0.5e6, 1e9),
    st.floats(0.5e6, 1e9),
    st.floats(0.001, 0.6),
)
def test_rates_and_delay_are_found_within_two_seconds_of_sending(
    up_bps: float, down_bps: float, rtt_s: float
) -> None:
    fake = FakeLink(up_bps, down_bps, rtt_s, jitter_s=0.0005)
    link = measure_link(fake.ping)
    assert link.uplink_bps == pytest.approx(up_bps, rel=0.1)
    assert link.downlink_bps == pytest.approx(down_bps, rel=0.1)
    assert link.rtt_s == pytest.approx(rtt_s, abs=0.001)
    spent_s = fake.now_s - fake.round_trips_s
    assert spent_s - 14 * rtt_s < 1.6


def test_a_very_slow_link_gets_one_probe_each_way() -> None:
    fake = FakeLink(0.05e6, 0.05e6, 0.3, jitter_s=0.0)
    link = measure_link(fake.ping)
    assert link.uplink_bps == pytest.approx(0.05e6)


def test_a_link_without_limit_is_capped() -> None:
    fake = FakeLink(1e15, 1e15, 0.0, jitter_s=0.0)
    link = measure_link(fake.ping)
    assert (link.uplink_bps, link.downlink_bps, link.rtt_s) == (10e9, 10e9, 0.0)


def test_a_link_that_breaks_is_an_error() -> None:
    def ping(up_nbytes: int, down_nbytes: int, timeout_s: float) -> Exchange:
        raise CloudUnavailable("gone")

    with pytest.raises(CloudUnavailable):
        measure_link(ping)
