"""A line is a function of the times it is told: exact, in order, nothing invented."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_lab.emulation.model.impairments import Jitter, Losses
from midstream_lab.emulation.model.packet_queue import Line
from midstream_lab.emulation.model.rates import Rates
from midstream_lab.emulation.model.spec import LinkSpec, Loss, Rate
from midstream_lab.traces.trace import Trace

PACKET = bytes(1250)  # 10,000 bits


def line(rate: Rate = 1e6, delay_s: float = 0.0, **others: object) -> Line:
    spec = LinkSpec(rate, rate, delay_s, **others)  # type: ignore[arg-type]
    return Line(spec, spec.uplink, "uplink")


def dues_s(one: Line, until_s: float = 1e9) -> list[float]:
    return [due_s for due_s, _ in one.pop(until_s)]


def test_a_packet_takes_its_bits_and_the_delay() -> None:
    one = line(1e6, 0.02)
    one.push(PACKET, 5.0)
    assert one.next_s == pytest.approx(5.03)
    assert one.pop(5.0299) == []
    assert dues_s(one, 5.0301) == pytest.approx([5.03])


def test_packets_follow_one_another_at_the_rate_and_idle_time_is_not_saved() -> None:
    one = line(1e6)
    for at_s in (0.0, 0.0, 1.0):
        one.push(PACKET, at_s)
    assert dues_s(one) == pytest.approx([0.01, 0.02, 1.01])


def test_a_new_rate_holds_for_all_that_waits_and_for_the_rest_of_what_is_being_sent() -> None:
    one = line(1e6)
    for _ in range(3):
        one.push(PACKET, 0.0)
    slow = LinkSpec(1e5, 1e5, 0.0)
    one.set(slow, slow.uplink, 0.015)  # the second is half sent
    assert dues_s(one) == pytest.approx([0.01, 0.015 + 0.05, 0.015 + 0.05 + 0.1])


def test_a_shorter_delay_lets_nothing_overtake() -> None:
    one = line(1e6, 0.5)
    one.push(PACKET, 0.0)
    one.pop(0.02)
    near = LinkSpec(1e6, 1e6, 0.0)
    one.set(near, near.uplink, 0.02)
    one.push(PACKET, 0.02)
    assert dues_s(one) == pytest.approx([0.51, 0.51])


def test_the_queue_drops_what_does_not_fit_and_has_room_again_as_it_drains() -> None:
    one = line(1e6, queue_nbytes=3 * 1250)
    for _ in range(5):
        one.push(PACKET, 0.0)
    assert (one.counters.dropped_packets, one.counters.dropped_nbytes) == (2, 2500)
    one.push(PACKET, 0.0101)
    assert one.counters.dropped_packets == 2
    assert one.queued_nbytes == 3 * 1250 == one.counters.most_queued_nbytes


def test_a_trace_holds_its_mean_until_it_is_started_and_repeats_from_then_on() -> None:
    rates = Rates(Trace("steps", [0.0, 1.0, 3.0], [4e6, 1e6]))
    assert rates.at(99.0) == (2e6, math.inf)
    rates.start(100.0)
    assert rates.at(100.5) == (4e6, 101.0)
    assert rates.at(101.0) == (1e6, 103.0)
    assert rates.at(103.25) == (4e6, 104.0)


def test_an_outage_holds_a_packet_half_sent() -> None:
    one = line(Trace("outage", [0.0, 0.005, 1.0, 2.0], [1e6, 0.0, 1e6]))
    one.start_trace(10.0)
    one.push(PACKET, 10.0)
    assert one.next_s == pytest.approx(10.005)
    assert dues_s(one, 11.0049) == []
    assert dues_s(one, 11.0051) == pytest.approx([11.005])


@given(
    steps=st.lists(
        st.tuples(st.floats(0.001, 0.3), st.sampled_from([0.0, 1e4, 3e5, 2e6, 5e7])),
        min_size=1,
        max_size=8,
    ).filter(lambda steps: any(rate_bps > 0 for _, rate_bps in steps)),
    sizes=st.lists(st.integers(40, 1500), min_size=1, max_size=30),
    looks_s=st.lists(st.floats(0.0, 5.0), max_size=10),
)
def test_what_a_trace_lets_through_is_its_integral_however_often_one_looks(
    steps: list[tuple[float, float]], sizes: list[int], looks_s: list[float]
) -> None:
    edges_s = [0.0, *itertools.accumulate(length_s for length_s, _ in steps)]
    trace = Trace("drawn", edges_s, [rate_bps for _, rate_bps in steps])
    one = line(trace, 0.0, queue_nbytes=1 << 20)
    one.start_trace(0.0)
    for nbytes in sizes:
        one.push(bytes(nbytes), 0.0)
    found_s = [due for look_s in sorted(looks_s) for due in dues_s(one, look_s)]
    found_s += dues_s(one, 1e7)
    wanted_s = [trace.finish_s(0.0, nbytes) for nbytes in itertools.accumulate(sizes)]
    assert found_s == pytest.approx(wanted_s, rel=1e-6, abs=1e-6)
    assert one.counters.delivered_nbytes == sum(sizes)


@given(
    gaps_s=st.lists(st.floats(0.0, 0.05), min_size=2, max_size=60),
    seed=st.integers(0, 99),
)
def test_jitter_keeps_within_its_bounds_and_the_order(gaps_s: list[float], seed: int) -> None:
    one = line(1e9, 0.1, jitter_s=0.03, seed=seed)
    arrivals_s = list(itertools.accumulate(gaps_s))
    for number, at_s in enumerate(arrivals_s):
        one.push(bytes([number]) * 40, at_s)
    arrived = one.pop(1e9)
    assert [packet[0] for _, packet in arrived] == list(range(len(gaps_s)))
    for (due_s, _), at_s in zip(arrived, arrivals_s, strict=True):
        assert 0.07 - 1e-6 <= due_s - at_s <= 0.13 + 1e-5


def test_jitter_has_no_mean_whatever_the_density_and_comes_from_its_seed() -> None:
    jitter, same, other = Jitter(0.01, "1"), Jitter(0.01, "1"), Jitter(0.01, "2")
    times_s = [n * 0.0005 for n in range(20_000)]
    drawn_s = [jitter.at(each) for each in times_s]
    assert abs(statistics.fmean(drawn_s)) < 0.001
    assert max(drawn_s) > 0.008
    assert min(drawn_s) < -0.008
    later_s = [same.at(1000.0 + each) for each in times_s]
    assert drawn_s == pytest.approx(later_s, abs=1e-8)
    assert drawn_s[:100] != [other.at(each) for each in times_s[:100]]


def test_losses_come_as_often_as_asked_from_their_seed() -> None:
    def struck(loss: Loss, seed: str) -> list[bool]:
        losses = Losses(loss, seed)
        return [losses.strikes() for _ in range(50_000)]

    single = struck(Loss.random(0.02), "a")
    assert statistics.fmean(single) == pytest.approx(0.02, rel=0.1)
    assert single == struck(Loss.random(0.02), "a")
    assert single != struck(Loss.random(0.02), "b")


def test_bursts_are_as_long_and_as_frequent_as_asked() -> None:
    loss = Loss.bursts(0.05, 8)
    assert loss.mean_share == pytest.approx(0.05)
    losses = Losses(loss, "a")
    runs = [
        sum(1 for _ in run)
        for lost, run in itertools.groupby(losses.strikes() for _ in range(300_000))
        if lost
    ]
    assert statistics.fmean(runs) == pytest.approx(8, rel=0.1)
    assert sum(runs) / 300_000 == pytest.approx(0.05, rel=0.1)


def test_a_lost_packet_took_its_time_on_the_line() -> None:
    one = line(1e6, loss=Loss.random(0.5), seed=3, queue_nbytes=1 << 20)
    for _ in range(100):
        one.push(PACKET, 0.0)
    found_s = dues_s(one)
    assert one.counters.lost_packets == 100 - len(found_s) > 25
    assert all(due_s * 100 == pytest.approx(round(due_s * 100)) for due_s in found_s)


def test_a_cut_line_forgets_what_waits_and_what_flies_and_counts_it() -> None:
    one = line(1e6, 0.1)
    for _ in range(4):
        one.push(PACKET, 0.0)
    one.pop(0.025)
    one.flush()
    assert one.next_s == math.inf
    assert (one.pop(1e9), one.queued_nbytes, one.counters.cut_packets) == ([], 0, 4)
    one.push(PACKET, 1.0)
    assert dues_s(one) == pytest.approx([1.11])
