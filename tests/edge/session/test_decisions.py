"""When to give up, how long to pause, and what a failure means."""

from __future__ import annotations

import threading
import time

import pytest

from midstream_edge.faults import Faults
from midstream_edge.link.failures import (
    UNDIAGNOSED,
    Finding,
    Kind,
    classify_status,
    going_away,
    is_settled,
    no_answer,
)
from midstream_edge.session.local_time import MOST_SIZES, Again, LocalPace, give_up_at, left_s
from midstream_edge.session.threads import HEAD, REST, Alarms, Worker
from midstream_wire.errors import CloudRefused, CloudUnavailable, PeerError, ProtocolError

SERVER = "cloud.example:50051"


def test_the_rest_is_what_was_declared_until_it_has_been_measured() -> None:
    pace = LocalPace(3, {1: 0.5})
    assert pace.rest_s(1) == 0.5
    assert pace.rest_s(2) is None
    pace = pace.observe(2, 0.2)
    assert (pace.rest_s(1), pace.rest_s(2)) == (0.5, 0.2)
    pace = pace.observe(1, 0.1)
    assert pace.rest_s(1) == pytest.approx(0.3)
    assert pace.rest_s(3) == 0


def test_the_rest_is_known_by_the_size_of_a_request() -> None:
    pace = LocalPace(2, lambda sizes: {0: 1e-3 * dict(sizes)["seq"]})
    short, long = (("seq", 10),), (("seq", 640),)
    assert pace.rest_s(0, long) == pytest.approx(0.64)
    pace = pace.observe(0, 0.1, long).observe(1, 0.2, long)
    assert pace.rest_s(0, long) == pytest.approx(0.3)
    assert pace.rest_s(0, (("seq", 641),)) == pytest.approx(0.3)
    assert pace.rest_s(0, short) == pytest.approx(0.01)


def test_without_anything_declared_the_rest_is_in_proportion_to_sizes_that_were_seen() -> None:
    pace = LocalPace(1).observe(0, 0.1, (("seq", 64),)).observe(0, 0.8, (("seq", 1024),))
    assert pace.rest_s(0, (("seq", 128),)) == pytest.approx(0.2)
    assert pace.rest_s(0, (("seq", 2048),)) == pytest.approx(1.6)
    assert pace.rest_s(0) == pytest.approx(0.8)
    for size in range(100):
        pace = pace.observe(0, 0.1, (("seq", 2**size),))
    assert len(pace.measured_s) == MOST_SIZES


def test_one_slow_run_moves_the_pace_only_a_little() -> None:
    pace = LocalPace(1).observe(0, 0.1).observe(0, 0.9)
    assert pace.rest_s(0) == pytest.approx(0.2)


def test_a_rest_that_is_overdue_is_not_taken_to_end_at_once() -> None:
    assert [left_s(0.5, ran_s) for ran_s in (0.0, 0.25, 0.5, 2.0)] == [0.5, 0.25, 0.0, 1.5]


def test_the_edge_gives_up_in_time_for_its_own_rest() -> None:
    assert give_up_at(10.0, rest_s=0.5) < 9.5
    assert give_up_at(10.0, rest_s=0.5, busy_s=0.25) < 9.25
    assert give_up_at(10.0, rest_s=0.0) == pytest.approx(10.0, abs=0.01)


_ABSENT = Finding(Kind.ABSENT, "the connection was refused")
_MISTRUST = Finding(Kind.MISTRUST, "its certificate fails")
_FOREIGN = Finding(Kind.FOREIGN, "no HTTP/2")


