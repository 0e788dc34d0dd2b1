"""The edge always answers: servers that die, refuse, hang, or are not ours.

How soon it does is shown in virtual time (`tests/app/test_testing.py` for requests,
`tests/edge/link/test_streams.py` for links); here are the order, and who answers.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from midstream_cloud.server import Settings
from midstream_edge.link import connection
from midstream_edge.link import monitored_stream as monitored
from midstream_edge.link.connection import Connection
from midstream_edge.link.describe import check_health, describe
from midstream_edge.session.session import Answer, EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.credentials import channel_tls
from midstream_wire.errors import (
    CloudRefused,
    CloudUnavailable,
    DeadlineExceeded,
    PeerError,
    ProtocolError,
)
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Expected = Callable[[Inputs], dict[str, Array]]
Serve = Callable[..., AbstractContextManager[str]]
Spawn = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]

FALLBACK = "edge-after-cloud-failed"

#: More than a busy machine needs, and less than whoever is waited for would take.
PATIENCE_S = 30.0


def assert_same(answer: Answer, wanted: dict[str, Array]) -> None:
    assert sorted(answer.outputs) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(answer.outputs[name], array)


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@contextmanager
def black_hole() -> Iterator[str]:
    """Takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    """An address at which nothing listens: bound, so that nobody else takes it."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def web_server() -> Iterator[str]:
    """Speaks HTTP/1.1."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()


@pytest.mark.usefixtures("steady_link")
def test_a_server_killed_amid_200_requests_costs_no_answer(
    chain: Chain, spawn: Spawn, picture: Picture, expected: Expected
) -> None:
    with (
        spawn(slowdown=20) as (process, address),
        EdgeSession(chain, address, plan=(1, "raw")) as session,
    ):
        futures = []
        delivered: list[int] = []
        for n in range(200):
            future = session.submit(picture(n))
            future.add_done_callback(lambda _, n=n: delivered.append(n))  # type: ignore[misc]
            futures.append(future)
            if n == 100:
                process.kill()
        answers = [future.result(PATIENCE_S) for future in futures]
        stats = session.stats
    assert sorted(delivered) == list(range(200))
    for n, answer in enumerate(answers):
        assert_same(answer, expected(picture(n)))
    local = [answer for answer in answers if answer.where == FALLBACK]
    assert len(local) == stats.fallback >= 90
    assert stats.cloud == 200 - len(local) >= 80
    assert {answer.reason for answer in local if address not in (answer.reason or "")} == set()


def test_a_server_that_comes_back_is_used_again(
    chain: Chain, spawn: Spawn, picture: Picture
) -> None:
    with (
        spawn() as (process, address),
        EdgeSession(chain, address, plan=(1, "raw")) as session,
    ):
        assert session.infer(picture(0)).where == "cloud"
        process.kill()
        process.wait()
        assert session.infer(picture(1)).where == FALLBACK
        with spawn(address):
            assert session.wait_connected(PATIENCE_S)
            assert session.infer(picture(2)).where == "cloud"
        assert session.stats.reconnects == 1


