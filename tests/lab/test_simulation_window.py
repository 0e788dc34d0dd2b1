"""TCP's window as Linux kept it over the emulator, after bursts and after rests."""

from __future__ import annotations

import math

from midstream_lab.simulation.line import SEGMENT_PAYLOAD_NBYTES, Line
from midstream_lab.simulation.network import HEADER_SHARE, Network, steady
from midstream_lab.simulation.window import FIRST_SEGMENTS, Window


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
    """TCP_INFO at 27 Mbit/s and 100 ms, 60 KB every 0.2 s: 52, then 84 and no more."""
    assert sent(27e6, 0.1, 42, gap_s=0.2, times=1).segments == 52
    assert sent(27e6, 0.1, 42, gap_s=0.2, times=8).segments == 84


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
