"""What a busy machine's measurement says of itself."""

from __future__ import annotations

import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import Profile, Stat
from midstream_partitioner.profiling.quietness import disturbance


def profile(*, spread: float) -> Profile:
    times = Stat(0.1, 0.09, 0.1 * (1 + spread), 20)
    return Profile(Device("edge", 1), "g", "p", (times, times), (), (0, 0, 0))


@pytest.mark.parametrize(
    ("spread", "load", "signs"),
    [
        (0.1, 1.5, ()),
        (0.1, 6.2, ("a load average of 6.2 on 2 processors",)),
        (0.8, 1.5, ("a tenth of the runs took over 80% longer than the median",)),
        (0.8, 6.2, ("a load average of 6.2", "a tenth of the runs")),
    ],
)
def test_a_busy_machine_is_told_in_one_sentence(
    spread: float, load: float, signs: tuple[str, ...]
) -> None:
    said = disturbance(profile(spread=spread), load=load, processors=2)
    assert (said is None) == (not signs)
    for sign in signs:
        assert said is not None
        assert sign in said
        assert "measure again when nothing else runs" in said


def test_times_that_are_zero_say_nothing() -> None:
    nothing = Stat(0.0, 0.0, 0.0, 20)
    empty = Profile(Device("edge", 1), "g", "p", (nothing,), (), (0, 0))
    assert disturbance(empty, load=0.0, processors=2) is None
