"""When a link is suspect and when to try again, in virtual time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.edge.link.idle_tcp import idle_tcp

from midstream_edge.link.failure_detector import (
    FailureDetector,
    LinkEvent,
    Observations,
    Overdue,
    handshake_spacing_s,
    judge,
    move,
    spacing_s,
)
from midstream_edge.link.observations import LinkState

IDLE = idle_tcp(0.02)
SENDING = replace(IDLE, in_flight_nbytes=1400, unsent_nbytes=32_000)
CLOSED = replace(IDLE, unsent_nbytes=32_000)  # the receiver's window is


def fresh() -> FailureDetector:
    """A stream that has been looked at, and has nothing under way, at 0 s."""
    return FailureDetector(0.0, 0.0, 0.0).look(Observations(0.0, 0.0, tcp=IDLE))


def suspected_at(
    detector: FailureDetector, signs: Observations, *, until_s: float = 20.0
) -> float | None:
    """When the watch is first overdue while nothing changes, in steps of 50 ms."""
    step = 1
    while (now_s := step * 0.05) < until_s:
        detector = detector.look(replace(signs, now_s=now_s))
        if detector.overdue:
            return now_s
        step += 1
    return None


@pytest.mark.parametrize(
    ("state", "sign", "after"),
    [
        ("connected", LinkEvent.OVERDUE, "suspect"),
        ("suspect", LinkEvent.ALIVE, "connected"),
        ("suspect", LinkEvent.WELCOMED, "connected"),
        ("suspect", LinkEvent.GIVEN_UP, "down"),
        ("connected", LinkEvent.ENDED, "down"),
        ("down", LinkEvent.WELCOMED, "connected"),
        ("down", LinkEvent.OVERDUE, "down"),
        ("down", LinkEvent.ALIVE, "down"),
    ],
)
def test_the_link_moves_by_the_table(
    state: LinkState, sign: LinkEvent, after: LinkState
) -> None:
    assert move(state, sign) == after


@given(st.lists(st.sampled_from(LinkEvent)))
def test_a_link_that_is_down_is_connected_again_only_by_a_welcome(
    signs: list[LinkEvent],
) -> None:
    state: LinkState = "down"
    for sign in signs:
        state = move(state, sign)
        if LinkEvent.WELCOMED not in signs:
            assert state == "down"


def test_a_suspect_link_is_given_up_three_seconds_after_what_was_overdue_became_so() -> None:
    assert judge("connected", math.inf, 9.0) is None
    assert judge("connected", 2.0, 9.0) is LinkEvent.OVERDUE  # it may yet speak
    assert judge("suspect", 2.0, 4.9) is None
    assert judge("suspect", 2.0, 5.0) is LinkEvent.GIVEN_UP
    assert judge("suspect", math.inf, 9.0) is LinkEvent.ALIVE
    assert judge("down", 2.0, 9.0) is judge("down", math.inf, 9.0) is None


@given(
    st.sampled_from(("connected", "suspect", "down")),
    st.one_of(st.just(math.inf), st.floats(0, 10)),
    st.floats(0, 20),
)
def test_what_a_look_finds_has_a_place_in_the_link_s_state(
    state: LinkState, overdue_since_s: float, now_s: float
) -> None:
    event = judge(state, overdue_since_s, now_s)
    assert event is None or move(state, event) != state


def test_data_that_nobody_acknowledges_makes_a_link_suspect_after_300_ms() -> None:
    assert suspected_at(fresh(), Observations(0.0, 0.0, tcp=SENDING)) == pytest.approx(
        0.35, abs=0.06
    )


def test_a_long_and_uneven_way_is_given_its_time() -> None:
    slow = replace(SENDING, srtt_s=0.6, rttvar_s=0.1)
    assert suspected_at(fresh(), Observations(0.0, 0.0, tcp=slow)) == pytest.approx(
        1.05, abs=0.06
    )


def test_an_idle_link_is_never_suspect() -> None:
    assert suspected_at(fresh(), Observations(0.0, 0.0, tcp=IDLE)) is None


def test_a_slow_link_on_which_bytes_are_acknowledged_is_not_suspect() -> None:
    detector = fresh()
    for step in range(1, 400):
        tcp = replace(SENDING, acked_nbytes=1000 + 1400 * (step // 5))
        detector = detector.look(Observations(step * 0.05, 0.0, tcp=tcp))
        assert detector.overdue is None


def test_what_was_idle_for_long_is_not_late_when_it_begins_to_send() -> None:
    detector = fresh().look(Observations(100.0, 0.0, tcp=SENDING))
    assert detector.overdue is None
    assert detector.look(Observations(100.2, 0.0, tcp=SENDING)).overdue is None


def test_a_closed_window_is_given_longer_and_a_false_alarm_teaches_patience() -> None:
    detector = fresh()
    assert suspected_at(detector, Observations(0.0, 0.0, tcp=CLOSED)) == pytest.approx(
        1.05, abs=0.06
    )
    late = detector.look(Observations(0.05, 0.0, tcp=CLOSED)).look(
        Observations(1.1, 0.0, tcp=CLOSED)
    )
    assert late.overdue is Overdue.WINDOW
    alive = late.look(Observations(1.2, heard_s=1.15, tcp=CLOSED))
    assert alive.overdue is None
    assert alive.look(Observations(2.9, heard_s=1.15, tcp=CLOSED)).overdue is None
    assert alive.look(Observations(3.3, heard_s=1.15, tcp=CLOSED)).overdue is Overdue.WINDOW


def test_an_unanswered_ping_makes_a_link_suspect_whose_tcp_looks_well() -> None:
    asked = Observations(0.0, 0.0, asked_s=0.01, tcp=IDLE)
    assert suspected_at(fresh(), asked) == pytest.approx(0.6, abs=0.06)


def test_a_pong_is_not_due_before_its_ping_has_arrived_behind_what_was_sent_before() -> None:
    detector = fresh()
    for step in range(1, 60):
        tcp = replace(SENDING, acked_nbytes=1000 + 1400 * step)
        detector = detector.look(Observations(step * 0.05, 0.0, asked_s=0.05, tcp=tcp))
        assert detector.overdue is None
    assert detector.due_s is None
    for step in range(60, 80):
        detector = detector.look(Observations(step * 0.05, 0.0, asked_s=0.05, tcp=IDLE))
    assert detector.overdue is Overdue.PONG


def test_without_tcp_info_pings_alone_decide() -> None:
    detector = FailureDetector(0.0, 0.0, 0.0)
    assert suspected_at(detector, Observations(0.0, 0.0)) is None
    assert suspected_at(detector, Observations(0.0, 0.0, asked_s=0.1)) == pytest.approx(
        0.65, abs=0.06
    )
    far = Observations(0.0, 0.0, asked_s=0.1, rtt_s=0.5)
    assert suspected_at(detector, far) == pytest.approx(2.1, abs=0.06)


def test_acknowledgements_revive_only_what_lacked_them() -> None:
    late = (
        fresh()
        .look(Observations(0.05, 0.0, tcp=SENDING))
        .look(Observations(0.4, 0.0, tcp=SENDING))
    )
    assert late.overdue is Overdue.ACK
    acked = replace(SENDING, acked_nbytes=2400)
    assert late.look(Observations(0.45, 0.0, tcp=acked)).overdue is None
    hung = fresh().doubt(1.0, since_s=0.5)
    assert hung.overdue is Overdue.ANSWER
    assert hung.look(Observations(1.1, 0.0, tcp=acked)).overdue is Overdue.ANSWER
    assert hung.look(Observations(1.1, heard_s=1.05, tcp=acked)).overdue is None


def test_a_doubt_counts_only_if_nothing_came_since_and_nothing_moves() -> None:
    heard = fresh().look(Observations(1.0, heard_s=0.9, tcp=IDLE))
    assert heard.doubt(1.2, since_s=0.8).overdue is None
    assert heard.doubt(1.2, since_s=1.0).overdue is Overdue.ANSWER
    moving = heard.look(Observations(1.15, heard_s=0.9, tcp=SENDING))
    assert moving.doubt(1.2, since_s=1.0).overdue is None


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 2), st.booleans())),
)
def test_a_frame_heard_ends_every_suspicion(
    steps: list[tuple[float, bool, int, bool]],
) -> None:
    now_s, detector = 0.0, fresh()
    for pause_s, asked, kind, doubted in steps:
        now_s += pause_s
        tcp = (IDLE, SENDING, CLOSED)[kind]
        detector = detector.look(
            Observations(now_s, 0.0, asked_s=0.0 if asked else None, tcp=tcp)
        )
        if doubted:
            detector = detector.doubt(now_s, since_s=now_s)
    assert detector.look(Observations(now_s + 2, heard_s=now_s + 1, tcp=IDLE)).overdue is None


def test_fresh_channels_come_quickly_in_short_outages_and_rarely_in_long_ones() -> None:
    short = [spacing_s(n, outage_s=0.5, pending=False) for n in (1, 2, 3, 4, 99)]
    assert short == [0.1, 0.2, 0.3, 0.3, 0.3]
    assert spacing_s(1, outage_s=0.5, pending=True) == 1.0
    assert spacing_s(50, outage_s=40.0, pending=False) == pytest.approx(1.0)
    assert spacing_s(5000, outage_s=86400.0, pending=True) == 2.0


def test_handshakes_are_tried_often_at_first() -> None:
    assert [handshake_spacing_s(s) for s in (0.0, 3.0, 16.0, 1e6)] == [0.1, 0.1, 0.4, 0.5]
