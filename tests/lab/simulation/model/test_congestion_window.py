"""TCP's window as Linux kept it over the emulator, after bursts and after rests."""

from __future__ import annotations

import itertools
import math

import pytest

from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.congestion_window import FIRST_SEGMENTS, Window
from midstream_lab.simulation.model.http2_pings import LONGER_S, MEASURED_S, MOST_S, Estimator
from midstream_lab.simulation.model.link_spec import HEADER_SHARE, Network, steady
from midstream_lab.simulation.model.tcp_flow import SEGMENT_PAYLOAD_NBYTES, Line


def sent(rate_bps: float, rtt_s: float, segments: int, *, gap_s: float, times: int) -> Window:
    """The window after as many transfers, each `gap_s` after the one before it began."""
    network = Network(
        steady(rate_bps), steady(rate_bps), rtt_s, fixed_s=0.0, share=HEADER_SHARE
    )
    line = Line(network, network.payload_up)
    for number in range(times):
        line.send(number * gap_s, segments * SEGMENT_PAYLOAD_NBYTES)
    return line.window


def test_a_window_grows_by_what_it_carried_and_to_twice_what_is_sent() -> None:
    """TCP_INFO at 27 Mbit/s and 100 ms, 60 KB at a time: 52, then 84 and no more."""
    assert sent(27e6, 0.1, 42, gap_s=0.2, times=1).segments == 52
    assert sent(27e6, 0.1, 42, gap_s=0.35, times=8).segments == 84


def test_a_window_that_rests_comes_to_where_halving_and_growing_agree() -> None:
    """The same every 0.7 s: 83 after eight; every second 55, every two seconds 52."""
    assert sent(27e6, 0.1, 42, gap_s=0.7, times=8).segments == 83
    assert sent(27e6, 0.1, 42, gap_s=1.0, times=8).segments == 55
    assert sent(27e6, 0.1, 42, gap_s=2.0, times=8).segments == 52


def test_acknowledgements_for_half_a_round_trip_end_slow_start() -> None:
    """27 Mbit/s and 40 ms, 300 KB: the threshold was 128."""
    assert math.isclose(sent(27e6, 0.04, 208, gap_s=0.2, times=1).threshold, 128, abs_tol=2)


def test_a_rest_halves_down_to_the_initial_window_and_pings_end_it() -> None:
    idle, pinged = Window(0.1), Window(0.1)
    idle.segments = pinged.segments = 160
    idle.rest(0.8)
    pinged.ping(0.25)
    pinged.ping(0.5)
    pinged.rest(0.7)
    assert (idle.segments, pinged.segments) == (40, 160)
    idle.rest(60.0)
    assert idle.segments == FIRST_SEGMENTS


def line_of(rate_bps: float = 27e6, rtt_s: float = 0.1) -> Line:
    network = Network(
        steady(rate_bps), steady(rate_bps), rtt_s, fixed_s=0.0, share=HEADER_SHARE
    )
    line = Line(network, network.payload_up)
    line.window.segments = line.window.threshold = 100
    return line


def took_s(line: Line, at_s: float, segments: int, *, partial: int = 0) -> float:
    return line.send(at_s, segments * SEGMENT_PAYLOAD_NBYTES - 1, partial) - at_s


def test_what_is_not_acknowledged_yet_takes_room_in_the_window() -> None:
    """Of 100 segments the last nine wait for acknowledgements of nine sent 60 ms before: on a
    line of 27 Mbit/s the others take as long to pass, on one of 270 they do not."""
    for rate_bps, waits_s in ((27e6, 0.0), (270e6, 0.04)):
        line = line_of(rate_bps)
        alone_s = took_s(line_of(rate_bps), 0.06, 100)
        line.send(0.0, 9 * SEGMENT_PAYLOAD_NBYTES)
        sending_s = alone_s - 0.05
        later_s = max(0.0, waits_s - 0.91 * sending_s)
        assert took_s(line, 0.06, 100) == pytest.approx(alone_s + later_s, abs=0.001)


def test_segments_that_are_not_full_can_cost_a_round_trip() -> None:
    """The last one leaves on the acknowledgement of the first."""
    assert took_s(line_of(), 0.0, 99, partial=1) == pytest.approx(0.044 + 0.05, abs=0.001)
    assert took_s(line_of(), 0.0, 99, partial=2) == pytest.approx(0.1 + 0.05, abs=0.001)


def test_the_estimators_pings_come_ever_more_rarely_and_after_what_is_heard() -> None:
    estimator, draws = Estimator(), Draws(0)
    assert estimator.due_s == math.inf
    pauses_s = []
    for number in range(200):
        at_s = 100.0 * (1 + number)
        estimator.hear(at_s)
        assert estimator.due_s <= at_s  # the pause was over long ago
        estimator.pinged(at_s, draws)
        estimator.hear(at_s + 0.001)
        pauses_s.append(round(estimator.due_s - at_s, 6))
    assert pauses_s[0] == pytest.approx(MEASURED_S)
    assert all(one <= after for one, after in itertools.pairwise(pauses_s))
    assert MOST_S <= pauses_s[-1] < MOST_S + 2 * LONGER_S
