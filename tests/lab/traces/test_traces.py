"""Traces as values: what passes, when it is through, and what changing them keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_lab.traces.conditions import CONDITIONS
from midstream_lab.traces.generators import KINDS, fitted, generate
from midstream_lab.traces.statistics import statistics
from midstream_lab.traces.trace import MOST_STEPS, Trace
from midstream_wire.errors import UsageError

RATES = st.lists(st.one_of(st.just(0.0), st.floats(1e3, 1e9)), min_size=1, max_size=20).filter(
    any
)
WIDTHS = st.floats(0.01, 100.0)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rates = draw(RATES)
    widths = draw(st.lists(WIDTHS, min_size=len(rates), max_size=len(rates)))
    return Trace("drawn", np.concatenate(([0.0], np.cumsum(widths))), rates)


def steps(*rates_bps: float) -> Trace:
    return Trace("steps", range(len(rates_bps) + 1), rates_bps)


def test_a_transfer_goes_through_every_rate_on_its_way() -> None:
    trace = steps(8000, 0, 16000)  # 1,000 bytes, silence, 2,000 bytes
    assert trace.finish_s(0.0, 500) == pytest.approx(0.5)
    assert trace.finish_s(0.0, 1000) == pytest.approx(1.0)
    assert trace.finish_s(0.0, 2000) == pytest.approx(2.5)
    assert trace.finish_s(1.5, 1) == pytest.approx(2.0005)
    assert trace.finish_s(2.5, 1500) == pytest.approx(3.5)  # into the next round
    assert trace.finish_s(0.0, 30_000) == pytest.approx(30.0)


def test_a_trace_that_lets_nothing_pass_never_ends() -> None:
    assert steps(0, 0).finish_s(0.0, 1) == math.inf
    assert steps(0, 0).finish_s(3.0, 0) == 3.0


@given(traces(), st.floats(0, 1e4), st.floats(1, 1e9))
def test_what_is_through_is_what_the_rate_adds_up_to(
    trace: Trace, start_s: float, nbytes: float
) -> None:
    end_s = trace.finish_s(start_s, nbytes)
    assert end_s >= start_s
    passed = trace.nbits_by(end_s) - trace.nbits_by(start_s)
    # A double holds the sum up to `end_s` to about sixteen figures, no better.
    tolerance = 1e-9 * (trace.nbits_by(end_s) + max(trace.rates_bps) * end_s) + 1e-3
    assert passed == pytest.approx(8 * nbytes, abs=tolerance)


@given(traces(), st.floats(0, 1e3), st.floats(1, 1e7), st.floats(1, 1e7))
def test_a_transfer_in_two_pieces_takes_as_long_as_in_one(
    trace: Trace, start_s: float, first: float, second: float
) -> None:
    middle_s = trace.finish_s(start_s, first)
    pieces_s = trace.finish_s(middle_s, second)
    whole_s = trace.finish_s(start_s, first + second)
    # An instant of silence may turn either way upon the last bit of a double.
    silence_s = trace.duration_s if 0.0 in trace.rates_bps else 0.0
    assert pieces_s == pytest.approx(whole_s, rel=1e-6, abs=1e-6 + silence_s)


def test_the_rate_at_a_moment_loops() -> None:
    trace = steps(1e6, 2e6)
    assert [trace.rate_at(at) for at in (0, 0.99, 1, 1.99, 2, 3.5, 1001)] == [
        1e6, 1e6, 2e6, 2e6, 1e6, 2e6, 2e6,
    ]  # fmt: skip


@given(traces(), st.floats(0.05, 50.0))
def test_resampling_keeps_every_bit(trace: Trace, step_s: float) -> None:
    other = trace.resampled(step_s)
    assert other.duration_s == pytest.approx(trace.duration_s)
    assert other.mean_bps == pytest.approx(trace.mean_bps)
    assert np.diff(other.times_s)[:-1] == pytest.approx(step_s)


@given(traces(), st.floats(0, 0.99), st.floats(0.01, 1))
def test_a_piece_is_the_trace_between_two_moments(
    trace: Trace, start: float, length: float
) -> None:
    from_s = start * trace.duration_s
    to_s = min(trace.duration_s, from_s + length * trace.duration_s)
    if to_s <= from_s:
        return
    piece = trace.cut(from_s, to_s)
    assert piece.duration_s == pytest.approx(to_s - from_s)
    wanted = (
        trace.nbits_by(to_s) - trace.nbits_by(from_s)
        if to_s < trace.duration_s
        else (trace.mean_bps * trace.duration_s - trace.nbits_by(from_s))
    )
    whole = trace.mean_bps * trace.duration_s
    assert piece.mean_bps * piece.duration_s == pytest.approx(wanted, abs=1e-9 * whole + 1e-3)


def test_looping_repeats_and_shortens() -> None:
    trace = steps(1e6, 2e6)
    assert trace.looped(3.5).rates_bps.tolist() == [1e6, 2e6, 1e6, 2e6]
    assert trace.looped(3.5).times_s.tolist() == [0, 1, 2, 3, 3.5]
    assert trace.looped(0.5).times_s.tolist() == [0, 0.5]


def test_a_scaled_trace_is_so_many_times_as_fast() -> None:
    assert steps(1e6, 0).scaled(2.5).rates_bps.tolist() == [2.5e6, 0]


def test_a_trace_cannot_be_changed_and_equals_one_alike() -> None:
    trace = steps(1e6, 2e6)
    with pytest.raises(ValueError, match="read-only"):
        trace.rates_bps[0] = 1.0
    with pytest.raises(AttributeError):
        trace.name = "other"  # type: ignore[misc]
    assert (trace, hash(trace)) == (steps(1e6, 2e6), hash(steps(1e6, 2e6)))
    assert trace != steps(1e6, 3e6)


@pytest.mark.parametrize(
    ("times_s", "rates_bps", "says"),
    [
        ([0, 1], [1, 2], "one more time than rates"),
        ([0], [], "1 to 1000000 steps"),
        ([1, 2], [1], "rise from 0"),
        ([0, 2, 1], [1, 1], "rise from 0"),
        ([0, math.nan], [1], "rise from 0"),
        ([0, 1], [-1], "-1.0 bit/s at 0 s"),
        ([0, 1], [math.nan], "nan bit/s at 0 s"),
        ([0, 1], [1e13], "1 Tbit/s"),
        (np.arange(MOST_STEPS + 2), np.ones(MOST_STEPS + 1), "1 to 1000000 steps"),
    ],
)
def test_what_is_no_trace_is_refused(
    times_s: list[float], rates_bps: list[float], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        Trace("bad", times_s, rates_bps)


def test_no_change_makes_a_trace_without_bound() -> None:
    trace = steps(1e6, 2e6)
    with pytest.raises(UsageError, match="at most 1000000 steps"):
        trace.resampled(1e-9)
    with pytest.raises(UsageError, match="at most 1000000 steps"):
        trace.looped(1e9)


@pytest.mark.parametrize(("from_s", "to_s"), [(1, 1), (0, 3), (-1, 1), (0, math.nan)])
def test_a_piece_outside_the_trace_is_refused(from_s: float, to_s: float) -> None:
    with pytest.raises(UsageError, match="within 0 s and 2 s"):
        steps(1e6, 2e6).cut(from_s, to_s)
    with pytest.raises(UsageError, match="factor"):
        steps(1e6).scaled(from_s - to_s)


def test_statistics_weigh_by_time() -> None:
    found = statistics(Trace("t", [0, 9, 10], [1e6, 0]))
    assert (found.mean_bps, found.p50_bps, found.p5_bps) == (0.9e6, 1e6, 0.0)
    assert found.outage_share == pytest.approx(0.1)
    assert (found.outages, found.longest_outage_s) == (1, 1.0)
    assert found.variation == pytest.approx(1 / 3)


def test_outages_next_to_each_other_are_one() -> None:
    found = statistics(steps(1e6, 0, 11_000, 1e6, 0, 1e6))
    assert (found.outages, found.longest_outage_s) == (2, 2.0)


def test_an_even_trace_has_no_memory() -> None:
    assert statistics(steps(*[1e6] * 50)).memory_s is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_up_trace_is_what_its_kind_says(kind: str) -> None:
    shape = KINDS[kind]
    trace = generate(kind, seed=1, duration_s=40_000.0, step_s=1.0)
    found = fitted(trace)
    assert found.median_bps == pytest.approx(CONDITIONS[kind].uplink_bps, rel=0.1)
    assert found.sigma == pytest.approx(shape.sigma, rel=0.1)
    assert found.memory_s == pytest.approx(shape.memory_s, rel=0.25, abs=0.3)
    out = statistics(trace).outage_share
    cycle_s = shape.outage_every_s + shape.outage_s
    assert out == pytest.approx(shape.outage_s / cycle_s, rel=0.4, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_trace(kind: str) -> None:
    assert generate(kind, seed=3, duration_s=20) == generate(kind, seed=3, duration_s=20)
    assert generate(kind, seed=3, duration_s=20) != generate(kind, seed=4, duration_s=20)


def test_a_made_up_trace_lasts_as_long_as_asked_for() -> None:
    trace = generate("lte", duration_s=1.25, step_s=0.1, median_bps=1e6)
    assert trace.duration_s == 1.25
    assert np.diff(trace.times_s) == pytest.approx([0.1] * 12 + [0.05])


def test_what_cannot_be_made_up_is_said() -> None:
    with pytest.raises(UsageError, match=r"must be 3g, lte, .* \(not 'lan'\)"):
        generate("lan")
    with pytest.raises(UsageError, match="duration"):
        generate("lte", duration_s=math.inf)
    with pytest.raises(UsageError, match="steps"):
        generate("lte", duration_s=1e9)


def test_a_silence_begins_where_the_last_bit_passed() -> None:
    trace = steps(1e6, 0, 0, 1e6, 0)
    assert [trace.silent_since(at) for at in (0.5, 1.5, 2.5, 3.2)] == [0.5, 1, 1, 3.2]
    assert trace.silent_since(14.5) == 14.0
    wrapped = steps(0, 1e6, 0)
    assert (wrapped.silent_since(3.5), wrapped.silent_since(0.5)) == (2.0, -1.0)
    assert steps(0, 0).silent_since(1.5) == -math.inf
