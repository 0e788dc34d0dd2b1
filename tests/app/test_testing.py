"""A session's life in virtual time, faults included, by `midstream.testing`."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.testing import (
    Answer,
    FakeCloud,
    Refuse,
    Silence,
    VirtualClock,
    VirtualLink,
    VirtualSession,
    make_placement,
)
from midstream_edge.session.answers import AHEAD, CLOUD, EDGE, FALLBACK
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

Step = Answer | Refuse | Silence

LINK = VirtualLink(uplink_bps=8e6, downlink_bps=8e6, rtt_s=0.04)


def run(
    placement: Placement,
    *,
    script: dict[int, Step] | None = None,
    link: VirtualLink = LINK,
    hedge_after_s: float | None = None,
    timeout_s: float = 1.0,
    deadline_s: float | None = None,
    every_s: float = 1.0,
    count: int = 1,
) -> tuple[VirtualSession, FakeCloud]:
    clock = VirtualClock()
    steps = script or {}
    cloud = FakeCloud(clock, lambda number, _: steps.get(number, Answer(0.01)))
    session = VirtualSession(
        clock, cloud, link, [placement], hedge_after_s=hedge_after_s, timeout_s=timeout_s
    )
    for n in range(count):
        session.submit(at_s=n * every_s, deadline_s=deadline_s)
    clock.run()
    assert session.in_flight == 0
    return session, cloud


def test_the_cloud_answers_within_head_link_and_tail() -> None:
    session, cloud = run(make_placement(head_s=0.02, payload_nbytes=1000))
    (outcome,) = session.outcomes
    assert outcome.where == CLOUD
    assert 0.07 < outcome.latency_s < 0.09  # head 20, round trip 40, cloud 10, software
    assert cloud.arrived == [1]


def test_a_cloud_that_says_nothing_costs_its_timeout_and_no_more() -> None:
    placement = make_placement(head_s=0.02, rest_s=0.3)
    (outcome,) = run(placement, script={1: Silence()}, timeout_s=0.5)[0].outcomes
    assert outcome.where == FALLBACK
    assert outcome.latency_s == pytest.approx(0.02 + 0.5 + 0.3)


def test_an_edge_with_a_prefix_fails_at_the_timeout() -> None:
    placement = make_placement(head_s=0.02, rest_s=None)
    (outcome,) = run(placement, script={1: Silence()}, timeout_s=0.5)[0].outcomes
    assert outcome.where == "failed"
    assert outcome.latency_s == pytest.approx(0.52)


def test_a_deadline_is_kept_whatever_the_cloud_does() -> None:
    placement = make_placement(head_s=0.02, rest_s=0.1)
    script: dict[int, Step] = {1: Silence(), 2: Answer(5.0), 3: Refuse()}
    session, _ = run(placement, script=script, deadline_s=0.25, count=4)
    assert [each.where for each in session.outcomes] == [FALLBACK, FALLBACK, FALLBACK, CLOUD]
    assert all(each.latency_s <= 0.25 for each in session.outcomes)


def test_a_refusal_is_finished_here_at_once() -> None:
    (outcome,) = run(make_placement(rest_s=0.1), script={1: Refuse()})[0].outcomes
    assert outcome.where == FALLBACK
    assert outcome.latency_s < 0.2


def test_a_hedge_begins_on_time_and_cancels_the_cloud_when_it_wins() -> None:
    placement = make_placement(rest_s=0.1)
    session, cloud = run(placement, script={1: Answer(2.0)}, hedge_after_s=0.05, timeout_s=9.0)
    (outcome,) = session.outcomes
    assert (outcome.where, outcome.hedged) == (AHEAD, True)
    assert outcome.latency_s == pytest.approx(0.15)
    assert cloud.cancelled == [1]


def test_edge_only_needs_no_cloud() -> None:
    session, cloud = run(make_placement(head_s=0.2, remote=False), count=3)
    assert [each.where for each in session.outcomes] == [EDGE] * 3
    assert cloud.arrived == []


def test_what_an_outage_catches_is_finished_here_and_the_rest_goes_out_again() -> None:
    link = VirtualLink(8e6, 8e6, 0.04, outages=[(3.0, 2.0)])
    session, _ = run(
        make_placement(head_s=0.01, rest_s=0.2),
        link=link,
        every_s=0.1,
        count=100,
        timeout_s=0.5,
    )
    assert len(session.outcomes) == 100
    caught = [each for each in session.outcomes if 3.0 <= each.submitted_s < 4.9]
    here = [each for each in caught if each.ended_s < 5.0]
    assert {each.where for each in here} == {FALLBACK}
    again = [each for each in caught if each.where == CLOUD]  # each takes 0.2 s here
    assert again
    assert all(each.ended_s > 5.0 for each in again)
    others = [each for each in session.outcomes if not 2.8 <= each.submitted_s < 7.0]
    assert {each.where for each in others} == {CLOUD}


def test_an_edge_whose_server_is_away_answers_at_once_and_does_not_try_it() -> None:
    """Neither the timeout nor the deadline matters: nothing leaves."""
    for link in (
        VirtualLink(8e6, 8e6, 0.04, refusals=[(0.0, 50.0)]),
        VirtualLink(8e6, 8e6, 0.04, outages=[(0.0, 50.0)]),
    ):
        for deadline_s in (None, 60.0):
            clock = VirtualClock()
            cloud = FakeCloud(clock)
            placement = make_placement(head_s=0.02, rest_s=0.3)
            session = VirtualSession(clock, cloud, link, [placement], timeout_s=60.0)
            for number in range(20):
                session.submit(at_s=1.0 + number, deadline_s=deadline_s)
            clock.run()
            assert [each.where for each in session.outcomes] == [FALLBACK] * 20
            assert all(each.latency_s == pytest.approx(0.32) for each in session.outcomes)
            assert cloud.arrived == []


def test_a_server_that_starts_later_than_the_edge_is_used_once_it_is_there() -> None:
    link = VirtualLink(8e6, 8e6, 0.04, refusals=[(0.0, 5.0)])
    session, cloud = run(make_placement(rest_s=0.1), link=link, every_s=0.25, count=40)
    assert len(session.outcomes) == 40
    before = [each for each in session.outcomes if each.ended_s < 5.0]
    assert {each.where for each in before} == {FALLBACK}
    assert all(each.latency_s == pytest.approx(0.1) for each in before)
    after = [each for each in session.outcomes if each.submitted_s >= 5.5]
    assert {each.where for each in after} == {CLOUD}
    assert min(cloud.arrived) > 20


def test_a_server_killed_amid_requests_costs_no_answer_and_no_wait() -> None:
    link = VirtualLink(8e6, 8e6, 0.04, refusals=[(3.0, 4.0)])
    placement = make_placement(head_s=0.01, rest_s=0.05)
    session, _ = run(placement, link=link, every_s=0.1, count=200, timeout_s=60.0)
    assert Counter(each.number for each in session.outcomes) == Counter(range(1, 201))
    assert all(each.latency_s < 0.2 for each in session.outcomes)
    away = [each for each in session.outcomes if 3.0 < each.submitted_s < 7.0]
    assert {each.where for each in away} == {FALLBACK}
    others = [each for each in session.outcomes if not 2.8 <= each.submitted_s < 7.5]
    assert {each.where for each in others} == {CLOUD}


def test_a_link_that_goes_dark_costs_one_wait_and_is_used_again_when_it_is_back() -> None:
    """0.3 s until the edge notices, then nothing leaves until the link is back."""
    link = VirtualLink(8e6, 8e6, 0.04, outages=[(3.0, 10.0)])
    placement = make_placement(head_s=0.01, rest_s=0.05)
    session, _ = run(
        placement, link=link, every_s=0.5, count=60, timeout_s=60.0, deadline_s=30.0
    )
    dark = [each for each in session.outcomes if 3.0 <= each.submitted_s < 13.0]
    assert {each.where for each in dark} == {FALLBACK}
    assert dark[0].latency_s == pytest.approx(0.3 + 0.05)  # it had been sent
    assert all(each.latency_s == pytest.approx(0.06) for each in dark[1:])
    others = [each for each in session.outcomes if not 3.0 <= each.submitted_s < 13.4]
    assert {each.where for each in others} == {CLOUD}


def test_a_cloud_that_hangs_costs_those_under_way_one_timeout_side_by_side() -> None:
    placement = make_placement(rest_s=0.01)
    script: dict[int, Step] = dict.fromkeys(range(1, 9), Silence())
    session, _ = run(placement, script=script, every_s=0.0, count=8, timeout_s=0.3)
    assert [each.where for each in session.outcomes] == [FALLBACK] * 8
    assert max(each.latency_s for each in session.outcomes) == pytest.approx(0.3 + 8 * 0.01)


def test_a_deadline_that_the_cloud_cannot_meet_leaves_time_for_the_rest() -> None:
    """Of 30 s the rest takes 26.5: the edge begins in time, however slow the cloud is."""
    placement = make_placement(head_s=0.05, rest_s=26.5)
    slow: dict[int, Step] = {1: Answer(45.0)}
    (outcome,) = run(placement, script=slow, deadline_s=30.0, timeout_s=60.0)[0].outcomes
    assert outcome.where == FALLBACK
    assert 26.65 < outcome.latency_s <= 30.0  # it gave the cloud a while


def test_a_session_without_a_placement_is_refused() -> None:
    clock = VirtualClock()
    with pytest.raises(UsageError, match="at least one placement"):
        VirtualSession(clock, FakeCloud(clock), LINK, [])


@given(st.integers(0, 10_000))
def test_every_request_has_one_outcome_in_time_whatever_happens(seed: int) -> None:
    """60 requests over a link that breaks, to a cloud that refuses, stalls and is late."""
    choose = random.Random(seed)
    clock = VirtualClock()
    complete = choose.random() < 0.7
    timeout_s, rest_s = choose.choice([0.2, 0.5, 2.0]), choose.choice([0.01, 0.1])
    deadline_s = choose.choice([None, 0.4, 1.5])

    def script(number: int, now_s: float) -> Step:
        late, refused = Answer(choose.random()), Refuse(choose.random())
        return choose.choice((late, Answer(0.01), refused, Silence()))

    outages = [(choose.uniform(0, 6), choose.uniform(0.05, 2)) for _ in range(3)]
    link = VirtualLink(
        choose.choice([1e6, 2e7]), 1e7, choose.choice([0.01, 0.3]), outages=outages
    )
    session = VirtualSession(
        clock,
        FakeCloud(clock, script),
        link,
        [make_placement(head_s=0.01, rest_s=rest_s if complete else None)],
        hedge_after_s=choose.choice([None, 0.0, 0.1]),
        timeout_s=timeout_s,
        seed=seed,
    )
    for number in range(60):
        session.submit(at_s=number * 0.11, deadline_s=deadline_s)
    clock.run()
    assert Counter(each.number for each in session.outcomes) == Counter(range(1, 61))
    for each in session.outcomes:
        assert complete <= (each.where != "failed" or deadline_s is not None)
        if not complete:
            ends_s = timeout_s if deadline_s is None else min(timeout_s, deadline_s)
            assert each.latency_s <= 0.62 + ends_s  # heads of others may run before
