"""A running edge that moves to another partition: what is planned with, and who chooses."""

from __future__ import annotations

from typing import final

from midstream.deployment import Deployment, declared_rest
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.oracle import Curve
from midstream_edge.policies.probe_budget import ProbeBudget
from midstream_edge.policies.registry import policy
from midstream_edge.repartition.repartitioner import Believed, Repartitioner, Sides
from midstream_edge.session.session import EdgeSession
from midstream_edge.workload.load_generator import DRAIN_S
from midstream_partitioner.costs.link import Link
from midstream_partitioner.partition.recut import network_of
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.codec_ladder import usual_codecs
from midstream_wire.allocator import release_freed_memory
from midstream_wire.tensors import Array


@final
class Course:
    """The policy called `name` over the present partition of a session, and over the next.

    `menu` and `director` are those of the partition that new requests begin with; `probes` is
    what may be sent to ask the link, over all partitions. Raises
    `UsageError` as `registry.policy` does.
    """

    def __init__(
        self,
        session: EdgeSession,
        deployment: Deployment,
        planner: Planner,
        link: Link,
        *,
        constraints: Constraints,
        name: str,
        curve: Curve | None,
        probes: ProbeBudget,
    ) -> None:
        self._session = session
        self._deployment = deployment
        self._objective = planner.objective
        self._constraints = constraints
        self._link = link
        self._name = name
        self._curve = curve
        complete = deployment.chain.last == len(deployment.partition.segments)
        self.menu = Menu.of(planner, complete=complete, policies=(name,))
        chosen = self._policy(self.menu, link)
        self.director = session.follow(chosen, self.menu.placements, probes=probes)

    @property
    def labels(self) -> dict[tuple[int, str], str]:
        """The menu's placements for people, by plan."""
        return {
            (placement.k, placement.codec): placement.label
            for placement in self.menu.placements
        }

    @property
    def belief(self) -> LinkBelief | None:
        """Return what the policy believes of the link, if it holds a belief."""
        return self.director.belief

    def repartitioner(self, endpoint: Endpoint, sample: dict[str, Array]) -> Repartitioner:
        """Return what watches over the partition, from the moment it is entered."""
        deployment, constraints = self._deployment, self._constraints
        return Repartitioner(
            Sides(self._session.chain, deployment.edge, deployment.cloud),
            base=deployment.partition,
            graph=network_of(deployment.partition).graph,
            graph_at=lambda sizes: network_of(deployment.partition).at(sizes),
            model=deployment.model,
            endpoint=endpoint,
            sample=sample,
            believed=self._believed,
            adopt=self.adopt,
            stranded=lambda: self._session.stranded,
            codecs=constraints.codecs or usual_codecs(),
            constraints=constraints,
        )

    def _believed(self) -> Believed | None:
        belief = self.belief
        if belief is None or self._session.link_state != "connected":
            return None
        link = Link(belief.uplink_bps, belief.downlink_bps, belief.rtt_s)
        sizes = self._session.usual_sizes
        return Believed(link, belief.head_scale, belief.tail_scale, sizes)

    def adopt(self, sides: Sides) -> None:
        """Go over to a new partition, with the same policy and what it has learnt."""
        session, old, last = self._session, self._session.chain, len(sides.partition.segments)
        planner = Planner(
            sides.partition,
            sides.edge,
            sides.cloud,
            objective=self._objective,
            constraints=self._constraints,
        )
        believed = self._believed()
        link = self._link if believed is None else believed.link
        complete = sides.chain.last == last
        menu = Menu.of(planner, complete=complete, policies=(self._name,))
        chosen = self._policy(menu, link, self.belief)
        rest_s = declared_rest(sides.edge, last) if complete else None
        plan = planner.plan(link).chosen
        session.swap(sides.chain, plan=(plan.k, plan.codec), local_rest_s=rest_s)
        probes = self.director.budget
        self.menu, self.director = menu, session.follow(chosen, menu.placements, probes=probes)
        if session.wait_swapped(DRAIN_S):
            old.release()
            release_freed_memory()

    def _policy(self, menu: Menu, link: Link, belief: LinkBelief | None = None) -> Policy:
        device = self._deployment.edge.device
        return policy(
            self._name, menu, link=link, device=device, curve=self._curve, belief=belief
        )
