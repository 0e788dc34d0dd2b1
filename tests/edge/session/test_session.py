"""An edge session against a real server, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import pytest

from midstream_edge.session.session import Answer, EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_wire.errors import TensorError, UsageError
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Expected = Callable[[Inputs], dict[str, Array]]

pytestmark = pytest.mark.usefixtures("steady_link")

PATIENCE_S = 30.0


def assert_same(answer: Answer, wanted: dict[str, Array]) -> None:
    assert sorted(answer.outputs) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(answer.outputs[name], array)


@pytest.mark.parametrize("codec", ["raw", "lossless"])
def test_a_hundred_pipelined_requests_equal_the_unsplit_chain_bit_for_bit(
    chain: Chain, server: str, picture: Picture, expected: Expected, codec: str
) -> None:
    with EdgeSession(chain, server, plan=(1, codec)) as session:
        futures = [session.submit(picture(n)) for n in range(100)]
        answers = [future.result(PATIENCE_S) for future in futures]
        stats = session.stats
    for n, answer in enumerate(answers):
        assert answer.where == "cloud"
        assert_same(answer, expected(picture(n)))
    assert (stats.requests, stats.cloud, stats.fallback) == (100, 100, 0)
    assert stats.uplink_nbytes == sum(answer.payload_nbytes for answer in answers) > 0
    assert stats.downlink_nbytes > 0


@pytest.mark.parametrize("k", range(5))
def test_every_placement_gives_the_same_answer(
    chain: Chain, server: str, picture: Picture, expected: Expected, k: int
) -> None:
    with EdgeSession(chain, server, plan=(k, "raw")) as session:
        answer = session.infer(picture(k))
    assert answer.where == ("edge" if k == 4 else "cloud")
    assert (answer.k, answer.codec, answer.reason) == (k, "raw", None)
    assert (answer.payload_nbytes > 0) == (k < 4)
    assert_same(answer, expected(picture(k)))


class Watched:
    """A chain that tells on which threads it runs, and is interrupted there when asked to."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.threads: list[threading.Thread] = []
        self.interrupted = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)

    def run(self, state: Inputs, first: int, last: int) -> dict[str, Array]:
        self.threads.append(threading.current_thread())
        if self.interrupted:
            raise KeyboardInterrupt
        return self._chain.run(state, first, last)


def test_a_caller_who_waits_runs_the_head_itself(chain: Chain, picture: Picture) -> None:
    watched = Watched(chain)
    with EdgeSession(cast(Chain, watched), None, plan=(4, "raw")) as session:
        session.infer(picture(0))
        session.submit(picture(1)).result(PATIENCE_S)
    assert watched.threads[0] is threading.current_thread()
    assert watched.threads[1].name == "midstream-compute"


def test_ctrl_c_during_a_head_leaves_the_session_usable(
    chain: Chain, picture: Picture, expected: Expected
) -> None:
    watched = Watched(chain)
    session = EdgeSession(cast(Chain, watched), None, plan=(4, "raw"), max_in_flight=1)
    with session:
        watched.interrupted = True
        with pytest.raises(KeyboardInterrupt):
            session.infer(picture(0))
        watched.interrupted = False
        assert_same(session.infer(picture(1)), expected(picture(1)))
        assert (session.stats.requests, session.stats.failed) == (2, 1)


