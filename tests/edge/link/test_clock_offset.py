"""Two clocks told apart, and a request's time split by what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.link.clock_offset import ClockEstimate, CloudTimes, Exchange, split_timings

moments = st.floats(0, 1e6)
durations = st.floats(0, 10)
offsets = st.floats(-1e6, 1e6)
anything = st.floats(allow_nan=True, allow_infinity=True)


def exchange(
    sent: float, offset: float, up: float, served: float, down: float, *, empty: bool = True
) -> Exchange:
    received = sent + up
    return Exchange(
        sent,
        received + offset,
        received + served + offset,
        received + served + down,
        empty,
    )


@given(moments, offsets, durations, durations, durations)
def test_the_offset_is_wrong_by_at_most_half_the_delay(
    sent: float, offset: float, up: float, served: float, down: float
) -> None:
    seen = exchange(sent, offset, up, served, down)
    assert seen.delay_s == pytest.approx(up + down, abs=1e-6)
    assert abs(seen.offset_s - offset) <= seen.delay_s / 2 + 1e-6


def test_the_exchange_of_the_lowest_delay_is_kept() -> None:
    clock = ClockEstimate()
    assert clock.to_edge(5.0) is None
    for delay_s in (0.3, 0.1, 0.2):
        clock = clock.observe(exchange(10, 100, delay_s / 2, 0.01, delay_s / 2))
    assert clock.best is not None
    assert clock.best.delay_s == pytest.approx(0.1)
    assert clock.to_edge(105.0) == pytest.approx(5.0)


@given(moments, offsets, durations, durations, st.floats(0, 5))
def test_the_way_up_is_told_from_the_reply_however_the_delay_is_divided(
    sent: float, offset: float, up: float, down: float, longer: float
) -> None:
    clock = ClockEstimate()
    assert clock.gone_s(5.0) is None
    clock = clock.observe(exchange(0, offset, up, 0.01, down))
    gone_s = clock.gone_s(sent + up + longer + offset)
    assert gone_s == pytest.approx(sent + longer, abs=1e-6)


def test_another_path_is_measured_by_its_own_empty_exchanges() -> None:
    """A handover adds 20 ms each way; the offset still rests on the best there ever was."""
    clock = ClockEstimate()
    for at_s in range(8):
        clock = clock.observe(exchange(at_s, 100, 0.01, 0, 0.01))
    before = clock.best
    for at_s in range(8, 16):
        clock = clock.observe(exchange(at_s, 100, 0.03, 0, 0.03))
    assert clock.best == before
    gone_s = clock.gone_s(20.0 + 0.03 + 100)
    assert gone_s == pytest.approx(20.0)


def test_an_exchange_behind_others_is_no_empty_one() -> None:
    clock = ClockEstimate().observe(exchange(0, 100, 0.01, 0, 0.01))
    for at_s in range(1, 20):
        clock = clock.observe(exchange(at_s, 100, 2.0, 0, 0.01, empty=False))
    assert clock.gone_s(30.01 + 100) == pytest.approx(30.0)


def test_an_old_exchange_gives_way_to_a_slightly_slower_one() -> None:
    old = ClockEstimate().observe(exchange(0, 100, 0.05, 0, 0.05))
    young = exchange(10, 100.2, 0.06, 0, 0.06)
    assert old.observe(young).best == old.best
    later = exchange(10_000, 100.2, 0.06, 0, 0.06)
    assert old.observe(later).best == later


def test_impossible_readings_change_nothing() -> None:
    clock = ClockEstimate().observe(exchange(0, 100, 0.1, 0, 0.1))
    for reading in (math.nan, math.inf, -math.inf):
        assert clock.observe(Exchange(0, reading, reading, 0.1)) == clock


def test_links_are_told_apart_by_the_clock() -> None:
    clock = ClockEstimate().observe(exchange(0, 50, 0.01, 0, 0.01))
    # Head 0.1, encoding 0.02, uplink 0.3, queue 0.03, decoding 0.01, tail 0.2, downlink 0.04.
    cloud = CloudTimes(finished_s=50 + 10.66, queue_s=0.03, decode_s=0.01, tail_s=0.2)
    timings = split_timings(
        clock, cloud, head_s=0.1, encode_s=0.02, total_s=0.7, answered_s=10.7
    )
    assert timings.uplink_s == pytest.approx(0.3)
    assert timings.downlink_s == pytest.approx(0.04)
    assert (timings.queue_s, timings.decode_s, timings.tail_s) == (0.03, 0.01, 0.2)
    assert timings.total_s == pytest.approx(0.7)


@given(anything, anything, anything, anything, durations, durations, durations)
def test_whatever_the_cloud_claims_timings_add_up_and_are_not_negative(
    finished: float,
    queue: float,
    decode: float,
    tail: float,
    head: float,
    encode: float,
    more: float,
) -> None:
    clock = ClockEstimate().observe(exchange(0, 0, 0.1, 0, 0.1))
    total = head + encode + more
    timings = split_timings(
        clock,
        CloudTimes(finished, queue, decode, tail),
        head_s=head,
        encode_s=encode,
        total_s=total,
        answered_s=100.0,
    )
    assert min(timings.to_dict().values()) >= 0
    assert timings.total_s == pytest.approx(total, abs=1e-9)
