"""Whatever fails in a session at random: one outcome per request, and a session to go on with.

A `Fault` is entered around a session's run and breaks something of it now and then. One more
in `FAULTS` is run like the others: a few times by default, a thousand times by `make slow`.
"""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from midstream_edge.faults import POLICY, Faults
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.session.answers import Answer
from midstream_edge.session.director import PolicyDirector
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import MidstreamError, ResourceError, UsageError
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]

#: Requests of one run, and how long each may take; far more than any needs.
REQUESTS = 6
ANSWER_S = 30.0

#: The name of a test's own threads, which always start.
ASKER = "asker"


class Broken(BaseException):
    """Neither an `Exception` nor Ctrl-C."""


RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("a bug"),
    lambda: MemoryError(),
    lambda: SystemExit(3),
    lambda: KeyError("x"),
    lambda: Broken("odd"),
    lambda: GeneratorExit(),
    lambda: StopIteration(),
    lambda: RecursionError("deep"),
)

NONSENSE: tuple[Any, ...] = (
    None,
    7,
    "edge-only",
    Decision(-1),
    Decision(99),
    Decision(cast(int, 0.5)),
    Decision(cast(int, "0")),
    Decision(cast(int, None)),
    Decision(0, math.nan),
    Decision(0, -1.0),
    Decision(0, cast(float, "soon")),
    Decision(0, None, cast(Any, "soon")),
)


@dataclass
class Moody:
    """A policy that raises, or says what cannot be, at random: in `decide` and in `learn`."""

    rng: random.Random
    count: int
    rate: float
    name: str = "moody"
    failures: Counter[str] = field(default_factory=Counter)

    def decide(self, situation: Situation) -> Decision:
        if self.rng.random() < self.rate:
            self.failures["decide"] += 1
            if self.rng.random() < 0.5:
                raise self.rng.choice(RAISED)()
            return cast(Decision, self.rng.choice(NONSENSE))
        return Decision(self.rng.randrange(self.count), self.rng.choice((None, 0.0, 0.001)))

    def learn(self, evidence: Evidence) -> Moody:
        if self.rng.random() < self.rate:
            self.failures["learn"] += 1
            if self.rng.random() < 0.5:
                raise self.rng.choice(RAISED)()
            return cast(Moody, self.rng.choice((None, 3, "policy", object())))
        return self


Fault = Callable[[EdgeSession, random.Random], AbstractContextManager[None]]


@contextmanager
def moody_policy(session: EdgeSession, rng: random.Random) -> Iterator[None]:
    """The session follows a policy that fails at random."""
    chain = session.chain
    ks = sorted({0, 1, chain.last} - ({0} if rng.random() < 0.5 else set()))
    placements = [placement(k, remote=k < chain.last) for k in ks]
    session.follow(Moody(rng, len(placements), rng.choice((0.1, 0.5, 0.9, 1.0))), placements)
    yield


@contextmanager
def failing_segments(session: EdgeSession, rng: random.Random) -> Iterator[None]:
    """Segments run out of memory, or into a bug, at random."""
    chain, run = session.chain, session.chain.run

    def break_down(state: Inputs, first: int, last: int, **how: Any) -> dict[str, Array]:
        if rng.random() < 0.2:
            raise rng.choice(RAISED)()
        return run(state, first, last, **how)

    chain.run = break_down  # type: ignore[method-assign]
    try:
        yield
    finally:
        del chain.run


@contextmanager
def failing_alarms(session: EdgeSession, rng: random.Random) -> Iterator[None]:
    """The session's alarms have other calls to make, which raise."""
    for _ in range(5):
        session._crew.alarms.at(0.0, lambda: _throw(rng.choice(RAISED)()))
    yield


@contextmanager
def failing_callbacks(session: EdgeSession, rng: random.Random) -> Iterator[None]:
    """Whoever waits for answers attaches callbacks that raise."""
    submit = session._handover.submit

    def attach(*args: Any, **kwargs: Any) -> Future[Answer]:
        future = submit(*args, **kwargs)
        future.add_done_callback(lambda _: _throw(rng.choice(RAISED[2:5])()))
        return future

    session._handover.submit = attach  # type: ignore[method-assign]
    yield
    del session._handover.submit


