"""A course over one partition goes on over the next, with what its policy has learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from midstream.deployment import Deployment, EdgeSetup, begin_session, deploy
from midstream.repartition import Course
from midstream.serving import open_repository
from midstream_cloud.server import serving
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.policies.probe_budget import ProbeBudget
from midstream_edge.repartition.prepare import prepare
from midstream_edge.repartition.repartitioner import Sides
from midstream_partitioner.costs.link import Link
from midstream_partitioner.partition.recut import network_of
from midstream_partitioner.planning.constraints import UNCONSTRAINED
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.planning.replan import estimated_profile
from midstream_wire.errors import ModelError, UsageError

LINK = Link(2e7, 2e7, 0.01)


def made_for(deployment: Deployment, endpoint: Endpoint) -> Sides:
    """The same network behind other cuts, with profiles estimated from the present ones."""
    base = deployment.partition
    network = network_of(base)
    fresh = prepare(
        base,
        [(0, 4), (0, 8)],
        like=deployment.chain,
        endpoint=endpoint,
        model=deployment.model,
    )
    part = fresh.chain.partition
    edge, cloud = (
        estimated_profile(network.graph, base, part, each)
        for each in (deployment.edge, deployment.cloud)
    )
    return Sides(fresh.chain, edge, cloud)


def course_of(deployment: Deployment, session: object, name: str) -> Course:
    planner = Planner(deployment.partition, deployment.edge, deployment.cloud)
    return Course(
        session,  # type: ignore[arg-type]
        deployment,
        planner,
        LINK,
        constraints=UNCONSTRAINED,
        name=name,
        curve=None,
        probes=ProbeBudget(),
    )


def test_a_course_goes_over_with_its_belief_and_gives_the_old_weights_back() -> None:
    repository = open_repository(["digits"], runs=1, repartition=1)
    with serving(repository) as address:
        endpoint = Endpoint.of(str(address))
        deployment = deploy("digits", endpoint, EdgeSetup(runs=1))
        with begin_session(deployment, endpoint) as session:
            course = course_of(deployment, session, "adaptive")
            part = deployment.partition
            x = {
                spec.name: np.zeros(
                    [n if isinstance(n, int) else 1 for n in spec.shape], spec.dtype
                )
                for spec in part.inputs
            }
            before = session.infer(x)
            learnt = replace(course.belief, head_scale=3.0) if course.belief else None
            assert learnt is not None
            course.director._policy = replace(course.director.policy, belief=learnt)  # type: ignore[type-var]
            course.adopt(made_for(deployment, endpoint))
            after = session.infer(x)
            assert course.belief is not None
            assert course.belief.head_scale > 1.5
            for name, array in before.outputs.items():
                np.testing.assert_allclose(after.outputs[name], array, rtol=1e-4, atol=1e-6)
            cuts = session.chain.partition.cuts
            assert after.cut == cuts[after.k].id
            assert set(course.labels) == {(o.k, o.codec) for o in course.menu.placements}
            with pytest.raises(ModelError, match="held here"):
                deployment.chain.run(x, 0, 1)


def test_a_policy_that_names_a_cut_stays_where_that_cut_is() -> None:
    repository = open_repository(["digits"], runs=1, repartition=1)
    with serving(repository) as address:
        endpoint = Endpoint.of(str(address))
        deployment = deploy("digits", endpoint, EdgeSetup(runs=1))
        inner = deployment.partition.cuts[1].id
        with begin_session(deployment, endpoint) as session:
            course = course_of(deployment, session, f"fixed:{inner}:raw")
            chain = session.chain
            with pytest.raises(UsageError, match="placement of the menu"):
                course.adopt(made_for(deployment, endpoint))
            assert session.chain is chain
