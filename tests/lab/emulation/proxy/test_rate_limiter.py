"""The line in virtual time: exact, in order, and no error adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_lab.emulation.proxy.rate_limiter import SLACK_S, Shaper

RATE_BPS = 8000.0  # a byte a millisecond


def drained(shaper: Shaper[int], start_s: float = 0.0) -> list[tuple[float, int]]:
    """Everything that comes out, by an owner who always wakes on time."""
    out, now_s = [], start_s
    while (next_s := shaper.next_s) is not None:
        now_s = max(now_s, next_s)
        out += shaper.pop(now_s)
    return out


def test_an_item_is_due_after_its_bits_and_the_delay() -> None:
    shaper: Shaper[int] = Shaper(RATE_BPS, 0.5)
    shaper.push(1, 100, 10.0)
    assert shaper.pop(10.59) == []
    [(due_s, item)] = shaper.pop(10.61)
    assert (due_s, item) == pytest.approx((10.6, 1))
    assert shaper.next_s is None


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 0.5)), min_size=1, max_size=40),
    st.lists(st.floats(0, 1.0), min_size=1, max_size=40),
)
def test_order_and_rate_hold_however_late_the_owner_wakes(
    items: list[tuple[int, float]], late_s: list[float]
) -> None:
    punctual: Shaper[int] = Shaper(RATE_BPS, 0.1)
    late: Shaper[int] = Shaper(RATE_BPS, 0.1)
    now_s, total = 0.0, 0
    for index, (nbytes, gap_s) in enumerate(items):
        now_s += gap_s
        total += nbytes
        punctual.push(index, nbytes, now_s)
        late.push(index, nbytes, now_s)
    assert punctual.queued_nbytes == total
    on_time = drained(punctual)
    out = []
    for wait_s in late_s:
        out += late.pop(wait_s)
    out += late.pop(1e9)
    assert out == on_time
    assert [item for _, item in out] == list(range(len(items)))
    first_s = out[0][0] - items[0][0] * 8 / RATE_BPS
    assert out[-1][0] - first_s >= total * 8 / RATE_BPS - 1e-9
    assert punctual.queued_nbytes == late.queued_nbytes == 0


@given(
    st.lists(st.floats(0.0, 3.0), max_size=8).map(sorted),
    st.lists(st.floats(100.0, 1e5), min_size=8, max_size=8),
    st.lists(st.floats(0.0, 0.5), min_size=8, max_size=8),
)
def test_a_new_rate_holds_for_what_is_queued_and_nothing_overtakes(
    times_s: list[float], rates_bps: list[float], delays_s: list[float]
) -> None:
    shaper: Shaper[int] = Shaper(RATE_BPS, 0.1)
    for index in range(20):
        shaper.push(index, 100, 0.0)
    out = []
    rate_bps, last_s, bits = RATE_BPS, 0.0, 0.0
    for now_s, new_bps, delay_s in zip(times_s, rates_bps, delays_s, strict=False):
        out += shaper.pop(now_s)
        shaper.set(new_bps, delay_s, now_s)
        bits += (now_s - last_s) * rate_bps
        rate_bps, last_s = new_bps, now_s
    out += drained(shaper, last_s)
    assert [item for _, item in out] == list(range(20))
    dues_s = [due_s for due_s, _ in out]
    assert dues_s == sorted(dues_s)
    if bits < 20 * 800:
        assert dues_s[-1] >= last_s + (20 * 800 - bits) / rate_bps - 1e-6


@pytest.mark.parametrize(
    ("rate_bps", "nbytes"), [(2e6, 75_000), (20e6, 10**6), (100e6, 5 * 10**6)]
)
def test_a_long_transfer_and_its_acknowledgement_take_bits_and_delays_exactly(
    rate_bps: float, nbytes: int
) -> None:
    """In pieces, as a proxy reads them, whoever wakes it when each is due."""
    up: Shaper[int] = Shaper(rate_bps, 0.005)
    down: Shaper[int] = Shaper(rate_bps, 0.005)
    for index, begin in enumerate(range(0, nbytes, 1400)):
        up.push(index, min(1400, nbytes - begin), 3.0)
    arrived_s, _ = drained(up, 3.0)[-1]
    down.push(0, 0, arrived_s)
    answered_s, _ = drained(down, arrived_s)[-1]
    assert answered_s - 3.0 == pytest.approx(nbytes * 8 / rate_bps + 0.01)


@pytest.mark.parametrize("rtt_s", [0.0, 0.02, 0.1])
def test_a_small_exchange_takes_the_round_trip(rtt_s: float) -> None:
    up: Shaper[int] = Shaper(100e6, rtt_s / 2)
    down: Shaper[int] = Shaper(100e6, rtt_s / 2)
    for number in range(20):
        begin_s = number * 0.3
        up.push(number, 4, begin_s)
        [(there_s, _)] = drained(up, begin_s)
        down.push(number, 4, there_s)
        [(back_s, _)] = drained(down, there_s)
        assert back_s - begin_s == pytest.approx(rtt_s + 2 * 4 * 8 / 100e6)


def test_half_an_item_sent_stays_sent_when_the_rate_changes() -> None:
    shaper: Shaper[int] = Shaper(RATE_BPS, 0.0)
    shaper.push(1, 1000, 0.0)
    shaper.set(RATE_BPS / 10, 0.0, 0.5)
    assert shaper.next_s == pytest.approx(5.5)
    shaper.set(RATE_BPS, 0.0, 1.5)
    assert shaper.next_s == pytest.approx(1.9)


def test_a_pause_shifts_what_is_queued_and_what_is_in_flight_alike() -> None:
    shaper: Shaper[int] = Shaper(RATE_BPS, 0.2)
    shaper.push(1, 100, 0.0)
    shaper.push(2, 100, 0.0)
    shaper.pause(0.15)
    shaper.pause(0.2)
    assert shaper.next_s is None
    assert shaper.pop(9.0) == []
    shaper.push(3, 100, 5.0)
    shaper.resume(10.15)
    shaper.resume(11.0)
    out = drained(shaper)
    assert [item for _, item in out] == [1, 2, 3]
    assert [due_s for due_s, _ in out] == pytest.approx([10.3, 10.4, 10.5])


def test_a_late_reader_does_not_leave_the_line_idle() -> None:
    shaper: Shaper[int] = Shaper(RATE_BPS, 0.0)
    shaper.push(1, 100, 0.0)
    shaper.pop(0.1)
    shaper.push(2, 100, 0.1 + SLACK_S / 2, waited=True)
    assert shaper.next_s == pytest.approx(0.2)
    shaper.pop(0.2)
    shaper.push(3, 100, 9.0, waited=True)
    assert shaper.next_s == pytest.approx(9.1 - SLACK_S)