def test_a_lossy_codec_costs_a_little_and_says_so(
    chain: Chain, server: str, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(chain, server, plan=(1, "int8")) as session:
        answer = session.infer(picture(0))
    assert (answer.where, answer.codec) == ("cloud", "int8")
    np.testing.assert_allclose(answer.outputs["y"], expected(picture(0))["y"], atol=0.05)


def test_a_switch_of_plan_in_mid_stream_loses_and_repeats_nothing(
    chain: Chain, server: str, picture: Picture, expected: Expected
) -> None:
    plans = [(0, "raw"), (1, "lossless"), (4, "raw"), (2, "raw"), (3, "lossless")]
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        futures = []
        for n in range(60):
            session.use(*plans[n % len(plans)])
            futures.append(session.submit(picture(n)))
        answers = [future.result(PATIENCE_S) for future in futures]
        stats = session.stats
    for n, answer in enumerate(answers):
        assert (answer.k, answer.codec) in [*plans, (1, "raw")]
        assert answer.where == ("edge" if answer.k == 4 else "cloud")
        assert_same(answer, expected(picture(n)))
    assert stats.cloud + stats.edge == 60


def test_timings_add_up_to_the_wall_time(chain: Chain, server: str, picture: Picture) -> None:
    with EdgeSession(chain, server, plan=(1, "lossless")) as session:
        session.infer(picture(0))
        answer = session.infer(picture(1))
    timings = answer.timings
    assert min(timings.to_dict().values()) >= 0
    assert timings.head_s > 0
    assert timings.encode_s > 0
    assert timings.tail_s > 0
    # The clocks' offset is known to half a round trip: either may get the other's time.
    assert timings.uplink_s + timings.downlink_s > 0


def test_a_slow_edge_is_slow_in_encoding_too(
    small_slow: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(small_slow, server, plan=(1, "lossless")) as session:
        session.infer(picture(0))
        answer = session.infer(picture(1))
    assert answer.where == "cloud"
    assert answer.timings.encode_s > 0


def test_without_a_server_everything_runs_here(
    chain: Chain, picture: Picture, expected: Expected
) -> None:
    with EdgeSession(chain, None, plan=(1, "raw")) as session:
        answer = session.infer(picture(0))
        assert not session.connected
        with pytest.raises(UsageError, match="needs a server"):
            session.measure_link()
    assert (answer.where, answer.k, answer.payload_nbytes) == ("edge", 4, 0)
    assert answer.timings.total_s == answer.timings.head_s > 0
    assert_same(answer, expected(picture(0)))


def test_an_input_that_does_not_fit_fails_its_request_alone(
    chain: Chain, server: str, picture: Picture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        wrong = session.submit({"x": np.zeros((1, 3, 8, 8), np.float32)})
        right = session.submit(picture(0))
        with pytest.raises(TensorError, match="must be float32"):
            wrong.result(PATIENCE_S)
        assert right.result(PATIENCE_S).where == "cloud"
        assert session.stats.failed == 1


def test_submit_blocks_when_enough_requests_are_under_way(
    small_slow: Chain, picture: Picture
) -> None:
    with EdgeSession(small_slow, None, plan=(4, "raw"), max_in_flight=2) as session:
        futures = []
        for n in range(6):
            futures.append(session.submit(picture(n)))
            assert sum(not future.done() for future in futures) <= 2
        assert all(future.result(PATIENCE_S).where == "edge" for future in futures)


def test_a_cancelled_request_is_dropped_and_the_next_one_runs(
    small_slow: Chain, picture: Picture
) -> None:
    with EdgeSession(small_slow, None, plan=(4, "raw")) as session:
        futures = [session.submit(picture(n)) for n in range(4)]
        cancelled = futures[2].cancel()
        assert futures[3].result(PATIENCE_S).where == "edge"
        assert futures[2].cancelled() == cancelled


def test_closing_cancels_what_is_under_way_and_refuses_more(
    small_slow: Chain, picture: Picture
) -> None:
    session = EdgeSession(small_slow, None, plan=(4, "raw"))
    futures = [session.submit(picture(n)) for n in range(8)]
    session.close()
    assert all(future.done() for future in futures)
    with pytest.raises(UsageError, match="closed"):
        session.submit(picture(0))


def test_closing_wakes_a_blocked_submit(small_slow: Chain, picture: Picture) -> None:
    session = EdgeSession(small_slow, None, plan=(4, "raw"), max_in_flight=1)
    outcome: list[BaseException] = []
    session.submit(picture(0))

    def submit_until_refused() -> None:
        try:
            while True:
                session.submit(picture(1))
        except UsageError as error:
            outcome.append(error)

    thread = threading.Thread(target=submit_until_refused)
    thread.start()
    session.close()
    thread.join(PATIENCE_S)
    assert len(outcome) == 1


def test_a_session_leaves_no_threads_behind(
    chain: Chain, server: str, picture: Picture
) -> None:
    others = set(threading.enumerate())  # a session before may still be closing
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        session.infer(picture(0))
        ours = [t for t in threading.enumerate() if t.name.startswith("midstream-")]
        ours = [thread for thread in ours if thread not in others]
        assert ours
    for thread in ours:
        if thread.name != "midstream-cloud":
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), thread.name


def test_settings_that_cannot_work_are_refused(chain: Chain, small_prefix: Chain) -> None:
    with pytest.raises(UsageError, match="0 to 4 segments"):
        EdgeSession(chain, None, plan=(5, "raw"))
    with pytest.raises(UsageError, match="codec"):
        EdgeSession(chain, None, plan=(1, "zip"))
    with pytest.raises(UsageError, match="must hold all 4 segments"):
        EdgeSession(small_prefix, None, plan=(1, "raw"))
    with pytest.raises(UsageError, match="begin at segment 0"):
        EdgeSession(Chain(chain.partition, first=2), None, plan=(2, "raw"))
    with pytest.raises(UsageError, match="loopback"):
        EdgeSession(chain, "192.0.2.1:1", plan=(1, "raw"))
    with pytest.raises(UsageError, match="timeout_s"):
        EdgeSession(chain, None, plan=(1, "raw"), timeout_s=0)


def test_the_server_is_described(chain: Chain, server: str) -> None:
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        (model,) = session.describe()
    partition = chain.partition
    assert model.partition_digest == partition.digest
    assert [cut.id for cut in model.cuts] == [cut.id for cut in partition.cuts]
    assert [cut.tensors for cut in model.cuts] == [partition.crossing(k) for k in range(5)]


def test_loopback_is_a_fast_link(chain: Chain, server: str) -> None:
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        for _ in range(6):  # a busy machine spoils a measurement
            link = session.measure_link()
            assert 0 < max(link.uplink_bps, link.downlink_bps) <= 10e9
            if min(link.uplink_bps, link.downlink_bps) > 10e6 and link.rtt_s < 0.1:
                return
    pytest.fail(f"no measurement shows a fast link, the last was {link}")
