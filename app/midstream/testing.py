"""Sessions in virtual time, for tests: no sockets, no threads, no waiting.

    clock = VirtualClock()
    link = VirtualLink(uplink_bps=8e6, downlink_bps=8e6, rtt_s=0.04, outages=[(2.0, 1.0)])
    session = VirtualSession(clock, FakeCloud(clock), link, [make_placement(head_s=0.01)])
    for number in range(100):
        session.submit(at_s=number / 10, deadline_s=0.5)
    clock.run()
    assert all(each.latency_s <= 0.5 for each in session.outcomes)

A `VirtualSession` decides by the very code that a session runs (`session.lifecycle` and the
policies); its link and its processor are those of the simulator
(docs/explanation/simulation.md). Hours of it take seconds, and the same inputs give the same
outcomes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, final

from midstream.codec_checks import check_codec
from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Evidence, Policy, Situation
from midstream_edge.session.answers import Where
from midstream_edge.session.local_time import TIMEOUT_S
from midstream_lab.simulation.kernel.event_queue import Core as VirtualClock
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.duplex_link import Way
from midstream_lab.simulation.model.edge import Edge
from midstream_lab.simulation.model.link_spec import Network, steady
from midstream_lab.simulation.model.machine import FixedPlacement
from midstream_lab.simulation.model.request import WHERE, Job
from midstream_lab.simulation.model.workload import Cut, breaking
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

__all__ = [
    "Answer",
    "FakeCloud",
    "Outcome",
    "Refuse",
    "Silence",
    "VirtualClock",
    "VirtualLink",
    "VirtualSession",
    "check_codec",
    "check_policy",
    "make_placement",
]


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """The cloud answers, `after_s` after the request has come in."""

    after_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Refuse:
    """The cloud refuses the request, `after_s` after it has come in."""

    after_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Silence:
    """The cloud never says anything about the request."""


#: What a fake cloud does with a request, by its number and the moment it has come in.
Script = Callable[[int, float], Answer | Refuse | Silence]


@final
class FakeCloud:
    """A cloud that does with every request what `script` says; by default it answers at once.

    `arrived` and `cancelled` hold the numbers of requests, in order.
    """

    def __init__(self, clock: VirtualClock, script: Script | None = None) -> None:
        self._clock = clock
        self._script = script
        self.arrived: list[int] = []
        self.cancelled: list[int] = []

    def arrive(self, job: Job) -> None:
        """Take in a request; the simulated edge calls this."""
        self.arrived.append(job.id)
        now_s = self._clock.now_s
        step = Answer() if self._script is None else self._script(job.id, now_s)
        job.queued_s = job.started_s = now_s
        if isinstance(step, Answer):
            self._clock.at(now_s + step.after_s, job.edge.reply, job)
        elif isinstance(step, Refuse):
            self._clock.at(now_s + step.after_s, job.edge.refuse, job)

    def cancel(self, job: Job) -> None:
        """Take note that the edge waits no more for a request."""
        self.cancelled.append(job.id)


@final
@dataclass(frozen=True, slots=True)
class VirtualLink:
    """A link with TCP's slow start, queues and round trip.

    `outages` and `refusals` are pairs (from when, for how long) in seconds; both lose what is
    under way. An outage is silent: the edge finds out after 0.3 s. A refusal begins with a
    reset, which the edge hears at once, and no connection is taken until it ends: a server
    that was killed, or that starts later than the edge (from 0 s). Raises `UsageError` for
    values that no link has.
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    jitter_s: float = 0.0
    outages: Sequence[tuple[float, float]] = ()
    refusals: Sequence[tuple[float, float]] = ()

    def network(self) -> Network:
        """Return the link as the simulator has it."""
        return Network(
            steady(self.uplink_bps),
            steady(self.downlink_bps),
            self.rtt_s,
            jitter_s=self.jitter_s,
        )


