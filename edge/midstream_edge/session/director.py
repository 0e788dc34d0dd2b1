"""Directors of a session: a fixed plan, or a policy that is asked for every request."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

from midstream_edge.faults import POLICY, Faults, is_interrupt
from midstream_edge.link.observations import LinkState
from midstream_edge.policies.believing import belief_of
from midstream_edge.policies.interface import Decision, Evidence, Policy, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.probe_budget import ProbeBudget, probe_due
from midstream_edge.session.lifecycle import patience_s
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError

#: A link is probed for so long after the last request: it may be silent for good.
USED_S = 10.0

#: After so many failures of a policy in a row the edge answers alone, where it can.
FAILURES = 3


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """A choice for one request: segments [0, k) here, the rest in the cloud under `codec`.

    The cloud may take `timeout_s` from when the activation is ready to leave. After
    `hedge_after_s` the edge runs the rest as well; None: only when the cloud has failed.
    `placement`, `estimate` and `expected_s` are the policy's, where one has chosen.
    """

    k: int
    codec: str
    timeout_s: float
    hedge_after_s: float | None = None
    placement: int | None = None
    estimate: Estimate | None = None
    expected_s: float | None = None


class Director(Protocol):
    """Chooses for each request and hears what came of it; called from several threads."""

    @property
    def plan(self) -> tuple[int, str]:
        """Return what was chosen last, or will be chosen first: (k, codec)."""

    @property
    def timeout_s(self) -> float:
        """Return how long the cloud may take at least, and a request wait for room."""

    def choose(self, situation: Situation) -> Choice:
        """Return what the request whose head begins now does."""

    def learn(self, evidence: Evidence) -> None:
        """Take note of a measurement."""


@final
@dataclass(frozen=True, slots=True)
class FixedPlan:
    """The same for every request, whatever happens."""

    choice: Choice

    @property
    def plan(self) -> tuple[int, str]:
        return self.choice.k, self.choice.codec

    @property
    def timeout_s(self) -> float:
        return self.choice.timeout_s

    def choose(self, situation: Situation) -> Choice:
        return self.choice

    def learn(self, evidence: Evidence) -> None:
        pass


@final
class PolicyDirector:
    """Asks a policy, tells it what was measured, and counts how often it changed its mind.

    A policy may be a user's own, and wrong: what it raises, and what it answers that cannot
    be, is noted in `faults` and goes no further. Then its last decision stands, and after
    `FAILURES` in a row edge-only does until it decides again: all segments run here (`whole`
    is their number, None where the edge does not hold them: the last decision stands).
    `probes` is what may be sent to ask the link, by default within the usual budget.
    """

    def __init__(
        self,
        policy: Policy,
        placements: Sequence[Placement],
        *,
        timeout_s: float,
        whole: int | None = None,
        faults: Faults | None = None,
        probes: ProbeBudget | None = None,
    ) -> None:
        if not placements:
            raise UsageError(
                "a policy needs at least one placement to choose from, but got none"
            )
        self._policy = policy
        self._placements = tuple(placements)
        self.timeout_s = timeout_s
        self._faults = faults or Faults()
        self._lock = threading.Lock()
        self._current: int | None = None
        self._alone = None if whole is None else Choice(whole, "raw", timeout_s)
        self._last: Choice | None = None
        self._failures = 0  # in a row
        self._budget = probes or ProbeBudget()
        self._asked_s = -math.inf
        self.switches = 0

    @property
    def policy(self) -> Policy:
        """The policy with all that it knows by now."""
        return self._policy

    @property
    def belief(self) -> LinkBelief | None:
        """Return what the policy believes of the link, if it holds a belief."""
        try:
            return belief_of(self._policy)
        except BaseException as error:  # a property of the policy's own
            self._fail(error)
            return None

    @property
    def plan(self) -> tuple[int, str]:
        if self._last is not None:
            return self._last.k, self._last.codec
        return self._placements[0].k, self._placements[0].codec

    def choose(self, situation: Situation) -> Choice:
        with self._lock:
            if self._asked_s == -math.inf:  # the budget for probes is earned from now on
                self._budget = replace(self._budget, at_s=situation.now_s)
            self._asked_s = situation.now_s
            try:
                decision = self._policy.decide(replace(situation, current=self._current))
                choice = self._choice(decision)
            except BaseException as error:
                self._fail(error)
                choice = self._stand_in()
            else:
                self._failures = 0
                self.switches += self._current not in (None, choice.placement)
                self._current = choice.placement
            self._last = choice
            return choice

    def learn(self, evidence: Evidence) -> None:
        with self._lock:
            try:
                learnt = self._policy.learn(evidence)
                if type(learnt) is not type(self._policy):
                    _check_policy(learnt)
                self._policy = learnt
            except BaseException as error:
                self._fail(error)
            transfer = evidence.transfer
            if transfer is not None and transfer.complete and evidence.placement is not None:
                nbytes = transfer.nbytes + transfer.reply_nbytes
                self._budget = self._budget.heard(evidence.at_s, nbytes)

    def _choice(self, decision: Decision) -> Choice:
        """Return what `decision` says, once it is known to say something that can be done."""
        index, after_s, estimate = (
            operator.index(decision.placement),
            decision.hedge_after_s,
            decision.estimate,
        )
        if not 0 <= index < len(self._placements):
            raise UsageError(
                f"a policy must choose one of its {len(self._placements)} placements "
                f"(not {index})"
            )
        total_s = estimate.total_s if estimate is not None else 0.0
        expected_s = total_s if decision.expected_s is None else float(decision.expected_s)
        if (after_s is not None and not after_s >= 0) or not all(
            0 <= each_s < math.inf for each_s in (total_s, expected_s)
        ):
            raise UsageError(
                "a policy's hedge_after_s, estimate and expected_s must be 0 seconds or more "
                f"(not {after_s}, {total_s} and {expected_s})"
            )
        placement = self._placements[index]
        return Choice(
            k=placement.k,
            codec=placement.codec,
            timeout_s=patience_s(self.timeout_s, total_s),
            hedge_after_s=None if after_s is None else float(after_s),
            placement=index,
            estimate=estimate,
            expected_s=None if estimate is None else expected_s,
        )

    def _stand_in(self) -> Choice:
        """Return what a request does whose policy has failed."""
        if self._alone is not None and (self._last is None or self._failures >= FAILURES):
            return self._alone
        if self._last is not None:
            return self._last
        placement = self._placements[0]
        return Choice(placement.k, placement.codec, self.timeout_s, placement=0)

    def _fail(self, error: BaseException) -> None:
        if is_interrupt(error):
            raise error
        self._failures += 1
        self._faults.note(POLICY, error)

    @property
    def budget(self) -> ProbeBudget:
        """Return what went over the link, and what of it were probes."""
        return self._budget

    def probe_due(self, now_s: float, link: LinkState) -> int:
        """Bytes of a probe to send now, 0 for none; only a policy with a belief has use."""
        with self._lock:
            belief = self.belief
            if belief is None or now_s - self._asked_s > USED_S:
                return 0
            return probe_due(self._budget, now_s, uplink_bps=belief.uplink_bps, link=link)

    def probed(self, now_s: float, nbytes: int) -> None:
        """Book a probe."""
        with self._lock:
            self._budget = self._budget.probed(now_s, nbytes)


def _check_policy(learnt: object) -> None:
    if not isinstance(learnt, Policy):
        raise UsageError(
            f"a policy's learn must give a policy (not {type(learnt).__name__}): return self "
            "where there is nothing to learn"
        )
