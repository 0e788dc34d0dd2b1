"""A session whose requests change their size: the choice, the prediction and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import pytest
from tests.partitioner.sized import LINK, sides, total_s, two_steps

import midstream
from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.menu import Conditions, Menu
from midstream_partitioner.execution.chain import Chain

MET = Conditions(LINK.uplink_bps, LINK.downlink_bps, LINK.rtt_s)


@final
@dataclass(frozen=True)
class Best:
    """What is best on `LINK` by the profiles, whatever is measured."""

    menu: Menu
    heard: list[Evidence]
    name: str = "best"

    def decide(self, situation: Situation) -> Decision:
        menu = self.menu.at(situation.sizes)
        index = int(menu.totals_s(MET).argmin())
        return Decision(index, None, menu.estimate(index, MET))

    def learn(self, evidence: Evidence) -> Best:
        self.heard.append(evidence)
        return self


def test_requests_of_changing_size_are_each_placed_by_their_own() -> None:
    part = two_steps()
    edge, cloud = sides(part)
    whole = Chain(part)
    heard: list[Evidence] = []
    placed = {}
    with (
        midstream.serve(part) as server,
        midstream.connect(
            part, server, policy=lambda menu: Best(menu, heard), edge=edge, cloud=cloud
        ) as session,
    ):
        for size in (8, 400, 12, 700, 8, 60):
            x = np.linspace(-2, 2, size, dtype=np.float32)[None]
            answer = session.infer({"x": x})
            assert np.array_equal(answer.outputs["y"], whole.run({"x": x}, 0, 2)["y"])
            best_s = min(total_s(k, size) for k in range(3))
            assert answer.estimate is not None
            assert answer.estimate.total_s == pytest.approx(best_s, rel=0.05)
            assert total_s(answer.k, size) == pytest.approx(best_s, rel=0.05)
            placed[size] = answer.k
        assert dict(session.usual_sizes) == {"batch": 1, "seq": 60}  # the middle one of six
    assert len(set(placed.values())) > 1
    assert {
        dict(each.sizes).get("seq") for each in heard if each.placement is not None
    } == set(placed)
