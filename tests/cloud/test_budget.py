"""The server's budget of bytes: what is refused, and what comes back."""

from __future__ import annotations

import pytest

from midstream_cloud.budget import (
    Budget,
    memory_budget,
    networks_limit,
    resident,
)
from midstream_wire.errors import CloudRefused, UsageError
from midstream_wire.frames import Code
from midstream_wire.limits import MIB


def test_claims_share_a_budget_and_give_back() -> None:
    budget = Budget(100)
    one, two = budget.claim(), budget.claim()
    one.hold(60)
    two.hold(40)
    with pytest.raises(
        CloudRefused, match="may hold 100 B together, and 100 B are taken"
    ) as no:
        two.hold(41)
    assert no.value.code == Code.RESOURCE_EXHAUSTED
    assert budget.taken_nbytes == 100  # it holds what it did
    one.hold(10)
    two.hold(90)
    one.release()
    one.release()
    one.hold(50)  # after its release nothing is held any more
    assert budget.taken_nbytes == 90
    two.release()
    assert budget.taken_nbytes == 0


def test_networks_and_requests_share_the_memory() -> None:
    assert networks_limit(1000 * MIB) == 600 * MIB
    assert memory_budget(1000 * MIB, resident_nbytes=200 * MIB) == 300 * MIB
    assert memory_budget(1000 * MIB, resident_nbytes=800 * MIB) == 100 * MIB
    assert memory_budget(None, resident_nbytes=0) > 0
    assert resident() > 10 * MIB
    with pytest.raises(UsageError, match="beside the 200 MiB that it takes") as caught:
        memory_budget(250 * MIB, resident_nbytes=200 * MIB)
    assert "not 250 MiB in all" in str(caught.value)
