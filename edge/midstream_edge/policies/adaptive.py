"""The controller: placement and hedge of least expected cost, by what is believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief, normal_quantiles
from midstream_edge.policies.menu import Conditions, Menu
from midstream_partitioner.costs.device import Device

Floats = NDArray[np.float64]
Hedging = Literal["late", "never", "race"]

#: The belief is spread over so many equally likely uplinks.
QUANTILES = 10
#: Another placement must be this much better than the last request's.
HYSTERESIS = 0.97
#: A request that would miss its deadline counts as late by so many deadlines.
LATE_DEADLINES = 1.0
#: Seconds of latency that a second of the edge's work on a hedge has to save. Ten times as
#: much costs 1 % more latency over the traces of docs/results/adaptive.md.
HEDGE_PRICE = 0.03
#: A hedge begins at once, or when the wait has passed one of these of its quantiles: past the
#: last but one lies a tenth of the probability, past the last one what nobody expects.
HEDGE_QUANTILES = np.array([0, 4, 6, 7, 8, 9])
#: No request takes longer than PROMISE_SHARE times edge-only plus PROMISE_S, whatever the link
#: does; some of it is kept in hand for the rest's own spread, for timers and threads.
PROMISE_SHARE, PROMISE_S = 1.25, 0.05
MARGIN_SHARE, MARGIN_S = 0.02, 0.005


@final
@dataclass(frozen=True, slots=True)
class Adaptive:
    """Expected cost over the belief's quantiles, minimised over placements and hedge times.

    The cost of a placement is the mean over equally likely uplinks of min(cloud, hedge + local
    rest), plus what hedging costs the edge, plus how much it holds up requests that wait, plus
    the risk of missing the deadline. Seconds of latency; for the objectives "energy" and
    "throughput" joules and seconds between two answers.
    """

    menu: Menu
    belief: LinkBelief
    device: Device
    hedging: Hedging = "late"

    @property
    def name(self) -> str:
        return {"late": "adaptive", "never": "adaptive-nohedge", "race": "adaptive-race"}[
            self.hedging
        ]

    def learn(self, evidence: Evidence) -> Adaptive:
        """The same policy with a better belief."""
        return replace(
            self, belief=self.belief.observe(evidence, self.menu.placement_of(evidence))
        )

    def decide(self, situation: Situation) -> Decision:
        """Edge-only at once where the link is not well; else the cheapest placement."""
        menu = self.menu.at(situation.sizes)
        return Adaptive(menu, self.belief, self.device, self.hedging)._decide(situation)

    def _decide(self, situation: Situation) -> Decision:
        """The same for a request of the menu's sizes."""
        menu, belief = self.menu, self.belief.at(situation.now_s)
        met = belief.conditions(situation.backlog_nbytes)
        if situation.link != "connected" and menu.edge_only is not None:
            return Decision(menu.edge_only, None, menu.estimate(menu.edge_only, met))
        waits_s = self._waits_s(belief, met)
        heads_s = menu.heads_s * met.head_scale
        hedges_s = self._hedges_s(waits_s, heads_s, met.head_scale)
        rests_s = menu.rests_s * met.head_scale
        ends_s = np.minimum(waits_s[:, None, :], (hedges_s + rests_s[:, None])[:, :, None])
        costs = self._costs(ends_s, hedges_s, heads_s, belief, situation)
        cheapest = costs.min(axis=1)
        index = int(cheapest.argmin())
        current = situation.current
        if current is not None and cheapest[index] > HYSTERESIS * cheapest[current]:
            index = current
        hedge = int(costs[index].argmin())
        return Decision(
            index,
            self._hedge_s(index, float(hedges_s[index, hedge])),
            menu.estimate(index, met),
            float(heads_s[index] + ends_s[index, hedge].mean()),
        )

    def _waits_s(self, belief: LinkBelief, met: Conditions) -> Floats:
        """[n, Q] seconds from the activation to the cloud's answer, ascending."""
        menu, quantiles = self.menu, normal_quantiles(QUANTILES)
        serial_s = (
            (menu.payload_bits + 8.0 * met.backlog_nbytes) / met.uplink_bps * menu.remote
        )
        excess = np.exp(belief.spread * quantiles) - 1.0
        waits_s: Floats = (
            menu.waits_s(met)[:, None]
            + serial_s[:, None] * excess
            + menu.remote[:, None] * (belief.jitter_s * quantiles)
        )
        return waits_s

    def _hedge_s(self, index: int, hedge_s: float) -> float | None:
        return hedge_s if self.menu.placements[index].remote and isfinite(hedge_s) else None

    def _hedges_s(self, waits_s: Floats, heads_s: Floats, scale: float) -> Floats:
        """[n, H] moments after the activation at which the edge may begin the rest itself."""
        menu = self.menu
        whole_s = menu.edge_only_s
        if self.hedging == "never" or whole_s is None:
            return np.full((len(menu), 1), np.inf)
        if self.hedging == "race":
            return np.zeros((len(menu), 1))
        latest_s = (PROMISE_SHARE - MARGIN_SHARE) * whole_s * scale + PROMISE_S - MARGIN_S
        room_s = np.maximum(latest_s - heads_s - menu.rests_s * scale, 0.0)
        hedges_s: Floats = waits_s[:, HEDGE_QUANTILES].clip(0.0, room_s[:, None])
        hedges_s[:, 0] = 0.0
        return hedges_s

    def _costs(
        self,
        ends_s: Floats,
        hedges_s: Floats,
        heads_s: Floats,
        belief: LinkBelief,
        situation: Situation,
    ) -> Floats:
        """[n, H]: the expected cost of every placement with every hedge.

        `ends_s` [n, H, Q] are seconds from the activation to the answer, whoever gives it.
        """
        menu = self.menu
        hedged_s = np.maximum(ends_s - hedges_s[:, :, None], 0.0).mean(axis=2)
        latency_s: Floats = heads_s[:, None] + ends_s.mean(axis=2)
        busy_s = (heads_s + menu.encodes_s * belief.head_scale)[:, None] + hedged_s
        unit = 1.0
        if menu.objective == "throughput" or situation.waiting:
            periods_s = self._periods_s(heads_s[:, None] + hedged_s, latency_s, belief)
        if menu.objective == "energy":
            costs = self._joules(latency_s, busy_s, belief)
            unit = self.device.active_w
        elif menu.objective == "throughput":
            costs = periods_s
        else:
            price = 0.0 if self.hedging == "race" else HEDGE_PRICE
            costs = latency_s + price * hedged_s
        if situation.deadline_s is not None:
            late = heads_s[:, None, None] + ends_s > situation.deadline_s
            costs = costs + unit * LATE_DEADLINES * situation.deadline_s * late.mean(axis=2)
        if situation.waiting:
            costs = costs + unit * situation.waiting * periods_s
        return costs

    def _joules(self, latency_s: Floats, busy_s: Floats, belief: LinkBelief) -> Floats:
        """[n, H]: what the edge draws."""
        return self.device.energy_j(
            latency_s,
            busy_s=busy_s,
            sending_s=(self.menu.payload_bits / belief.uplink_bps)[:, None],
            receiving_s=(self.menu.reply_bits / belief.downlink_bps)[:, None],
        )

    def _periods_s(self, heads_s: Floats, latency_s: Floats, belief: LinkBelief) -> Floats:
        """[n, H]: seconds between two answers when requests queue, as the planner has it.

        `heads_s` [n, H] holds what the edge computes after its hedges, too.
        """
        menu, pipeline = self.menu, self.menu.pipeline
        encodes_s = (menu.encodes_s * belief.head_scale)[:, None]
        edge_s = pipeline.edge_s(heads_s, encodes_s, menu.transforms[:, None])
        cloud_s = pipeline.cloud_s(menu.decodes_s, menu.tails_s)
        link_s = np.maximum(
            menu.payload_bits / belief.uplink_bps, menu.reply_bits / belief.downlink_bps
        )
        elsewhere_s = np.maximum(link_s, cloud_s * belief.tail_scale)[:, None]
        stages_s = np.maximum(edge_s, elsewhere_s)
        return np.maximum(stages_s, latency_s / pipeline.window)
