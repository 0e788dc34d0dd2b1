"""A linear bandit: learns what the cloud costs by trying, without a model of the link.

Zhang, Chen, Xu, "Autodidactic Neurosurgeon: collaborative deep inference for mobile edge
intelligence via online learning", WWW 2021 (muLinUCB), after Li, Chu, Langford, Schapire, "A
contextual-bandit approach to personalized news article recommendation", WWW 2010.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu

Floats = NDArray[np.float64]

#: Width of the confidence band in the paper's rule, for times scaled to edge-only's.
CURIOSITY = 0.3
#: Every so many requests one goes to the cloud although edge-only looks best: without it
#: nothing is ever learnt again (forced sampling, section 4.2).
FORCED_EVERY = 50
#: Weight of old samples, request by request: the paper's environment may drift.
MEMORY = 0.98


@final
@dataclass(frozen=True, eq=False)
class LinUcb:
    """Delay of the cloud's way = weights x features, by discounted ridge regression.

    The features of a placement, scaled to about one: its bits up and down, its tail, and 1.
    `gram` is [4, 4] and `moment` [4].
    """

    menu: Menu
    belief: LinkBelief
    gram: Floats
    moment: Floats
    requests: int = 0

    @classmethod
    def of(cls, menu: Menu, belief: LinkBelief) -> LinUcb:
        """A bandit that has seen each placement once, as the first measurement predicts it."""
        start = cls(menu, belief, np.eye(4) * 1e-3, np.zeros(4))
        waits_s = menu.waits_s(belief.conditions())
        for index, placement in enumerate(menu.placements):
            if placement.remote:
                start = start._sampled(menu, index, float(waits_s[index]))
        return replace(start, requests=0)

    @property
    def name(self) -> str:
        return "linucb"

    def decide(self, situation: Situation) -> Decision:
        menu, belief = self.menu.at(situation.sizes), self.belief.at(situation.now_s)
        met = belief.conditions(situation.backlog_nbytes)
        if situation.link != "connected" and menu.edge_only is not None:
            return Decision(menu.edge_only, None, menu.estimate(menu.edge_only, met))
        features = self._features(menu)
        inverse = np.linalg.inv(self.gram)
        spread = np.sqrt(np.maximum(((features @ inverse) * features).sum(axis=1), 0.0))
        totals_s = menu.heads_s * met.head_scale + menu.remote * (
            features @ (inverse @ self.moment) - CURIOSITY * spread * self._unit_s
        )
        if menu.edge_only is not None and self.requests % FORCED_EVERY == FORCED_EVERY - 1:
            totals_s[menu.edge_only] = np.inf
        index = int(totals_s.argmin())
        return Decision(index, None, menu.estimate(index, met))

    def learn(self, evidence: Evidence) -> LinUcb:
        """The bandit after one more request; what a local answer hides is taken as waited."""
        if evidence.placement is None or evidence.latency_s is None:
            return replace(self, belief=self.belief.observe(evidence))
        menu = self.menu.at(evidence.sizes)
        placement = menu.placements[evidence.placement]
        belief = self.belief.observe(evidence, placement)
        after = replace(self, belief=belief, requests=self.requests + 1)
        if not placement.remote or not np.isfinite(evidence.latency_s):
            return after
        head_s = evidence.head_s if evidence.head_s is not None else placement.head_s
        return after._sampled(menu, evidence.placement, evidence.latency_s - head_s)

    def _sampled(self, menu: Menu, index: int, wait_s: float) -> LinUcb:
        row = self._features(menu)[index]
        gram = MEMORY * self.gram + np.outer(row, row) + (1 - MEMORY) * 1e-3 * np.eye(4)
        return replace(self, gram=gram, moment=MEMORY * self.moment + wait_s * row)

    @property
    def _unit_s(self) -> float:
        return self.menu.edge_only_s or float(self.menu.serves_s.max())

    def _features(self, menu: Menu) -> Floats:
        """[n, 4] of `menu`'s placements, in the units of the session's first one."""
        columns = (menu.payload_bits, menu.reply_bits, menu.serves_s, menu.remote)
        first = self.menu
        units = (first.payload_bits, first.reply_bits, first.serves_s, first.remote)
        scaled = [
            column / max(float(unit.max()), 1e-12)
            for column, unit in zip(columns, units, strict=True)
        ]
        features: Floats = np.stack(scaled, axis=1) * menu.remote[:, None]
        return features