def test_a_server_that_hangs_costs_one_wait_and_no_answer(
    chain: Chain,
    spawn: Spawn,
    picture: Picture,
    expected: Expected,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doubt = Connection.doubt
    waits: list[tuple[float, float]] = []  # for the cloud in vain, from and until when

    def note(connection: Connection, since_s: float) -> None:
        doubt(connection, since_s)
        waits.append((since_s, time.monotonic()))

    monkeypatch.setattr(Connection, "doubt", note)
    with (
        spawn() as (process, address),
        EdgeSession(chain, address, plan=(1, "raw"), timeout_s=0.3) as session,
    ):
        assert session.infer(picture(0)).where == "cloud"
        process.send_signal(signal.SIGSTOP)
        futures = [session.submit(picture(n)) for n in range(8)]
        assert all(future.result(PATIENCE_S).where == FALLBACK for future in futures)
        began, ended = zip(*waits, strict=True)
        assert max(began) < min(ended)  # they waited side by side, and none after them
        wait_until(lambda: session.link_state == "suspect")
        suspected = session.infer(picture(1))
        assert len(waits) == len(began)
        process.send_signal(signal.SIGCONT)
        assert session.wait_connected(PATIENCE_S)
        assert session.infer(picture(2)).where == "cloud"
    assert suspected.where == FALLBACK
    assert suspected.reason is not None
    assert "nothing came within" in suspected.reason
    assert suspected.payload_nbytes == 0  # the link was not even tried
    assert_same(suspected, expected(picture(1)))


def test_a_server_that_drains_is_left_without_losing_an_answer(
    chain: Chain, serve: Serve, picture: Picture, expected: Expected
) -> None:
    with serve(slowdown=5.0) as address:
        session = EdgeSession(chain, address, plan=(1, "raw"))
        futures = [session.submit(picture(n)) for n in range(8)]
    with session:
        answers = [future.result(PATIENCE_S) for future in futures]
        late = session.infer(picture(8))
    for n, answer in enumerate(answers):
        assert_same(answer, expected(picture(n)))
    assert late.where == FALLBACK


def test_nothing_listens_and_the_edge_answers_at_once(
    chain: Chain, picture: Picture, expected: Expected
) -> None:
    with (
        closed_port() as address,
        EdgeSession(chain, address, plan=(1, "raw"), timeout_s=3600.0) as session,
    ):
        answer = session.submit(picture(0)).result(PATIENCE_S)
    assert (answer.where, answer.payload_nbytes) == (FALLBACK, 0)
    assert answer.reason is not None
    assert "the connection was refused" in answer.reason
    assert answer.timings.tail_s > 0
    assert_same(answer, expected(picture(0)))


def test_a_black_hole_holds_up_neither_answers_nor_closing(
    chain: Chain, picture: Picture, expected: Expected
) -> None:
    with black_hole() as address:
        session = EdgeSession(chain, address, plan=(1, "raw"))
        answer = session.submit(picture(0), deadline_s=3600.0).result(PATIENCE_S)
        leaving = threading.Thread(target=session.close, daemon=True)
        leaving.start()
        leaving.join(PATIENCE_S)
        assert not leaving.is_alive()
    assert (answer.where, answer.payload_nbytes) == (FALLBACK, 0)
    assert answer.reason is not None
    assert "nothing came within 3 s" in answer.reason
    assert_same(answer, expected(picture(0)))


@contextmanager
def unreachable() -> Iterator[str]:
    """Its queue is full, so that every further SYN vanishes, as behind a black hole."""
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket()))
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            end = stack.enter_context(closing(socket.socket()))
            end.setblocking(False)
            end.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_out_of_reach_is_not_waited_for(
    chain: Chain, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening would take an hour otherwise."""
    monkeypatch.setattr(monitored, "CONNECT_S", 3600.0)  # the first attempt's
    with (
        unreachable() as address,
        EdgeSession(chain, address, plan=(1, "raw"), patience_s=3600.0) as session,
    ):
        assert session.submit(picture(0)).result(PATIENCE_S).where == FALLBACK


def test_a_server_that_can_be_reached_is_given_its_time(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REACH_S", 0.3)
    began = time.monotonic()
    with black_hole() as address, EdgeSession(chain, address, plan=(1, "raw"), patience_s=1.0):
        assert time.monotonic() - began >= 1.0


@pytest.mark.usefixtures("steady_link")
def test_a_deadline_that_the_cloud_cannot_meet_is_met_by_the_edge(
    chain: Chain, sleepy_server: str, picture: Picture, expected: Expected
) -> None:
    rest_s = {1: 26.5}  # the edge begins 0.85 s after the request, 29 s before it is late
    with EdgeSession(chain, sleepy_server, plan=(1, "raw"), local_rest_s=rest_s) as session:
        answer = session.infer(picture(0), deadline_s=30.0)
    assert answer.where == FALLBACK
    assert answer.reason is not None
    assert "finish in time" in answer.reason
    assert answer.timings.queue_s > 0.1
    assert_same(answer, expected(picture(0)))


def test_the_first_deadline_of_an_edge_that_knows_no_pace_is_met_too(
    chain: Chain, sleepy_server: str, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(chain, sleepy_server, plan=(1, "raw")) as session:
        first = session.infer(picture(0), deadline_s=30.0)
        second = session.infer(picture(1), deadline_s=1.0)
    assert (first.where, second.where) == ("edge-before-cloud", FALLBACK)
    assert_same(first, expected(picture(0)))
    assert_same(second, expected(picture(1)))


def test_without_a_deadline_the_timeout_bounds_the_wait(
    chain: Chain, sleepy_server: str, picture: Picture
) -> None:
    with EdgeSession(chain, sleepy_server, plan=(1, "raw"), timeout_s=0.1) as session:
        answer = session.infer(picture(0))
    assert answer.where == FALLBACK  # the cloud would have taken 45 s
    assert answer.reason is not None
    assert "nothing came in" in answer.reason
    assert answer.timings.total_s >= 0.1


def test_edge_only_requests_run_whatever_the_server_does(
    chain: Chain, picture: Picture
) -> None:
    with closed_port() as address, EdgeSession(chain, address, plan=(4, "raw")) as session:
        answer = session.infer(picture(0))
    assert (answer.where, answer.reason) == ("edge", None)


def test_an_edge_with_a_prefix_only_works_with_the_cloud(
    small_prefix: Chain, server: str, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(small_prefix, server, plan=(2, "raw")) as session:
        answer = session.infer(picture(0))
    assert answer.where == "cloud"
    assert_same(answer, expected(picture(0)))


def test_an_edge_with_a_prefix_only_says_that_it_cannot_finish_alone(
    small_prefix: Chain, picture: Picture, sleepy_server: str
) -> None:
    with (
        closed_port() as address,
        EdgeSession(small_prefix, address, plan=(2, "raw")) as session,
        pytest.raises(CloudUnavailable, match=r"holds 2 of 4 segments"),
    ):
        session.infer(picture(0))
    with (
        EdgeSession(small_prefix, sleepy_server, plan=(2, "raw")) as session,
        pytest.raises(DeadlineExceeded, match="cannot finish alone"),
    ):
        session.infer(picture(0), deadline_s=0.1)


def test_another_digest_is_refused_at_once(other: Partition, server: str) -> None:
    with pytest.raises(CloudRefused, match="same partition") as caught:
        EdgeSession(Chain(other), server, plan=(1, "raw"))
    assert caught.value.code == 9


def test_an_unknown_model_is_refused_at_once(other: Partition, server: str) -> None:
    with pytest.raises(CloudRefused, match="'large'") as caught:
        EdgeSession(Chain(other), server, plan=(1, "raw"), model="large")
    assert caught.value.code == 5


def test_a_partition_is_found_by_its_digest_whatever_the_server_calls_it(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw"), model="large") as session:
        assert session.infer(picture(0)).where == "cloud"


def test_a_token_opens_the_door_and_a_wrong_one_does_not(
    chain: Chain, serve: Serve, picture: Picture
) -> None:
    with serve(settings=Settings(token="sesame")) as address:
        with EdgeSession(chain, address, plan=(1, "raw"), token="sesame") as session:
            assert session.infer(picture(0)).where == "cloud"
        for token in (None, "barley"):
            with pytest.raises(CloudRefused, match="credentials") as caught:
                EdgeSession(chain, address, plan=(1, "raw"), token=token)
            assert caught.value.code == 16
        with pytest.raises(CloudRefused, match="credentials"):
            describe(address)


def test_a_web_server_is_no_midstream_server(chain: Chain) -> None:
    with web_server() as address:
        with pytest.raises(ProtocolError, match=r"must speak midstream\.v1"):
            EdgeSession(chain, address, plan=(1, "raw"))
        with pytest.raises(ProtocolError, match=r"must speak midstream\.v1"):
            describe(address)


def test_tls_against_plaintext_is_told(chain: Chain, server: str) -> None:
    with pytest.raises(ProtocolError, match="TLS"):
        EdgeSession(chain, server, plan=(1, "raw"), tls=channel_tls())


@pytest.mark.parametrize("ask", [describe, check_health])
def test_asking_an_absent_server_says_what_is_wrong(ask: Callable[[str], object]) -> None:
    with closed_port() as address, pytest.raises(CloudUnavailable, match="refused"):
        ask(address)


def test_asking_a_black_hole_is_bounded() -> None:
    with black_hole() as address, pytest.raises(PeerError, match=r"0\.3 s"):
        describe(address, timeout_s=0.3)


def test_a_healthy_server_says_so(server: str) -> None:
    check_health(server)
