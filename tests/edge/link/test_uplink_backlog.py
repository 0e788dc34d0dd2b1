"""The books of the uplink: what was handed over, what has arrived, how large messages are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.link.observations import Transfer
from midstream_edge.link.uplink_backlog import Departure, Uplink, busy_since
from midstream_wire.limits import MESSAGE_NBYTES


def test_messages_shrink_on_a_slow_line_and_never_below_the_least() -> None:
    assert Uplink().message_nbytes == MESSAGE_NBYTES
    assert Uplink(rate_bps=20e6).message_nbytes == 50_000
    assert Uplink(rate_bps=1e3).message_nbytes == 16 * 1024


def test_without_acknowledgements_a_reply_says_what_has_arrived() -> None:
    line = Uplink().hand(1000).hand(500)
    assert line.backlog_nbytes(None) == 1500
    line = line.arrive(1000, None)
    assert line.backlog_nbytes(None) == 500
    assert line.missing_nbytes(1500, None) == 0  # it may have arrived


def test_acknowledgements_say_it_sooner() -> None:
    line = Uplink().hand(1000).arrive(1000, acked_nbytes=1090).hand(500)
    assert line.backlog_nbytes(1090) == 500
    assert line.backlog_nbytes(1290) == 300
    assert line.missing_nbytes(1200, 1190) == 100


def test_an_old_reply_takes_nothing_back() -> None:
    line = Uplink().hand(1000).hand(500).arrive(1500, None)
    assert line.arrive(1000, None).backlog_nbytes(None) == 0


def test_the_rate_of_a_line_is_that_of_its_large_transfers() -> None:
    line = Uplink().learn(Transfer(100_000, 0, took_s=0.14), delay_s=0.04)
    assert line.rate_bps == 8e6
    assert line.learn(Transfer(100, 0, took_s=5.0), delay_s=0.04) == line
    half = line.learn(Transfer(50_000, 0, took_s=0.14, ahead_nbytes=0), delay_s=0.04)
    assert half.rate_bps == 6e6


@given(
    steps=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), max_size=20),
    acked=st.none() | st.integers(0, 10**6),
)
def test_a_backlog_is_never_negative_nor_more_than_was_handed(
    steps: list[tuple[int, int]], acked: int | None
) -> None:
    line = Uplink()
    for nbytes, mark in steps:
        line = line.hand(nbytes).arrive(min(mark, line.handed_nbytes), acked)
        assert 0 <= line.backlog_nbytes(acked) <= line.handed_nbytes
        assert 0 <= line.missing_nbytes(line.handed_nbytes, acked) <= line.handed_nbytes


@given(
    frames=st.lists(
        st.tuples(st.floats(0.0, 0.5), st.integers(10_000, 500_000)), min_size=1, max_size=12
    ),
    rate_bps=st.floats(1e6, 1e8),
)
def test_the_time_of_the_encoder_is_not_the_links(
    frames: list[tuple[float, int]], rate_bps: float
) -> None:
    departures, now_s, ended_s, before = [], 0.0, 0.0, 0
    for encode_s, nbytes in frames:
        now_s += encode_s  # the next frame is ready so much later
        departures.append(Departure(now_s, before))
        ended_s = max(ended_s, now_s) + 8 * nbytes / rate_bps
        before += nbytes
    since = busy_since(departures, before, until_s=ended_s, blur_s=1e-9)
    seen_bps = 8 * (before - since.before_nbytes) / (ended_s - since.at_s)
    assert seen_bps == pytest.approx(rate_bps, rel=1e-3)


def test_noise_at_the_end_of_a_transfer_is_not_taken_for_its_rate() -> None:
    departures = [Departure(0.0, 0), Departure(0.001, 500_000), Departure(0.002, 999_000)]
    since = busy_since(departures, 1_000_000, until_s=0.0021, blur_s=0.005)
    assert since.before_nbytes == 0
