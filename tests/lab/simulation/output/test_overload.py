"""A queue at the edge that only grows is told from one that comes to rest."""

from __future__ import annotations

import pytest

from midstream_edge.policies.menu import Menu
from midstream_lab.simulation.model.arrivals import Arrivals, Closed, Every, Poisson
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.output.overload import backlog_s
from midstream_lab.simulation.pair.pair import Setting, simulate_pair
from midstream_lab.traces.conditions import condition
from midstream_partitioner.costs.device import Device
from midstream_partitioner.planning.placements import Placement

WHOLE_S = 0.1
MENU = Menu((Placement("edge-only", "raw", 1, "edge-only", False,
                    WHOLE_S, 0.0, 0.0, 0.0, 0, 0, 0.0),))  # fmt: skip


def backlog(arrivals: Arrivals, duration_s: float = 60.0) -> float | None:
    network = Network.of(condition("wifi"))
    setting = Setting(network, Device("edge", 1), arrivals, duration_s=duration_s)
    return backlog_s(simulate_pair(MENU, "edge-only", setting).table)


def test_more_requests_than_are_answered_pile_up() -> None:
    """25 % too many: the last tenth, in the mean due at 57 s, waits for a fifth of that."""
    assert backlog(Every(0.8 * WHOLE_S)) == pytest.approx(0.25 * 57, rel=0.02)
    assert backlog(Poisson(1.3 / WHOLE_S)) is not None


@pytest.mark.parametrize(
    "arrivals", [Closed(), Every(WHOLE_S), Every(2 * WHOLE_S), Poisson(0.6 / WHOLE_S)]
)
def test_a_queue_that_comes_to_rest_is_none(arrivals: Arrivals) -> None:
    assert backlog(arrivals, 600.0) is None


def test_a_handful_of_requests_tells_nothing() -> None:
    assert backlog(Every(0.5 * WHOLE_S), 0.5) is None
