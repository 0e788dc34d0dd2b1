"""The chooser of a simulated edge: a policy, or a fixed plan (`director` in a session)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from midstream_edge.policies.interface import Evidence, Policy, Situation
from midstream_edge.session.lifecycle import patience_s
from midstream_lab.simulation.model.machine import FixedPlacement
from midstream_lab.simulation.model.request import Job


@final
class Chooser:
    """Asks `policy` before every head and tells it what was learnt; counts its changes.

    `policy` is None where the plan stays: nothing is decided then and nothing learnt. The
    cloud may take `timeout_s` at least.
    """

    __slots__ = ("_current", "_fixed", "_timeout_s", "asked_s", "policy", "switches")

    def __init__(self, policy: Policy | FixedPlacement, timeout_s: float) -> None:
        self._fixed = policy if isinstance(policy, FixedPlacement) else None
        self.policy = None if isinstance(policy, FixedPlacement) else policy
        self._timeout_s = timeout_s
        self._current: int | None = None
        self.asked_s = -math.inf  # when the policy was asked last
        self.switches = 0

    @property
    def plan(self) -> int:
        """The placement that was chosen last, or will be chosen first."""
        return self._fixed.placement if self._fixed else self._current or 0

    def choose(
        self, job: Job, now_s: float, situation: Callable[[int | None], Situation]
    ) -> None:
        """Choose for `job`; `situation` is asked where a policy is, with the last choice."""
        steady = self._fixed
        if steady is not None:
            index, job.hedge_after_s = steady.placement, steady.hedge_after_s
            job.timeout_s = self._timeout_s
        else:
            assert self.policy is not None
            self.asked_s = now_s
            decision = self.policy.decide(situation(self._current))
            index, job.hedge_after_s = decision.placement, decision.hedge_after_s
            job.estimate = decision.estimate
            predicted_s = decision.estimate.total_s if decision.estimate else 0.0
            job.timeout_s = patience_s(self._timeout_s, predicted_s)
        if index != self._current:
            if self._current is not None:
                job.switched = True
                self.switches += 1
            self._current = index
        job.placement = index

    def learn(self, evidence: Evidence) -> None:
        """Tell the policy; a plan that stays has no use for it."""
        if self.policy is not None:
            self.policy = self.policy.learn(evidence)
