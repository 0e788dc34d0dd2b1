"""Every wait of a session ends: for room, for a turn, for a link, and after a fork."""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_edge.faults import Faults
from midstream_edge.session.local_time import room_waits
from midstream_edge.session.session import EdgeSession
from midstream_edge.session.threads import DROPPED, HEAD, Alarms, Worker
from midstream_edge.workload.load_generator import Record, Schedule, drive
from midstream_partitioner.execution.chain import Chain
from midstream_wire.errors import DeadlineExceeded, ResourceError, TensorError, UsageError
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Spawn = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]

Paced = Callable[[float], Chain]

PATIENCE_S = 30.0
#: Far more than a local run takes, so that a busy machine is no excuse: of a deadline of 30 s,
#: 0.85 are left to wait.
REST_S = dict.fromkeys(range(4), 26.5)


def test_how_long_a_request_waits_for_room_leaves_time_to_finish_alone() -> None:
    """By a deadline, else by the timeout; asked for at 10 s."""

    def waits(deadline_at_s: float | None, whole_s: float | None) -> tuple[float, float]:
        return room_waits(
            10.0,
            timeout_s=5.0,
            deadline_at_s=deadline_at_s,
            whole_s=whole_s,
            complete=True,
        )

    alone_s, late_s = waits(40.0, 26.5)
    assert 10.0 < alone_s < 40.0 - 26.5
    assert late_s == 40.0
    assert waits(40.0, 31.0)[0] <= 10.0  # too late already: it begins at once
    assert waits(40.0, None) == (10.0, 40.0)  # nobody knows how long it takes
    assert waits(None, 26.5) == (15.0, math.inf)


@pytest.mark.parametrize(("deadline_at_s", "late_s"), [(None, 15.0), (10.3, 10.3)])
def test_an_edge_with_a_prefix_waits_for_room_until_its_request_is_late(
    deadline_at_s: float | None, late_s: float
) -> None:
    waits = room_waits(
        10.0, timeout_s=5.0, deadline_at_s=deadline_at_s, whole_s=None, complete=False
    )
    assert waits == (math.inf, late_s)


@given(st.floats(0.01, 1e3), st.floats(0.0, 1e3))
def test_who_waits_for_room_can_still_finish_in_time(
    deadline_s: float, whole_s: float
) -> None:
    alone_s, late_s = room_waits(
        0.0, timeout_s=5.0, deadline_at_s=deadline_s, whole_s=whole_s, complete=True
    )
    assert alone_s + whole_s <= late_s == deadline_s


@pytest.mark.parametrize("here", [True, False], ids=["infer", "submit"])
def test_a_deadline_holds_while_there_is_no_room(
    chain: Chain, sleepy_server: str, picture: Picture, here: bool
) -> None:
    with EdgeSession(
        chain, sleepy_server, plan=(0, "raw"), max_in_flight=2, local_rest_s=REST_S
    ) as session:
        for n in range(2):
            session.submit(picture(n))
        ask = session.infer if here else session.submit
        given = ask(picture(2), deadline_s=30.0)
        answer = given.result(PATIENCE_S) if isinstance(given, Future) else given
    assert answer.where == "edge-after-cloud-failed"
    assert answer.reason is not None
    assert "find room" in answer.reason


def test_where_the_edge_cannot_finish_a_request_without_room_fails_in_time(
    small_prefix: Chain, sleepy_server: str, picture: Picture
) -> None:
    with EdgeSession(small_prefix, sleepy_server, plan=(1, "raw"), max_in_flight=1) as session:
        session.submit(picture(0))
        began_s = time.monotonic()
        late = session.submit(picture(1), deadline_s=0.3)
        with pytest.raises(DeadlineExceeded, match=r"find room.*holds 2 of 4 segments"):
            late.result(0)
        assert time.monotonic() - began_s >= 0.3
        assert session.stats.failed == 1


def test_requests_without_room_are_as_many_again_at_most(
    paced: Paced, sleepy_server: str, picture: Picture
) -> None:
    with EdgeSession(
        paced(5.0), sleepy_server, plan=(0, "raw"), max_in_flight=1, local_rest_s=REST_S
    ) as session:
        session.submit(picture(0))
        first = session.submit(picture(1), deadline_s=30.0)  # waits, then runs alone for long
        second = session.submit(picture(2), deadline_s=0.6)
        assert not first.done()
        assert isinstance(second.exception(0), DeadlineExceeded)


