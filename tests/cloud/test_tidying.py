"""When a process gives memory back: as long as that helps, and never in a busy loop."""

from __future__ import annotations

from midstream_cloud.tidying import BUSY_NBYTES, FIRST_S, KEPT, LONGEST_S, Tidying
from midstream_wire.limits import MIB

_LEAST = 100 * MIB


def test_memory_is_given_back_once_little_is_under_way() -> None:
    tidying = Tidying(_LEAST)
    assert tidying.is_due(1.0, 130 * MIB, BUSY_NBYTES - 1)
    assert not tidying.is_due(1.0, 130 * MIB, BUSY_NBYTES)
    assert not tidying.is_due(1.0, int(KEPT * _LEAST), 0)


def test_a_flood_does_not_raise_what_may_be_kept_after_it() -> None:
    tidying, now_s = Tidying(_LEAST), 0.0
    for _ in range(20):  # it goes on for 20 s, and giving back helps little meanwhile
        now_s += FIRST_S
        if tidying.is_due(now_s, 800 * MIB, 0):
            tidying.note(now_s, 700 * MIB)
    now_s += 60.0
    assert tidying.is_due(now_s, 285 * MIB, 0)
    tidying.note(now_s, 110 * MIB)
    assert tidying.is_due(now_s + FIRST_S, 130 * MIB, 0)


def test_tries_that_do_not_help_become_rare_and_what_stays_counts_as_in_use() -> None:
    tidying, tries = Tidying(_LEAST), list[float]()
    for second in range(1000):
        if tidying.is_due(second, 300 * MIB, 0):
            tries.append(second)
            tidying.note(second, 290 * MIB)
    assert len(tries) <= 8
    assert 60.0 <= tries[-1] <= 2 * LONGEST_S + FIRST_S
    assert not tidying.is_due(2000.0, 340 * MIB, 0)
    assert tidying.is_due(2000.0, 360 * MIB, 0)