@pytest.mark.parametrize(
    ("code", "finding", "kind", "said"),
    [
        (14, _ABSENT, CloudUnavailable, "connection was refused"),
        (14, UNDIAGNOSED, CloudUnavailable, "broke or never stood (what gRPC says)"),
        (4, UNDIAGNOSED, CloudUnavailable, "broke"),
        (14, _MISTRUST, ProtocolError, "agree on TLS"),
        (12, UNDIAGNOSED, ProtocolError, "must speak midstream.v1"),
        (2, _FOREIGN, ProtocolError, "must speak midstream.v1"),
        (16, UNDIAGNOSED, CloudRefused, "credentials that it accepts (what gRPC says)"),
        (7, _MISTRUST, CloudRefused, "credentials"),
        (8, UNDIAGNOSED, CloudRefused, "refused: what gRPC says"),
    ],
)
def test_a_status_and_a_finding_become_one_clear_sentence(
    code: int, finding: Finding, kind: type[PeerError], said: str
) -> None:
    error = classify_status(SERVER, code, "what gRPC says", finding)
    assert type(error) is kind
    assert said in str(error)
    assert SERVER in str(error)


@pytest.mark.parametrize("words", ["tcp handshaker shutdown", "Ssl", "http/1", "refused"])
def test_words_of_a_message_decide_nothing(words: str) -> None:
    for code in range(1, 17):
        assert type(classify_status(SERVER, code, words)) is type(
            classify_status(SERVER, code, "")
        )


def test_long_and_broken_details_are_cut() -> None:
    assert len(str(classify_status(SERVER, 14, "x\n" * 5000))) < 400


def test_weather_and_configuration_are_told_apart() -> None:
    assert not is_settled(no_answer(SERVER, 3))
    assert not is_settled(going_away(SERVER, 14, "stopping"))
    assert not is_settled(classify_status(SERVER, 8, "too many"))
    assert is_settled(going_away(SERVER, 5, "no such model"))
    assert is_settled(classify_status(SERVER, 16, "no token"))
    assert is_settled(classify_status(SERVER, 12, "Method not found!"))


def test_the_worker_runs_rests_before_heads_and_each_in_order() -> None:
    worker, ran = Worker(Faults()), []
    started, release, finished = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(30)

    worker.put(block, rank=HEAD, order=0)
    started.wait(30)
    for rank, order in ((HEAD, 2), (REST, 3), (HEAD, 1), (REST, 1)):
        worker.put(lambda rank=rank, order=order: ran.append((rank, order)),  # type: ignore[misc]
                   rank=rank, order=order)  # fmt: skip
    worker.put(finished.set, rank=HEAD, order=9)
    release.set()
    assert finished.wait(30)
    worker.close(30)
    assert ran == [(REST, 1), (REST, 3), (HEAD, 1), (HEAD, 2)]


def test_a_caller_gets_a_turn_only_when_nothing_else_runs_or_waits() -> None:
    worker = Worker(Faults())
    ran = threading.Event()
    assert worker.take_turn()
    assert not worker.take_turn()
    worker.put(ran.set, rank=HEAD, order=1)
    assert not ran.wait(0.05)
    worker.end_turn()
    assert ran.wait(30)
    worker.close(30)


def test_alarms_go_off_in_order_and_not_before_their_time() -> None:
    alarms, rang, last = Alarms(Faults()), [], threading.Event()
    now_s = time.monotonic()
    alarms.at(now_s + 0.06, last.set)
    alarms.at(now_s + 0.05, lambda: rang.append(time.monotonic()))
    alarms.at(now_s + 0.01, lambda: rang.append(time.monotonic()))
    alarms.at(now_s + 60, lambda: rang.append(0.0))
    assert last.wait(30)
    alarms.close(30)
    assert len(rang) == 2
    assert rang[0] >= now_s + 0.01
    assert rang[1] >= now_s + 0.05


def test_what_the_cloud_answers_sooner_goes_again() -> None:
    """Each that goes keeps the cloud busy for the next one, and each that stays the edge."""
    again = Again()
    assert again.is_sooner(1.0, 0.3)
    again.note_sent()
    assert not again.is_sooner(0.2, 0.3)  # 0.6 s there, 0.2 s here
    assert again.is_sooner(0.5, 0.3)  # 0.6 s there, 0.7 s here
    again.note_sent()
    assert not again.is_sooner(0.1, 0.3)  # 0.9 s there, 0.3 s here
    assert again.is_sooner(None, 0.3)  # nobody knows how long the edge would take


def test_a_request_that_was_never_answered_goes_again_at_once() -> None:
    assert Again().is_sooner(0.001, None)
