"""Baselines of the controller: fixed placements, and other ways to follow a link."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import final

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Conditions, Menu


@final
@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same placement; `racing` lets the edge run the rest at once as well.

    "cloud-only and race edge-only" is the placement of no segments on the edge, racing: on
    networks without a narrow layer nothing beats it, at twice the edge's energy.
    """

    name: str
    menu: Menu
    placement: int
    belief: LinkBelief
    racing: bool = False

    def decide(self, situation: Situation) -> Decision:
        met = self.belief.at(situation.now_s).conditions(situation.backlog_nbytes)
        menu = self.menu.at(situation.sizes)
        placement, estimate = (
            menu.placements[self.placement],
            menu.estimate(self.placement, met),
        )
        if not (self.racing and placement.remote and placement.rest_s is not None):
            return Decision(self.placement, None, estimate)
        alone_s = (placement.head_s + placement.rest_s) * met.head_scale
        return Decision(self.placement, 0.0, estimate, min(estimate.total_s, alone_s))

    def learn(self, evidence: Evidence) -> Fixed:
        return replace(
            self, belief=self.belief.observe(evidence, self.menu.placement_of(evidence))
        )


@final
@dataclass(frozen=True, slots=True)
class Follower:
    """The placement that is best at one estimated rate, which `estimator` keeps.

    Delay, downlink, queue and devices come from the belief, as for all policies, so that
    what is compared is the estimate of the uplink and nothing else. No hedging.
    """

    name: str
    menu: Menu
    belief: LinkBelief
    estimator: Ewma | Harmonic | Periodic

    def decide(self, situation: Situation) -> Decision:
        menu = self.menu.at(situation.sizes)
        met = self._met(situation)
        if situation.link != "connected" and menu.edge_only is not None:
            return Decision(menu.edge_only, None, menu.estimate(menu.edge_only, met))
        index = int(menu.totals_s(met).argmin())
        return Decision(index, None, menu.estimate(index, met))

    def learn(self, evidence: Evidence) -> Follower:
        belief = self.belief.observe(evidence, self.menu.placement_of(evidence))
        rate_bps = _goodput_bps(evidence.transfer, belief)
        if rate_bps is None:
            return replace(self, belief=belief)
        estimator = self.estimator.observe(rate_bps, evidence.at_s)
        return replace(self, belief=belief, estimator=estimator)

    def _met(self, situation: Situation) -> Conditions:
        met = self.belief.at(situation.now_s).conditions(situation.backlog_nbytes)
        return replace(met, uplink_bps=self.estimator.rate_bps)


@final
@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted moving average of goodput, as TCP smooths round trips."""

    rate_bps: float
    gain: float = 0.25

    def observe(self, rate_bps: float, at_s: float) -> Ewma:
        del at_s
        return replace(self, rate_bps=self.rate_bps + self.gain * (rate_bps - self.rate_bps))


@final
@dataclass(frozen=True, slots=True)
class Harmonic:
    """Harmonic mean of the last samples over 1 + the worst recent error (RobustMPC).

    Yin, Jindal, Sekar, Sinopoli, "A control-theoretic approach for dynamic adaptive video
    streaming over HTTP", SIGCOMM 2015, section 5.
    """

    samples_bps: tuple[float, ...]
    errors: tuple[float, ...] = ()
    window: int = 5

    @property
    def mean_bps(self) -> float:
        return len(self.samples_bps) / sum(1 / rate for rate in self.samples_bps)

    @property
    def rate_bps(self) -> float:
        return self.mean_bps / (1 + max(self.errors, default=0.0))

    def observe(self, rate_bps: float, at_s: float) -> Harmonic:
        del at_s
        error = abs(self.mean_bps - rate_bps) / rate_bps
        return replace(
            self,
            samples_bps=(*self.samples_bps, rate_bps)[-self.window :],
            errors=(*self.errors, error)[-self.window :],
        )


@final
@dataclass(frozen=True, slots=True)
class Periodic:
    """A plan for the last rate measured, made again every `every_s` (Neurosurgeon).

    Kang, Hauswald, Gao, Rovinski, Mudge, Mars, Tang, "Neurosurgeon: collaborative intelligence
    between the cloud and mobile edge", ASPLOS 2017: the bandwidth of the moment decides.
    """

    rate_bps: float
    every_s: float
    planned_at_s: float = -inf

    def observe(self, rate_bps: float, at_s: float) -> Periodic:
        if at_s - self.planned_at_s < self.every_s:
            return self
        return replace(self, rate_bps=rate_bps, planned_at_s=at_s)


def _goodput_bps(transfer: Transfer | None, belief: LinkBelief) -> float | None:
    """Bits over the time beyond the delay, as the application sees it; None if too few."""
    if transfer is None or transfer.nbytes <= 0 or not 0 < transfer.took_s < inf:
        return None
    bits = 8.0 * (transfer.nbytes + transfer.ahead_nbytes)
    if transfer.up_s is not None:
        return bits / max(transfer.up_s, transfer.took_s / 20)
    left_s = transfer.took_s - belief.delay_s - 8 * transfer.reply_nbytes / belief.downlink_bps
    return bits / max(left_s, transfer.took_s / 20)
