"""Who says what runs where: a plan that stays, or a policy that is asked for every request."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

from midstream_edge.belief import LinkBelief
from midstream_edge.policies.values import Evidence, LinkState, Option, Policy, Situation
from midstream_edge.probing import ProbeBudget, probe_due
from midstream_partitioner.timings import Estimate

#: A link is probed for so long after the last request: it may be silent for good.
USED_S = 10.0

#: A reply counts as late after this many times its predicted latency: a plan for a slow link
#: may rightly take longer than the session's usual timeout.
PATIENCE = 3.0


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """What one request does: segments [0, k) here, the rest in the cloud under `codec`.

    The cloud may take `timeout_s` from when the activation is ready to leave. After
    `hedge_after_s` the edge runs the rest as well; None: only when the cloud has failed.
    `option` and `estimate` are the policy's, where one has chosen.
    """

    k: int
    codec: str
    timeout_s: float
    hedge_after_s: float | None = None
    option: int | None = None
    estimate: Estimate | None = None


class Director(Protocol):
    """Chooses for each request and hears what came of it; called from several threads."""

    @property
    def plan(self) -> tuple[int, str]:
        """What was chosen last, or will be chosen first: (k, codec)."""

    def choose(self, situation: Situation) -> Choice:
        """What the request whose head begins now does."""

    def learn(self, evidence: Evidence) -> None:
        """Take note of a measurement."""


@final
@dataclass(frozen=True, slots=True)
class Steady:
    """The same for every request, whatever happens."""

    choice: Choice

    @property
    def plan(self) -> tuple[int, str]:
        return self.choice.k, self.choice.codec

    def choose(self, situation: Situation) -> Choice:
        return self.choice

    def learn(self, evidence: Evidence) -> None:
        pass


@final
class Pilot:
    """Asks a policy, tells it what was measured, and counts how often it changed its mind."""

    def __init__(self, policy: Policy, options: Sequence[Option], *, timeout_s: float) -> None:
        self._policy = policy
        self._options = tuple(options)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._current: int | None = None
        self._budget = ProbeBudget(-math.inf)
        self._asked_s = -math.inf
        self.switches = 0

    @property
    def policy(self) -> Policy:
        """The policy with all that it knows by now."""
        return self._policy

    @property
    def belief(self) -> LinkBelief | None:
        """What the policy believes of the link, if it holds a belief."""
        belief = getattr(self._policy, "belief", None)
        return belief if isinstance(belief, LinkBelief) else None

    @property
    def plan(self) -> tuple[int, str]:
        option = self._options[self._current or 0]
        return option.k, option.codec

    def choose(self, situation: Situation) -> Choice:
        with self._lock:
            if self._asked_s == -math.inf:  # the budget for probes is earned from now on
                self._budget = ProbeBudget(situation.now_s)
            self._asked_s = situation.now_s
            decision = self._policy.decide(replace(situation, current=self._current))
            self.switches += self._current not in (None, decision.option)
            self._current = decision.option
        option, estimate = self._options[decision.option], decision.estimate
        patience_s = PATIENCE * estimate.total_s if estimate is not None else 0.0
        return Choice(
            k=option.k,
            codec=option.codec,
            timeout_s=max(self._timeout_s, patience_s),
            hedge_after_s=decision.hedge_after_s,
            option=decision.option,
            estimate=estimate,
        )

    def learn(self, evidence: Evidence) -> None:
        with self._lock:
            self._policy = self._policy.learn(evidence)
            transfer = evidence.transfer
            if transfer is not None and transfer.complete and evidence.option is not None:
                nbytes = transfer.nbytes + transfer.reply_nbytes
                self._budget = self._budget.heard(evidence.at_s, nbytes)

    @property
    def budget(self) -> ProbeBudget:
        """What went over the link, and what of it were probes."""
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
