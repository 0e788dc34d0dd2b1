"""The life of a request: every order of events ends in exactly one answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.requests import Action, Event, Request, Stage
from midstream_wire.errors import CloudUnavailable

ERROR = CloudUnavailable("away")

#: What may come in any order and number once the head has run and the activation is out.
AFTERWARDS = st.lists(
    st.sampled_from(
        [Event.REPLIED, Event.HEDGED, Event.FAILED, Event.FINISHED, Event.ABANDONED]
    )
)


def walk(request: Request, *events: Event) -> tuple[Request, list[Action]]:
    actions = []
    for event in events:
        error = ERROR if event in (Event.FAILED, Event.ABANDONED) else None
        request, action = request.advance(event, error)
        actions.append(action)
    return request, actions


def sent(*, complete: bool = True) -> Request:
    request, actions = walk(Request(1, complete), Event.STARTED, Event.CROSSED)
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
    request, actions = walk(Request(1, True), Event.STARTED, Event.FINISHED)
    assert (request.stage, actions) == (Stage.DONE, [Action.RUN_HEAD, Action.ANSWER])


def test_a_head_that_ends_without_a_cloud_goes_on_here() -> None:
    assert walk(Request(1, True), Event.STARTED, Event.FAILED)[1][-1] is Action.RUN_REST


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
    after, actions = walk(done, *events)
    assert after == done
    assert set(actions) <= {Action.NOTHING}