@contextmanager
def starved_of_threads(session: EdgeSession, rng: random.Random) -> Iterator[None]:
    """The link breaks, and most threads that it wants anew cannot be started."""
    with threads_fail(rng, rng.choice((0.3, 0.7, 1.0))):
        connection = session._engine.connection
        stream = None if connection is None else connection.stream
        if stream is not None:
            stream._call.cancel()
        yield


@contextmanager
def threads_fail(rng: random.Random, rate: float) -> Iterator[None]:
    """`Thread.start` raises at random, as at a limit of the process or without memory."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name != ASKER and rng.random() < rate:
            raise rng.choice((RuntimeError("can't start new thread"), MemoryError()))
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


FAULTS: tuple[Fault, ...] = (
    moody_policy,
    failing_segments,
    failing_alarms,
    starved_of_threads,
)


def placement(k: int, *, remote: bool) -> Placement:
    return Placement(
        cut=f"cut {k}", codec="raw", k=k, label="", remote=remote, head_s=0.0, encode_s=0.0,
        decode_s=0.0, tail_s=0.0, payload_nbytes=0, reply_nbytes=0, rest_s=0.0,
    )  # fmt: skip


def run_broken(
    chain: Chain, server: str | None, inputs: Inputs, *, seed: int, fault: Fault
) -> Counter[str]:
    """One session under `fault`: how its requests ended. Raises where one did not.

    Afterwards the session must answer as if nothing had been.
    """
    rng = random.Random(seed)
    ended: Counter[str] = Counter()
    deadline_s = rng.choice((None, None, 20.0))
    own = chain.at_speed(1.0)  # whose `run` may be replaced
    with EdgeSession(own, server, plan=(1, "raw"), timeout_s=10.0) as session:
        if server is not None:
            session.wait_connected(10.0)
        with fault(session, rng):
            futures = [session.submit(inputs, deadline_s=deadline_s) for _ in range(REQUESTS)]
            for number in range(REQUESTS):
                if number % 2:  # a caller who waits, in its turn or beside others
                    ended[_ending(_inferred(session, inputs, deadline_s))] += 1
            ended.update(_ending(future) for future in futures)
        session.use(1, "raw")
        assert server is None or session.wait_connected(ANSWER_S)
        sane = session.infer(inputs)
        assert sane.where in ("cloud", "edge"), sane.reason
        stats = session.stats
    asked = REQUESTS + REQUESTS // 2 + 1
    outcomes = stats.cloud + stats.edge + stats.fallback + stats.ahead + stats.failed
    assert stats.requests == asked, stats
    assert outcomes == asked, stats
    ours = {"midstream-compute", "midstream-alarms"}
    assert not any(t.name in ours for t in threading.enumerate() if t in _threads(session))
    return ended


def _threads(session: EdgeSession) -> set[threading.Thread]:
    crew = session._crew
    return {crew.worker._thread, crew.alarms._thread}


def _inferred(
    session: EdgeSession, inputs: Inputs, deadline_s: float | None
) -> Future[Answer]:
    """What `infer` gives or raises, in time, as a future."""
    future: Future[Answer] = Future()

    def infer() -> None:
        try:
            future.set_result(session.infer(inputs, deadline_s=deadline_s))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=infer, name=ASKER, daemon=True).start()
    return future


def _ending(future: Future[Answer]) -> str:
    error = future.exception(ANSWER_S)  # `TimeoutError` where no outcome comes
    if error is None:
        return future.result().where
    assert isinstance(error, MidstreamError), repr(error)
    return type(error).__name__


def _throw(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("alone", [False, True], ids=["with a cloud", "alone"])
def test_every_request_has_one_outcome_and_the_session_goes_on(
    chain: Chain, server: str, picture: Picture, fault: Fault, alone: bool
) -> None:
    for seed in range(6):
        ended = run_broken(
            chain, None if alone else server, picture(0), seed=seed, fault=fault
        )
        assert ended.total() == 9


def open_starved(chain: Chain, server: str, inputs: Inputs, *, seed: int) -> bool:
    """Whether a session opens while threads fail to start. It must answer, or say why not."""
    rng, lacking = random.Random(seed), None
    try:
        with threads_fail(rng, rng.choice((0.1, 0.3, 0.7))):
            session = EdgeSession(chain, server, plan=(1, "raw"), patience_s=0.0)
    except ResourceError as error:
        lacking = str(error)
    if lacking is not None:
        assert "needs a thread" in lacking
        return False
    with session:
        assert session.infer(inputs).where in ("cloud", "edge-after-cloud-failed")
        assert session.wait_connected(ANSWER_S)
        assert session.infer(inputs).where == "cloud"
    return True


def test_a_session_that_lacks_threads_opens_or_says_so(
    chain: Chain, server: str, picture: Picture
) -> None:
    opened = [open_starved(chain, server, picture(0), seed=seed) for seed in range(12)]
    assert {True, False} == set(opened)


def test_what_callbacks_raise_is_their_own_affair(
    chain: Chain, server: str, picture: Picture
) -> None:
    with (
        EdgeSession(chain, server, plan=(1, "raw")) as session,
        failing_callbacks(session, random.Random(0)),
    ):
        ended = Counter(session.submit(picture(n)).result(10).where for n in range(20))
        assert session.infer(picture(0)).where == "cloud"
    assert ended == {"cloud": 20}


@dataclass
class Failing:
    """Decides for its first placement, or raises as `script` says; its last step stays."""

    script: list[bool]
    name: str = "failing"

    def decide(self, situation: Situation) -> Decision:
        fails = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if fails:
            raise ValueError("a bug in decide")
        return Decision(0)

    def learn(self, evidence: Evidence) -> Failing:
        return self


@pytest.mark.parametrize(("whole", "ks"), [(4, [1, 1, 1, 4, 4, 1]), (None, [1] * 6)])
def test_a_failing_policy_keeps_its_last_decision_and_then_the_edge_runs_alone(
    whole: int | None, ks: list[int]
) -> None:
    faults = Faults()
    policy = Failing([False, True, True, True, True, False])
    placements = [placement(1, remote=True), placement(2, remote=True)]
    director = PolicyDirector(policy, placements, timeout_s=5.0, whole=whole, faults=faults)
    chosen = [director.choose(Situation(now_s=float(n))).k for n in range(6)]
    assert (chosen, faults.count(POLICY), director.switches) == (ks, 4, 0)


def test_a_policy_that_never_decides_is_counted_and_reported(
    chain: Chain, server: str, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    with EdgeSession(chain, server, plan=(1, "raw")) as session:
        session.follow(Failing([True]), [placement(1, remote=True)])
        assert [session.infer(picture(n)).where for n in range(12)] == ["edge"] * 12
        assert session.stats.policy_errors == 12
        with pytest.raises(UsageError, match="at least one placement"):
            session.follow(Failing([True]), [])
    assert "the policy failed (1 so far): ValueError('a bug in decide')" in caplog.text
    assert caplog.text.count("so far") == 2  # the first and the tenth


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_thousand_sessions_go_on(
    chain: Chain, server: str, picture: Picture, fault: Fault
) -> None:
    ended: Counter[str] = Counter()
    for seed in range(1000):
        ended += run_broken(chain, server, picture(0), seed=1000 + seed, fault=fault)
    print(dict(ended))
    assert ended.total() == 9000


@pytest.mark.slow
def test_a_thousand_sessions_that_lack_threads_open_or_say_so(
    chain: Chain, server: str, picture: Picture
) -> None:
    opened = Counter(
        open_starved(chain, server, picture(0), seed=1000 + seed) for seed in range(1000)
    )
    print(dict(opened))
    assert opened.total() == 1000
