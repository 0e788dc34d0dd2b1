"""When fresh channels are due: at once, then ever more rarely, and never in step."""

from __future__ import annotations

import random
from collections import Counter

from midstream_edge.link.failure_detector import MOST_S
from midstream_edge.link.reconnect import ReconnectSchedule


def tries_s(seed: int, count: int) -> list[float]:
    """When an edge opens its first channels of an outage that begins at 0 s."""
    attempts = ReconnectSchedule(0.0, draw=random.Random(seed).random)
    attempts.begin_outage(0.0)
    now_s, tries = 0.0, list[float]()
    while len(tries) < count:
        due_s = attempts.next_look_s(now_s, ())
        assert due_s is not None
        now_s = max(now_s, due_s)
        wanted, _ = attempts.look(now_s, ())
        assert wanted
        attempts.note_try(now_s)
        tries.append(now_s)
    return tries


def test_the_first_channel_of_an_outage_is_due_at_once() -> None:
    assert tries_s(0, 1) == [0.0]


def test_pauses_grow_and_are_bounded() -> None:
    moments = tries_s(1, 60)
    pauses = [later - sooner for sooner, later in zip(moments, moments[1:], strict=False)]
    assert max(pauses) <= MOST_S
    assert min(pauses) > 0.0
    assert sum(pauses[-5:]) > sum(pauses[:5])


def test_a_thousand_edges_that_lost_one_server_do_not_come_back_in_step() -> None:
    edges = [tries_s(seed, 12) for seed in range(1000)]
    for nth in (2, 5, 11):  # the first ones are at once, for a link that was cut alone
        moments = [each[nth] for each in edges]
        assert max(moments) - min(moments) > 0.2 * max(moments)
        in_step = Counter(int(20 * moment / max(moments)) for moment in moments)
        assert max(in_step.values()) < 500
