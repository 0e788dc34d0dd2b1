"""The life of a request: every order of events ends in exactly one answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.link.observations import Transfer
from midstream_edge.session.lifecycle import Action, Event, Lifecycle, Stage, patience_s
from midstream_wire.errors import CloudUnavailable

ERROR = CloudUnavailable("away")

#: What may come in any order and number once the head has run and the activation is out.
AFTERWARDS = st.lists(
    st.sampled_from(
        [Event.REPLIED, Event.HEDGED, Event.FAILED, Event.FINISHED, Event.ABANDONED]
    )
)


def life(*, complete: bool = True, deadline_s: float | None = None) -> Lifecycle:
    return Lifecycle(1, complete=complete, deadline_s=deadline_s)


def walk(request: Lifecycle, *events: Event) -> tuple[Lifecycle, list[Action]]:
    actions = []
    for event in events:
        error = ERROR if event in (Event.FAILED, Event.ABANDONED) else None
        actions.append(request.advance(event, error))
    return request, actions


def sent(*, complete: bool = True) -> Lifecycle:
    request, actions = walk(life(complete=complete), Event.STARTED, Event.CROSSED)
    assert (request.stage, actions) == (Stage.SENT, [Action.RUN_HEAD, Action.SEND])
    return request


def test_the_cloud_answers() -> None:
    request, actions = walk(sent(), Event.REPLIED)
    assert (request.stage, actions, request.error) == (Stage.DONE, [Action.ANSWER], None)


def test_a_failure_is_finished_here_and_remembered() -> None:
    request, actions = walk(sent(), Event.FAILED, Event.FINISHED)
    assert actions == [Action.RUN_REST, Action.ANSWER]
    assert (request.stage, request.error) == (Stage.DONE, ERROR)


def test_the_first_of_two_results_wins() -> None:
    assert walk(sent(), Event.FAILED, Event.REPLIED, Event.FINISHED)[1] == [
        Action.RUN_REST,
        Action.ANSWER,
        Action.NOTHING,
    ]
    assert walk(sent(), Event.FAILED, Event.FINISHED, Event.REPLIED)[1] == [
        Action.RUN_REST,
        Action.ANSWER,
        Action.NOTHING,
    ]


def test_a_hedge_runs_the_rest_once_and_is_no_failure() -> None:
    request, actions = walk(sent(), Event.HEDGED, Event.HEDGED, Event.FAILED, Event.FINISHED)
    assert actions == [Action.RUN_REST, Action.NOTHING, Action.NOTHING, Action.ANSWER]
    assert (request.stage, request.error) == (Stage.DONE, None)


def test_an_edge_that_holds_a_prefix_cannot_hedge() -> None:
    request, actions = walk(sent(complete=False), Event.HEDGED, Event.REPLIED)
    assert actions == [Action.NOTHING, Action.ANSWER]
    assert request.stage is Stage.DONE


def test_an_edge_only_request_never_leaves() -> None:
    request, actions = walk(life(), Event.STARTED, Event.FINISHED)
    assert (request.stage, actions) == (Stage.DONE, [Action.RUN_HEAD, Action.ANSWER])


def test_a_head_that_ends_without_a_cloud_goes_on_here() -> None:
    assert walk(life(), Event.STARTED, Event.FAILED)[1][-1] is Action.RUN_REST


def test_an_edge_with_a_prefix_cannot_finish() -> None:
    request, actions = walk(sent(complete=False), Event.FAILED, Event.REPLIED)
    assert actions == [Action.RAISE, Action.NOTHING]
    assert (request.stage, request.error) == (Stage.DONE, ERROR)


@given(AFTERWARDS, st.booleans())
def test_no_order_of_events_gives_two_answers(events: list[Event], complete: bool) -> None:
    request, actions = walk(sent(complete=complete), *events)
    ends = [a for a in actions if a in (Action.ANSWER, Action.RAISE)]
    assert len(ends) <= 1
    assert (request.stage is Stage.DONE) == (len(ends) == 1)
    assert actions.count(Action.RUN_REST) <= 1


@given(AFTERWARDS)
def test_an_edge_that_ran_the_rest_always_ends(events: list[Event]) -> None:
    request, _ = walk(sent(), *events, Event.FAILED, Event.FINISHED)
    assert request.stage is Stage.DONE


@given(st.lists(st.sampled_from(list(Event))))
def test_what_is_done_stays_done(events: list[Event]) -> None:
    done, _ = walk(sent(), Event.REPLIED)
    _, actions = walk(done, *events)
    assert (done.stage, done.error) == (Stage.DONE, None)
    assert set(actions) <= {Action.NOTHING}


# Moments. The edge asks at 10 s, after a head of 0.1 s.


def crossed(
    *,
    timeout_s: float = 5.0,
    deadline_s: float | None = None,
    hedge_after_s: float | None = None,
    rest_s: float | None = 0.5,
    complete: bool = True,
    contended: bool = False,
) -> Lifecycle:
    request = life(complete=complete, deadline_s=deadline_s)
    request.head_s = 0.1
    request.timeout_s, request.hedge_after_s = timeout_s, hedge_after_s
    walk(request, Event.STARTED)
    if request.cross(10.0, rest_s=rest_s, contended=contended):
        walk(request, Event.CROSSED)
    return request


def test_without_a_deadline_the_cloud_has_its_timeout() -> None:
    request = crossed(timeout_s=2.0)
    assert (request.useful_s, request.late_s, request.alarm_s) == (12.0, 12.0, 12.0)
    assert request.ring(11.999) is None
    assert request.ring(12.0) is Event.FAILED
    assert not request.is_wanted(12.0)


def test_a_deadline_leaves_the_edge_time_for_the_rest() -> None:
    request = crossed(deadline_s=11.0, rest_s=0.5)
    assert 10.4 < request.late_s < 10.5  # less a margin
    assert request.useful_s == 11.0
    assert request.ring(request.late_s) is Event.FAILED
    assert request.is_wanted(request.late_s)  # the cloud may still be sooner


def test_others_in_flight_may_hold_the_compute_thread_for_a_head() -> None:
    alone, beside = crossed(deadline_s=11.0), crossed(deadline_s=11.0, contended=True)
    assert alone.late_s - beside.late_s == pytest.approx(alone.head_s)


def test_an_edge_that_would_be_late_begins_at_once_beside_the_cloud() -> None:
    request = crossed(deadline_s=10.4, rest_s=0.5)
    assert request.ring(10.0) is Event.HEDGED
    assert request.late_s == request.useful_s == 10.4


def test_what_cannot_be_in_time_does_not_leave() -> None:
    assert crossed(deadline_s=9.9).stage is Stage.HEAD
    assert crossed(timeout_s=0.0).stage is Stage.HEAD


def test_a_rest_of_unknown_length_is_run_to_be_measured() -> None:
    request = crossed(deadline_s=11.0, rest_s=None)
    assert request.learning
    assert request.ring(10.0) is Event.HEDGED


def test_an_edge_with_a_prefix_waits_until_its_deadline() -> None:
    request = crossed(deadline_s=11.0, complete=False, rest_s=None, hedge_after_s=0.2)
    assert not request.learning
    assert request.ring(10.2) is Event.HEDGED
    walk(request, Event.HEDGED)  # which it cannot do
    assert (request.stage, request.hedged, request.alarm_s) == (Stage.SENT, False, 11.0)
    assert request.ring(10.9) is None


@given(
    deadline_s=st.none() | st.floats(9.0, 20.0),
    timeout_s=st.floats(0.0, 10.0),
    hedge_after_s=st.none() | st.floats(0.0, 10.0),
    rest_s=st.none() | st.floats(0.0, 5.0),
    complete=st.booleans(),
    contended=st.booleans(),
)
def test_a_request_that_rings_ends_by_what_it_was_given(
    deadline_s: float | None,
    timeout_s: float,
    hedge_after_s: float | None,
    rest_s: float | None,
    complete: bool,
    contended: bool,
) -> None:
    request = crossed(
        deadline_s=deadline_s,
        timeout_s=timeout_s,
        hedge_after_s=hedge_after_s,
        rest_s=rest_s,
        complete=complete,
        contended=contended,
    )
    rung = 0
    while request.stage is Stage.SENT:
        assert request.asked_s <= request.alarm_s <= max(request.useful_s, 10.001)
        event = request.ring(request.alarm_s)
        assert event is not None
        walk(request, event)
        rung += 1
    assert rung <= 2  # a hedge that cannot be, and the end
    assert (request.stage is Stage.DONE) <= (not complete)


def test_the_cloud_may_take_three_times_what_it_is_predicted_to() -> None:
    assert patience_s(5.0, 1.0) == 5.0
    assert patience_s(5.0, 4.0) == 12.0


def test_evidence_counts_the_clouds_times_only_where_it_answered() -> None:
    request = crossed()
    request.began_s = 9.9
    whole = Transfer(1000, 10, 0.2, complete=True)
    told = request.evidence(10.3, whole, placement=2, queue_s=0.01, tail_s=0.02)
    assert (told.queue_s, told.tail_s, told.head_s) == (0.01, 0.02, 0.1)
    assert told.latency_s == pytest.approx(0.4)
    for transfer in (None, Transfer(1000, 0, 0.2, complete=False)):
        told = request.evidence(10.3, transfer, placement=2, queue_s=0.01, tail_s=0.02)
        assert (told.queue_s, told.tail_s) == (None, None)
