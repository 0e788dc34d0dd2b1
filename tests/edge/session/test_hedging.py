"""Hedges and races: both sides may run the rest, the first result is the only one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.session.answers import AHEAD, CLOUD, EDGE
from midstream_edge.session.director import PolicyDirector
from midstream_edge.session.inflight import Job
from midstream_edge.session.inflight_table import InFlightTable
from midstream_edge.session.session import Answer, EdgeSession
from midstream_edge.session.threads import HEAD
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Expected = Callable[[Inputs], dict[str, Array]]

pytestmark = pytest.mark.usefixtures("steady_link")


@dataclass(frozen=True)
class Scripted:
    """Says what it was told to say, the last of it for ever, and keeps what it heard."""

    decision: Decision
    later: tuple[Decision, ...] = ()
    name: str = "scripted"
    heard: list[Evidence] = field(default_factory=list)
    asked: list[Situation] = field(default_factory=list)

    def decide(self, situation: Situation) -> Decision:
        script = (self.decision, *self.later)
        self.asked.append(situation)
        return script[min(len(self.asked), len(script)) - 1]

    def learn(self, evidence: Evidence) -> Scripted:
        if evidence.placement is not None:  # the link itself is heard of at any time
            self.heard.append(evidence)
        return self


def placement(k: int, *, remote: bool = True) -> Placement:
    return Placement(
        cut=f"cut {k}", codec="raw", k=k, label="", remote=remote, head_s=0.0, encode_s=0.0,
        decode_s=0.0, tail_s=0.0, payload_nbytes=0, reply_nbytes=0, rest_s=0.0,
    )  # fmt: skip


PLACEMENTS = (placement(1), placement(2), placement(4, remote=False))


def assert_same(answer: Answer, expected: Mapping[str, Array]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(answer.outputs[name], values)


def test_a_hedge_answers_before_a_slow_cloud(
    chain: Chain, sleepy_server: str, picture: Picture, expected: Expected
) -> None:
    policy = Scripted(Decision(0, hedge_after_s=0.05))
    with EdgeSession(chain, sleepy_server, plan=(1, "raw")) as session:
        session.follow(policy, PLACEMENTS)
        answer = session.infer(picture(0))
        stats = session.stats
    assert (answer.where, answer.hedged, answer.reason) == (AHEAD, True, None)
    waited_s = answer.timings.queue_s + answer.timings.encode_s
    assert waited_s >= 0.05
    assert_same(answer, expected(picture(0)))
    assert (stats.ahead, stats.hedges, stats.fallback) == (1, 1, 0)


def test_the_cloud_wins_where_it_is_faster_and_the_edge_stops(
    paced: Callable[[float], Chain], server: str, picture: Picture, expected: Expected
) -> None:
    policy, idle = Scripted(Decision(0, hedge_after_s=0.0)), threading.Event()
    with EdgeSession(paced(15.0), server, plan=(0, "raw"), timeout_s=60.0) as session:
        session.follow(policy, (placement(0),))
        answers = [session.infer(picture(n)) for n in range(3)]
        stats = session.stats
        session._crew.worker.put(idle.set, rank=HEAD, order=10**9)  # after all else
        assert idle.wait(30.0)  # one rest alone would take the edge a minute
    assert [answer.where for answer in answers] == [CLOUD] * 3
    assert all(answer.hedged for answer in answers)
    assert stats.hedges == 3
    for n, answer in enumerate(answers):
        assert_same(answer, expected(picture(n)))


def test_a_hedge_at_once_wakes_no_other_thread_for_it(
    paced: Callable[[float], Chain],
    server: str,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead_s: list[float] = []
    set_alarm = InFlightTable.set_alarm

    def note(
        table: InFlightTable, job: Job, when_s: float, ring: Callable[[int], None]
    ) -> None:
        ahead_s.append(when_s - job.asked_s)
        set_alarm(table, job, when_s, ring)

    monkeypatch.setattr(InFlightTable, "set_alarm", note)
    for hedge_after_s in (0.0, 30.0):
        policy = Scripted(Decision(0, hedge_after_s=hedge_after_s))
        with EdgeSession(paced(15.0), server, plan=(0, "raw"), timeout_s=60.0) as session:
            session.follow(policy, (placement(0),))
            assert session.infer(picture(0)).hedged is (hedge_after_s == 0.0)
    assert ahead_s == [pytest.approx(30.0)]  # that of the hedge that was to come later


def test_races_give_one_right_answer_each(
    chain: Chain, server: str, picture: Picture, expected: Expected
) -> None:
    policy = Scripted(Decision(0, hedge_after_s=0.0))
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        session.follow(policy, PLACEMENTS)
        futures = [session.submit(picture(n)) for n in range(100)]
        answers = [future.result(30) for future in futures]
        stats = session.stats
    assert {answer.where for answer in answers} <= {AHEAD, CLOUD}
    for n, answer in enumerate(answers):
        assert_same(answer, expected(picture(n)))
    counted = Counter(answer.where for answer in answers)
    assert (stats.cloud, stats.ahead, stats.failed) == (counted[CLOUD], counted[AHEAD], 0)
    assert stats.requests == 100


def test_an_edge_with_a_prefix_waits_for_the_cloud(
    small: object, server: str, picture: Picture, expected: Expected, chain: Chain
) -> None:
    prefix = Chain(chain.partition, last=1)
    policy = Scripted(Decision(0, hedge_after_s=0.0))
    with EdgeSession(prefix, server, plan=(1, "raw")) as session:
        session.follow(policy, (placement(1),))
        answer = session.infer(picture(0))
    assert (answer.where, answer.hedged) == (CLOUD, False)
    assert_same(answer, expected(picture(0)))


def test_a_policy_hears_what_came_of_its_choices(
    chain: Chain, server: str, picture: Picture
) -> None:
    policy = Scripted(Decision(0))
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        session.follow(policy, PLACEMENTS)
        answer = session.infer(picture(0))
    (asked,) = policy.asked
    assert (asked.link, asked.current, asked.in_flight) == ("connected", None, 0)
    (heard,) = policy.heard
    assert heard.placement == 0
    assert heard.latency_s == pytest.approx(answer.timings.total_s, abs=1e-3)
    assert heard.transfer is not None
    assert heard.transfer.complete
    assert heard.transfer.nbytes == answer.payload_nbytes
    assert 0 < heard.transfer.took_s < answer.timings.total_s


def test_a_lost_race_tells_that_the_transfer_was_not_through(
    chain: Chain, sleepy_server: str, picture: Picture
) -> None:
    policy = Scripted(Decision(0, hedge_after_s=0.05))
    with EdgeSession(chain, sleepy_server, plan=(1, "raw")) as session:
        session.follow(policy, PLACEMENTS)
        session.infer(picture(0))
    (heard,) = policy.heard
    assert heard.hedged
    assert heard.transfer is not None
    assert not heard.transfer.complete
    assert heard.transfer.took_s > 0.04


def test_edge_only_by_policy_is_no_hedge(chain: Chain, server: str, picture: Picture) -> None:
    policy = Scripted(Decision(2))
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        director = session.follow(policy, PLACEMENTS)
        answer = session.infer(picture(0))
        assert session.plan == (4, "raw")
    assert (answer.where, answer.hedged, director.switches) == (EDGE, False, 0)
    assert policy.heard[0].transfer is None


def test_switches_are_counted_between_requests() -> None:
    director = PolicyDirector(
        Scripted(Decision(1), (Decision(1), Decision(2))), PLACEMENTS, timeout_s=5.0
    )
    chosen = [director.choose(Situation(now_s=now_s)).k for now_s in range(4)]
    assert (chosen, director.switches) == ([2, 2, 4, 4], 1)


def test_a_run_that_is_told_to_stop_ends_at_once(chain: Chain, picture: Picture) -> None:
    stop = Stop()
    stop.tell()
    with pytest.raises(Stopped):
        chain.run(picture(0), 0, 4, stop=stop)
    slow, later = chain.at_speed(1e6), Stop()
    with pytest.raises(Stopped):
        _tell_soon(later, lambda: slow.run(picture(0), 0, 4, stop=later))


def _tell_soon(stop: Stop, run: Callable[[], object]) -> None:
    threading.Timer(0.05, stop.tell).start()
    run()


def test_what_a_deadline_makes_the_edge_begin_the_cloud_may_end_first(
    small: Partition, chain: Chain, picture: Picture, expected: Expected
) -> None:
    """After half a second the cloud alone is waited for no longer; it needs a whole one."""
    slow_edge = chain.at_speed(2.0)
    slow_edge.keep_pace([3.0] * 4)
    repository = Repository()
    repository.add("small", small, slowdown=2.0)
    repository.models["small"].chain.keep_pace([0.25] * 4)
    with (
        serving(repository) as address,
        EdgeSession(
            slow_edge, str(address), plan=(0, "raw"), local_rest_s={0: 5.0}
        ) as session,
    ):
        answer = session.infer(picture(0), deadline_s=6.0)
    assert (answer.where, answer.hedged, answer.reason) == (CLOUD, False, None)
    assert answer.timings.total_s > 0.5
    assert_same(answer, expected(picture(0)))


def test_a_deadline_that_the_edge_cannot_meet_is_tried_by_the_cloud_too(
    chain: Chain, server: str, picture: Picture, expected: Expected
) -> None:
    slow_edge = chain.at_speed(3000.0)
    rest_s = {0: 30.0}
    with EdgeSession(slow_edge, server, plan=(0, "raw"), local_rest_s=rest_s) as session:
        answer = session.infer(picture(0), deadline_s=5.0)
    assert (answer.where, answer.hedged) == (CLOUD, True)
    assert_same(answer, expected(picture(0)))
