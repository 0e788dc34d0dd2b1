"""Policies that hold a belief of the link, for those who probe it and show it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from midstream_edge.policies.interface import Policy
from midstream_edge.policies.link_estimator import LinkBelief


@runtime_checkable
class Believing(Policy, Protocol):
    """A policy that estimates the link, so that probes are of use to it."""

    @property
    def belief(self) -> LinkBelief:
        """Return the estimate after all evidence so far."""


def belief_of(policy: object) -> LinkBelief | None:
    """Return what `policy` believes of the link; None if it holds no belief."""
    if not isinstance(policy, Believing):
        return None
    return policy.belief if isinstance(policy.belief, LinkBelief) else None