def test_a_request_whose_turn_does_not_come_fails_at_its_deadline(
    chain: Chain, picture: Picture
) -> None:
    with EdgeSession(chain, None, plan=(4, "raw")) as session:
        free = threading.Event()
        session._crew.worker.put(lambda: cast(None, free.wait(60)), rank=HEAD, order=0)
        busy = session.submit(picture(0))
        with pytest.raises(DeadlineExceeded, match="busy with others"):
            session.infer(picture(1), deadline_s=0.2)
        assert not busy.done()
        free.set()
        assert session.infer(picture(2), deadline_s=30.0).where == "edge"
        assert busy.result(PATIENCE_S).where == "edge"


@pytest.mark.parametrize("seconds", [math.inf, 1e300])
def test_any_time_at_all_may_be_allowed(
    chain: Chain, server: str, picture: Picture, seconds: float
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw"), timeout_s=seconds) as session:
        assert session.infer(picture(0), deadline_s=seconds).where != "edge"
        assert session.infer(picture(0)).where == "cloud"
        session._crew.alarms.at(time.monotonic(), (rang := threading.Event()).set)
        assert rang.wait(PATIENCE_S)


@pytest.mark.parametrize("seconds", [math.nan, 0.0, -1.0, "soon", None, [1]])
def test_a_time_that_is_none_is_refused(chain: Chain, seconds: Any, picture: Picture) -> None:
    with pytest.raises(UsageError, match="timeout_s must be more than 0"):
        EdgeSession(chain, None, plan=(4, "raw"), timeout_s=seconds)
    with EdgeSession(chain, None, plan=(4, "raw")) as session:
        if seconds is not None:
            with pytest.raises(UsageError, match="deadline_s must be more than 0"):
                session.infer(picture(0), deadline_s=seconds)


def test_answered_requests_leave_no_alarms_behind(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw"), timeout_s=3600.0) as session:
        for n in range(4 * DROPPED):
            session.infer(picture(n % 3), deadline_s=3000.0)
        assert len(session._crew.alarms) <= 2 * DROPPED


def test_dropped_alarms_do_not_go_off_and_the_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("midstream_edge.session.threads.time", clock)
    alarms, rang = Alarms(Faults()), []
    kept = [alarms.at(300.0, lambda n=n: rang.append(n)) for n in range(400)]  # type: ignore[misc]
    for n, alarm in enumerate(kept):
        if n % 4:
            alarms.drop(alarm)
            alarms.drop(alarm)
    last = threading.Event()
    alarms.at(301.0, last.set)
    assert len(alarms) < 300
    now_s = 302.0
    alarms.at(0.0, lambda: None)  # the thread looks at the clock again
    assert last.wait(PATIENCE_S)
    alarms.close(PATIENCE_S)
    assert rang == list(range(0, 400, 4))


def test_no_later_task_comes_before_one_that_was_queued() -> None:
    worker, ran = Worker(Faults()), []
    for n in range(2000):
        worker.put(lambda n=n: ran.append(n), rank=HEAD, order=n)  # type: ignore[misc]
        if worker.take_turn():
            assert ran[-1] == n
            worker.end_turn()
    worker.close(PATIENCE_S)


@pytest.mark.usefixtures("steady_link")
def test_nothing_falls_back_when_infer_and_submit_contend(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw"), timeout_s=60.0) as session:
        inputs = picture(0)

        def ask(begin: Callable[[], object]) -> None:
            for _ in range(40):
                begin()

        calls = [lambda: session.infer(inputs)] * 3
        calls += [lambda: session.submit(inputs).result()] * 3
        threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = session.stats
    assert stats.cloud == stats.requests == 240


@pytest.mark.usefixtures("steady_link")
def test_a_plan_without_a_head_waits_for_no_local_rest(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(0, "raw")) as session:
        free = threading.Event()
        session._crew.worker.put(lambda: cast(None, free.wait(60)), rank=HEAD, order=0)
        assert session.infer(picture(0)).where == "cloud"
        assert session.submit(picture(1)).result(PATIENCE_S).where == "cloud"
        free.set()


def test_what_failed_goes_out_again_when_the_link_is_back(
    paced: Paced, spawn: Spawn, picture: Picture
) -> None:
    rest_s = {0: 40.0}
    with (
        spawn() as (process, address),
        EdgeSession(paced(10.0), address, plan=(0, "raw"), local_rest_s=rest_s) as session,
    ):
        assert session.infer(picture(0)).where == "cloud"
        process.kill()
        process.wait()
        futures = [session.submit(picture(n)) for n in range(3)]
        with spawn(address):
            answers = [future.result(30) for future in futures]
    assert [answer.where for answer in answers] == ["cloud"] * 3


def test_what_takes_longer_here_than_it_should_goes_out_again_too(
    paced: Paced, spawn: Spawn, picture: Picture
) -> None:
    """The edge is held up in a rest that should have ended long ago."""
    with (
        spawn() as (process, address),
        EdgeSession(paced(10.0), address, plan=(0, "raw"), local_rest_s={0: 0.001}) as session,
    ):
        assert session.infer(picture(0)).where == "cloud"
        process.kill()
        process.wait()
        future = session.submit(picture(1))
        with spawn(address):
            assert future.result(30).where == "cloud"


def test_a_fork_of_the_process_is_told_at_once(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        calls: list[Callable[[], object]] = [
            lambda: session.infer(picture(0)),
            lambda: session.infer(picture(0), deadline_s=1.0),
            lambda: session.submit(picture(0)),
            session.measure_link,
            session.describe,
            lambda: session.swap(chain, plan=(1, "raw")),
            lambda: session.use(1, "raw"),
            lambda: session.wait_connected(5.0),
            lambda: session.wait_swapped(5.0),
            lambda: session.stats,
            lambda: session.plan,
            session.close,
        ]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            for call in calls:
                try:
                    call()
                except UsageError as error:
                    os.write(writing, b"+" if "process that opened it" in str(error) else b"-")
            session.__exit__(None, None, None)
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as told:
            assert told.read() == b"+" * len(calls)
        os.waitpid(child, 0)
        assert session.infer(picture(0)).where == "cloud"


@pytest.mark.parametrize(
    "given",
    [
        {"x": [[1.0]]},
        {"x": np.ma.zeros((1, 3, 32, 32), np.float32)},
        {"x": np.zeros((1, 3, 32, 32), ">f4")},
        {"x": np.zeros((1, 3, 32, 32), object)},
        {},
        [1.0],
        None,
        np.zeros((1, 3, 32, 32), np.float32),
    ],
)
@pytest.mark.parametrize("k", [0, 1, 4])
def test_what_are_no_arrays_is_said_in_a_sentence(
    chain: Chain, server: str, given: Any, k: int
) -> None:
    with EdgeSession(chain, server, plan=(k, "raw")) as session:
        with pytest.raises(TensorError):
            session.infer(given)
        with pytest.raises(TensorError):
            session.submit(given).result(PATIENCE_S)


def test_a_record_that_cannot_be_written_ends_the_run(chain: Chain, picture: Picture) -> None:
    def fill_up(_: Record) -> None:
        raise OSError(28, "No space left on device")

    for every_s in (None, 0.001):
        with (
            EdgeSession(chain, None, plan=(4, "raw")) as session,
            pytest.raises(OSError, match="No space left"),
        ):
            drive(session, picture, Schedule(every_s=every_s, requests=50), tell=fill_up)


def test_a_swap_without_a_thread_to_be_had_changes_nothing(
    chain: Chain, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "midstream-retire":
            raise RuntimeError("can't start new thread")
        start(thread)

    with EdgeSession(chain, None, plan=(4, "raw")) as session:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ResourceError, match="needs a thread"):
            session.swap(chain.at_speed(1.0), plan=(4, "raw"))
        assert session.infer(picture(0)).where == "edge"
        monkeypatch.undo()
        session.swap(chain.at_speed(1.0), plan=(4, "raw"))
        assert session.wait_swapped(PATIENCE_S)
        assert session.stats.requests == 1
