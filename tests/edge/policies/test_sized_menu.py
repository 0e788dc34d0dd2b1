"""One session, requests of changing sizes: each gets the placement that is best for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.partitioner.sized import LINK, sides, total_s, two_steps

from midstream_edge.policies import menu as menus
from midstream_edge.policies.interface import Evidence, Situation
from midstream_edge.policies.menu import NEVER_S, Menu
from midstream_edge.policies.registry import policy
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner

SHORT, MIDDLE, LONG = 10, 150, 600


@pytest.fixture(scope="module")
def part() -> Partition:
    return two_steps()


def menu_of(part: Partition, constraints: Constraints | None = None) -> Menu:
    planner = Planner(part, *sides(part), constraints=constraints or Constraints())
    return Menu.of(planner, complete=True)


def at(size: int) -> Sizes:
    return (("batch", 1), ("seq", size))


@pytest.mark.parametrize("name", ["adaptive-nohedge", "ewma", "harmonic", "periodic"])
def test_every_request_gets_the_option_that_is_best_at_its_size(
    part: Partition, name: str
) -> None:
    menu = menu_of(part)
    asked = policy(name, menu, link=LINK, device=sides(part)[0].device)
    chosen = set()
    for size in (SHORT, MIDDLE, LONG, 64, SHORT, 300):
        decision = asked.decide(Situation(0.0, sizes=at(size)))
        placement = menu.placements[decision.placement]
        assert total_s(placement.k, size) == pytest.approx(
            min(total_s(k, size) for k in range(3)), rel=0.05
        )
        assert decision.estimate is not None
        assert decision.estimate.total_s == pytest.approx(total_s(placement.k, size), rel=0.05)
        chosen.add(placement.k)
    assert len(chosen) > 1


def test_options_keep_their_places_at_every_size(part: Partition) -> None:
    menu = menu_of(part)
    names = [(placement.cut, placement.codec) for placement in menu.placements]
    for size in (SHORT, MIDDLE, LONG):
        priced = menu.at(at(size))
        assert [(placement.cut, placement.codec) for placement in priced.placements] == names
        assert priced.at(at(MIDDLE)) is menu.at(at(MIDDLE))
    assert menu.at(()) is menu


def test_sizes_close_together_share_a_menu_and_few_are_kept(
    part: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(menus, "MOST_MENUS", 3)
    monkeypatch.setattr(menus, "MOST_SIZES", 5)
    menu = menu_of(part)
    assert menu.at(at(1000)) is menu.at(at(1001))
    assert menu.at(at(1000)) is not menu.at(at(1100))
    first = menu.at(at(8))
    for size in range(9, 30):
        assert menu.at(at(size)).placements[0].k == first.placements[0].k
    assert menu.menus is not None
    assert len(menu.menus._by_bucket) <= 3
    assert len(menu.menus._by_sizes) <= 5


def test_what_is_not_allowed_at_a_size_is_not_chosen_there(part: Partition) -> None:
    most = Constraints(max_payload_nbytes=40 * 200)
    menu = menu_of(part, most)
    asked = policy("adaptive-nohedge", menu, link=LINK, device=sides(part)[0].device)
    for size, remote in ((150, True), (600, False)):
        decision = asked.decide(Situation(0.0, sizes=at(size)))
        placement = menu.at(at(size)).placements[decision.placement]
        assert placement.remote is remote
        barred = {o.k for o in menu.at(at(size)).placements if o.encode_s == NEVER_S}
        assert barred == (set() if remote else {0, 1})


def test_a_slow_edge_is_told_from_a_long_text(part: Partition) -> None:
    menu = menu_of(part)
    asked = policy("adaptive", menu, link=LINK, device=sides(part)[0].device)
    alone = menu.edge_only
    assert alone is not None
    for step in range(20):
        long_s = menu.at(at(LONG)).placements[alone].head_s
        asked = asked.learn(
            Evidence(float(step), placement=alone, head_s=long_s, sizes=at(LONG))
        )
    belief = asked.belief  # type: ignore[attr-defined]
    assert belief.head_scale == pytest.approx(1.0, rel=0.01)
    wrong = asked.learn(replace(Evidence(30.0, placement=alone, head_s=long_s), sizes=()))
    assert wrong.belief.head_scale > 1.05  # type: ignore[attr-defined]
