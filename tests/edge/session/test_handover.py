"""Going over to another partition between two requests: none lost, none answered twice."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager

import numpy as np
import pytest

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.session.session import Answer, EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.background import Prepared
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import recut
from midstream_wire.descriptions import Preparation
from midstream_wire.errors import CloudRefused, UsageError
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Expected = Callable[[Inputs], dict[str, Array]]
Serve = Callable[..., AbstractContextManager[str]]

pytestmark = pytest.mark.usefixtures("steady_link")

PATIENCE_S = 30.0
RUNS = [(0, 2)], [(0, 3), (0, 5)]


@pytest.fixture(scope="module")
def others(small: Partition) -> list[Chain]:
    """The same network, cut at other places."""
    return [Chain(recut(small, runs)) for runs in RUNS]


@pytest.fixture(scope="module")
def repository(small: Partition) -> Repository:
    """Holds the first partition, and is asked for the others."""
    made = Repository(repartition=2, cut=lambda part, heads: Prepared(recut(part, heads)))
    made.add("small", small)
    for runs in RUNS:
        asked = Preparation("small", small.graph_digest, small.digest, tuple(runs))
        while not made.prepare(asked).ready:
            made.wait(PATIENCE_S)
    return made


@pytest.fixture
def willing(repository: Repository) -> Iterator[str]:
    with serving(repository) as address:
        yield str(address)


def check(answer: Answer, expected: dict[str, Array]) -> None:
    assert sorted(answer.outputs) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(answer.outputs[name], array, rtol=1e-4, atol=1e-6)


def test_requests_go_over_to_the_new_partition_in_the_cloud_too(
    chain: Chain, others: list[Chain], willing: str, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(chain, willing, plan=(1, "raw"), model="small") as session:
        for each in others:
            session.swap(each, plan=(1, "raw"))
            assert session.chain is each
            answer = session.infer(picture(1))
            assert answer.where == "cloud", answer.reason
            check(answer, expected(picture(1)))
        assert session.stats.requests == session.stats.cloud == 2


def test_under_load_each_request_gets_its_own_answer_once(
    chain: Chain, others: list[Chain], willing: str, picture: Picture, expected: Expected
) -> None:
    """Several threads ask while the partition changes under them, back and forth."""
    total, swaps, threads = 240, 12, 3
    numbers = iter(range(total))
    taken = threading.Lock()
    answers: dict[int, Answer] = {}
    told: list[int] = []

    def ask(session: EdgeSession) -> None:
        while True:
            with taken:
                n = next(numbers, None)
            if n is None:
                return
            future = session.submit(picture(n % 8))
            future.add_done_callback(lambda done, n=n: told.append(n))  # type: ignore[misc]
            answers[n] = future.result(PATIENCE_S)

    with EdgeSession(chain, willing, plan=(1, "raw"), model="small") as session:
        askers = [threading.Thread(target=ask, args=(session,)) for _ in range(threads)]
        for asker in askers:
            asker.start()
        order = itertools.cycle([*others, chain])
        for _ in range(swaps):
            session.swap(next(order), plan=(1, "raw"))
            assert session.wait_swapped(PATIENCE_S)
        for asker in askers:
            asker.join(PATIENCE_S)
        stats = session.stats
    assert sorted(told) == sorted(answers) == list(range(total))
    for n, answer in answers.items():
        check(answer, expected(picture(n % 8)))
    assert stats.requests == total
    assert stats.cloud == total


def test_what_is_under_way_is_finished_by_the_partition_it_began_with(
    others: list[Chain], small_slow: Chain, willing: str, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(small_slow, willing, plan=(2, "raw"), model="small") as session:
        before = [session.submit(picture(n)) for n in range(4)]
        session.swap(others[0], plan=(1, "raw"))
        after = session.submit(picture(9))
        for n, future in enumerate(before):
            answer = future.result(PATIENCE_S)
            assert answer.k == 2
            check(answer, expected(picture(n)))
        assert after.result(PATIENCE_S).k == 1
        check(after.result(), expected(picture(9)))


def test_who_waits_for_room_is_sent_on_to_the_new_partition(
    others: list[Chain], small_slow: Chain, willing: str, picture: Picture
) -> None:
    with EdgeSession(
        small_slow, willing, plan=(2, "raw"), model="small", max_in_flight=1
    ) as session:
        first = session.submit(picture(0))
        waiting: Future[Answer] = Future()

        def wait() -> None:
            waiting.set_result(session.submit(picture(1)).result(PATIENCE_S))

        thread = threading.Thread(target=wait)
        thread.start()
        session.swap(others[1], plan=(0, "raw"))
        assert first.result(PATIENCE_S).k == 2
        assert waiting.result(PATIENCE_S).k in (0, 2)
        thread.join(PATIENCE_S)
        assert session.infer(picture(2)).k == 0


def test_without_a_link_it_goes_over_at_once_and_runs_here(
    chain: Chain, others: list[Chain], serve: Serve, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(chain, "127.0.0.1:9", plan=(1, "raw"), model="small") as session:
        session.swap(others[0], plan=(1, "raw"))
        answer = session.infer(picture(3))
        assert answer.where == "edge-after-cloud-failed"
        check(answer, expected(picture(3)))
    with EdgeSession(chain, None, plan=(3, "raw")) as session:
        session.swap(others[1], plan=(2, "raw"))
        check(session.infer(picture(4)), expected(picture(4)))


def test_a_server_that_does_not_hold_the_partition_leaves_everything_as_it_was(
    chain: Chain, others: list[Chain], server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw"), model="small") as session:
        with pytest.raises(CloudRefused, match="the same partition"):
            session.swap(others[0], plan=(1, "raw"))
        assert session.chain is chain
        assert session.infer(picture(0)).where == "cloud"


def test_another_network_and_a_closed_session_are_refused(
    chain: Chain, others: list[Chain], other: Partition
) -> None:
    session = EdgeSession(chain, None, plan=(1, "raw"))
    with pytest.raises(UsageError, match="another partition of small only"):
        session.swap(Chain(other), plan=(1, "raw"))
    with pytest.raises(UsageError, match="0 to 2 segments"):
        session.swap(others[0], plan=(3, "raw"))
    session.close()
    with pytest.raises(UsageError, match="open session"):
        session.swap(others[0], plan=(1, "raw"))


def test_the_old_partition_is_freed_once_its_last_request_is_answered(
    small: Partition, others: list[Chain], willing: str, picture: Picture
) -> None:
    chain = Chain(small)
    old = weakref.ref(chain)
    with EdgeSession(chain, willing, plan=(1, "raw"), model="small") as session:
        del chain
        session.infer(picture(0), deadline_s=20.0)
        gc.collect()
        gc.disable()  # it must not take a garbage collection, which would stall requests
        try:
            session.swap(others[0], plan=(1, "raw"))
            assert session.wait_swapped(PATIENCE_S)
            assert old() is None
        finally:
            gc.enable()
