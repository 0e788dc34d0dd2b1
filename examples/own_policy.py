"""A policy of your own: it stays on the edge until the cloud has been fast three times.

    midstream simulate resnet18 --link lte --policy python:examples.own_policy:make
    midstream edge run resnet18 --server localhost:50051 --adaptive \\
        --policy python:examples.own_policy:make

In an experiment file: `policies = ["adaptive", "python:examples.own_policy:make"]`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.menu import Menu
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link

#: Every fifth request tries the cloud while it is not trusted.
TRY_EVERY = 5


@dataclass(frozen=True)
class Careful:
    """A value: `learn` returns the policy that knows one thing more."""

    here: int  # index of the placement that runs everything on the edge
    there: int  # of the one that is best with the cloud
    edge_s: float
    asked: int = 0
    fast: int = 0
    name: str = "careful"

    def decide(self, situation: Situation) -> Decision:
        """Choose for the next request, without a clock and without side effects."""
        trusted = self.fast >= 3 and situation.link == "connected"
        if trusted or self.asked % TRY_EVERY == TRY_EVERY - 1:
            return Decision(self.there, hedge_after_s=0.0)
        return Decision(self.here)

    def learn(self, evidence: Evidence) -> Careful:
        """Count how often the cloud was faster than the edge is, one after the other."""
        if evidence.placement is None or evidence.latency_s is None:
            return self  # a probe, or a change of the link
        fast = self.fast
        if evidence.placement == self.there:
            fast = fast + 1 if evidence.latency_s < self.edge_s else 0
        return replace(self, asked=self.asked + 1, fast=fast)


def make(menu: Menu, *, link: Link, device: Device) -> Careful:
    """Return the policy for a menu of placements and a first measurement of the link."""
    placements = menu.placements
    here = next(index for index, placement in enumerate(placements) if not placement.remote)

    def total_s(index: int) -> float:
        placement = placements[index]
        up_s = 8 * placement.payload_nbytes / link.uplink_bps
        return placement.head_s + placement.encode_s + up_s + link.rtt_s + placement.tail_s

    remote = [index for index, placement in enumerate(placements) if placement.remote]
    there = min(remote, key=total_s) if remote else here
    return Careful(here, there, placements[here].head_s)
