"""What costs a peer nothing is rationed: it is held up, and nobody else is."""

from __future__ import annotations

from midstream_cloud.ration import MAX_PEERS, Ration, Rations


def test_a_burst_is_free_and_what_follows_is_earned() -> None:
    ration = Ration(burst=10.0, rate=2.0, now_s=0.0)
    assert [ration.spend(5.0, 0.0) for _ in range(3)] == [0.0, 0.0, 2.5]
    assert ration.spend(1.0, 2.5) == 3.0  # paid, and one more
    assert ration.spend(10.0, 100.0) == 100.0  # no more than a burst is kept
    assert ration.spend(1.0, 100.0) == 100.5


def test_a_clock_that_goes_back_earns_nothing() -> None:
    ration = Ration(burst=1.0, rate=1.0, now_s=5.0)
    assert ration.spend(2.0, 4.0) == 5.0


def test_each_peer_is_held_up_by_what_it_has_spent_itself() -> None:
    rations = Rations(burst=2.0, rate=1.0)
    for _ in range(5):
        rations.spend("greedy", 1.0, 10.0)
    assert rations.wait_s("greedy", 10.0) == 3.0
    assert rations.wait_s("greedy", 12.0) == 1.0
    assert rations.wait_s("greedy", 99.0) == 0.0
    assert rations.wait_s("honest", 10.0) == 0.0


def test_as_many_peers_are_remembered_as_there_is_room_for() -> None:
    rations = Rations(burst=0.0, rate=1.0)
    for number in range(MAX_PEERS + 1):
        rations.spend(f"peer {number}", 1.0, 10.0)
    assert rations.wait_s("peer 0", 10.0) == 0.0
    assert rations.wait_s("peer 1", 10.0) == 1.0
