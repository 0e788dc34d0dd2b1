"""The circuit breaker: a cloud that never replies is asked ever more rarely."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.testing import (
    Answer,
    FakeCloud,
    Silence,
    VirtualClock,
    VirtualLink,
    VirtualSession,
    make_placement,
)
from midstream_edge.session.answers import CLOUD
from midstream_edge.session.breaker import (
    CLOSED,
    FAILURES,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Breaker,
)

LINK = VirtualLink(8e6, 8e6, 0.04)


def failed(breaker: Breaker, now_s: float) -> Breaker:
    return breaker.fail(now_s, 1.0)


def opened(now_s: float = 10.0, draw: float = 1.0) -> Breaker:
    breaker = CLOSED
    for _ in range(FAILURES):
        assert breaker.allows(now_s)
        breaker = breaker.ask(now_s, draw).fail(now_s, draw)
    return breaker


def test_a_few_failures_in_a_row_open_it_and_any_reply_closes_it() -> None:
    breaker = failed(failed(failed(CLOSED, 1.0).hear(), 2.0), 3.0)
    assert not breaker.is_open
    assert opened().is_open
    assert opened().hear() is CLOSED


def test_one_request_at_a_time_tries_and_pauses_double() -> None:
    breaker, now_s, pauses = opened(), 10.0, []
    for _ in range(8):
        assert not breaker.allows(now_s)
        pauses.append(breaker.asks_at_s - now_s)
        now_s = breaker.asks_at_s
        assert breaker.allows(now_s)
        breaker = failed(breaker.ask(now_s, 1.0), now_s)
    assert pauses[:3] == pytest.approx([FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S])
    assert max(pauses) == LONGEST_PAUSE_S


def test_requests_that_waited_side_by_side_open_it_once() -> None:
    breaker = CLOSED
    for _ in range(8):
        breaker = breaker.fail(10.0, 1.0)
    assert breaker.pause_s == FIRST_PAUSE_S


@given(st.floats(0.0, 1.0))
def test_pauses_are_drawn_from_their_upper_half(draw: float) -> None:
    pause_s = opened(0.0, draw).asks_at_s
    assert FIRST_PAUSE_S / 2 <= pause_s <= FIRST_PAUSE_S


def test_a_cloud_that_never_replies_costs_few_timeouts_and_is_used_again_when_it_does() -> (
    None
):
    clock = VirtualClock()
    cloud = FakeCloud(clock, lambda _, now_s: Silence() if now_s < 60.0 else Answer(0.01))
    session = VirtualSession(
        clock, cloud, LINK, [make_placement(head_s=0.01, rest_s=0.1)], timeout_s=1.0
    )
    for number in range(600):
        session.submit(at_s=number * 0.2)
    clock.run()
    assert len(session.outcomes) == 600
    dark = [each for each in session.outcomes if each.submitted_s < 58.0]
    assert sum(each.latency_s > 0.2 for each in dark) <= 15  # before it opened; of 290
    bright = [each for each in session.outcomes if each.submitted_s > 95.0]
    assert {each.where for each in bright} == {CLOUD}


def test_an_edge_with_a_prefix_has_no_other_choice_and_asks_on() -> None:
    clock = VirtualClock()
    cloud = FakeCloud(clock, lambda number, _: Silence() if number <= 10 else Answer(0.01))
    session = VirtualSession(clock, cloud, LINK, [make_placement(rest_s=None)], timeout_s=0.5)
    for number in range(20):
        session.submit(at_s=float(number))
    clock.run()
    assert [each.where for each in session.outcomes] == ["failed"] * 10 + [CLOUD] * 10