def make_placement(
    *,
    head_s: float = 0.0,
    rest_s: float | None = 0.0,
    payload_nbytes: int = 10_000,
    reply_nbytes: int = 1_000,
    encode_s: float = 0.0,
    codec: str = "raw",
    k: int = 1,
    remote: bool = True,
) -> Placement:
    """Return a placement for policies and sessions to choose.

    The edge runs k segments in `head_s` and could run the others in `rest_s`: None if it
    does not hold them. With `remote` False it runs all of them in `head_s`.
    """
    return Placement(
        cut=f"k{k}" if remote else "edge-only",
        codec=codec,
        k=k,
        label=f"k{k} with {codec}" if remote else "edge-only",
        remote=remote,
        head_s=head_s,
        encode_s=encode_s,
        decode_s=0.0,
        tail_s=0.0,
        payload_nbytes=payload_nbytes if remote else 0,
        reply_nbytes=reply_nbytes if remote else 0,
        rest_s=rest_s if remote else 0.0,
    )


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request: moments of the virtual clock, in seconds.

    `where` says which side answered, as `Answer.where` of a session does; "failed" if none.
    """

    number: int
    where: Where | Literal["failed"]
    submitted_s: float
    ended_s: float
    hedged: bool

    @property
    def latency_s(self) -> float:
        """Seconds from submission to the end."""
        return self.ended_s - self.submitted_s


@final
class VirtualSession:
    """A session whose requests live in virtual time; `outcomes` come in the order they end.

    With `policy` a policy chooses among `placements`; without one, the first is used, hedged
    after `hedge_after_s` where that is given.
    """

    def __init__(
        self,
        clock: VirtualClock,
        cloud: FakeCloud,
        link: VirtualLink,
        placements: Sequence[Placement],
        *,
        policy: Policy | None = None,
        hedge_after_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
        seed: int = 0,
    ) -> None:
        if not placements:
            raise UsageError("a virtual session needs at least one placement, but got none")
        self._clock = clock
        self._submitted: dict[int, float] = {}
        self.outcomes: list[Outcome] = []
        self._edge = Edge(
            clock,
            cloud,
            Way(link.network(), Draws(seed, 2)),
            placements,
            policy=policy or FixedPlacement(0, hedge_after_s),
            draws=Draws(seed, 3),
            finished=self._finish,
            timeout_s=timeout_s,
        )
        for at_s, lasts_s in link.outages:
            clock.process(breaking(clock, self._edge, Cut(at_s, lasts_s)))
        for at_s, lasts_s in link.refusals:
            clock.process(breaking(clock, self._edge, Cut(at_s, lasts_s), notice_s=0.0))

    def submit(self, *, at_s: float | None = None, deadline_s: float | None = None) -> int:
        """Submit a request at a moment, by default now; returns its number, from 1 up.

        `deadline_s` counts from then.
        """
        at_s = self._clock.now_s if at_s is None else at_s
        number = len(self._submitted) + 1
        self._submitted[number] = at_s
        self._clock.at(at_s, lambda _: self._edge.submit(number, at_s, deadline_s=deadline_s))
        return number

    @property
    def in_flight(self) -> int:
        """Number of requests under way."""
        return self._edge.under_way

    def _finish(self, job: Job, how: int) -> None:
        where = cast("Where | Literal['failed']", (*WHERE, "failed")[how])
        self.outcomes.append(
            Outcome(job.id, where, self._submitted[job.id], self._clock.now_s, job.hedged)
        )


def check_policy(policy: Policy, placements: int, *, cases: int = 1000, seed: int = 0) -> None:
    """Raise `AssertionError` where a policy breaks what sessions and simulations rely on.

    Puts it through `cases` random situations and pieces of evidence over a menu of
    `placements` placements: it must choose one of them, choose the same for the same
    situation, hedge after a time that is one, and return a policy from `learn`. What it raises
    itself comes through.
    """
    choose, now_s = random.Random(seed), 0.0
    for case in range(cases):
        now_s += choose.uniform(0.0, 0.5)
        situation = _situation(choose, now_s, placements)
        decision = policy.decide(situation)
        told = f"case {case} of seed {seed}: {situation} -> {decision}"
        assert 0 <= decision.placement < placements, (
            f"the placement must be one of the menu ({told})"
        )
        after_s = decision.hedge_after_s
        assert after_s is None or 0.0 <= after_s < math.inf, f"no time to hedge after ({told})"
        assert policy.decide(situation) == decision, f"it must decide alike twice ({told})"
        evidence = _evidence(choose, now_s, decision.placement)
        learnt = policy.learn(evidence)
        assert isinstance(learnt, Policy), (
            f"learn must return a policy (not {learnt!r}, case {case})"
        )
        policy = learnt


def _situation(choose: random.Random, now_s: float, placements: int) -> Situation:
    return Situation(
        now_s,
        choose.choice(("connected", "connected", "suspect", "down")),
        choose.choice((None, choose.randrange(placements))),
        choose.randrange(8),
        choose.choice((None, choose.uniform(0.001, 2.0))),
        choose.randrange(3),
        choose.choice((0, choose.randrange(1_000_000))),
    )


def _evidence(choose: random.Random, now_s: float, placement: int) -> Evidence:
    kind = choose.randrange(4)
    if kind == 0:
        return Evidence(now_s, link=choose.choice(("connected", "suspect", "down")))
    took_s = choose.uniform(0.001, 5.0)
    nbytes = choose.randrange(1, 1_000_000)
    transfer = Transfer(nbytes, choose.randrange(10_000), took_s, kind != 1)
    if kind == 2:  # a probe
        return Evidence(now_s, transfer)
    return Evidence(
        now_s,
        choose.choice((None, transfer)),
        placement,
        choose.uniform(0.001, 5.0),
        choose.random() < 0.3,
        choose.choice((None, choose.uniform(0.0, 1.0))),
    )
