"""What costs a peer nothing is rationed: it is held up, and nobody else is."""

from __future__ import annotations

from midstream_cloud.ration import Ration


def test_a_burst_is_free_and_what_follows_is_earned() -> None:
    ration = Ration(burst=10.0, rate=2.0, now_s=0.0)
    assert [ration.spend(5.0, 0.0) for _ in range(3)] == [0.0, 0.0, 2.5]
    assert ration.spend(1.0, 2.5) == 3.0  # paid, and one more
    assert ration.spend(10.0, 100.0) == 100.0  # no more than a burst is kept
    assert ration.spend(1.0, 100.0) == 100.5


def test_a_clock_that_goes_back_earns_nothing() -> None:
    ration = Ration(burst=1.0, rate=1.0, now_s=5.0)
    assert ration.spend(2.0, 4.0) == 5.0
