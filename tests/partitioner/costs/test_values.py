"""The values that planning is made of: link, timings, device."""

from __future__ import annotations

import dataclasses
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_partitioner.costs.device import RADIOS, Device, this_device
from midstream_partitioner.costs.link import EXCHANGE_S, Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.costs.timings import FIELDS, Estimate, Timings
from midstream_wire.errors import UsageError

SECONDS = st.floats(0, 1e6)


@given(st.lists(SECONDS, min_size=7, max_size=7))
def test_the_total_is_the_sum_of_the_seven_stages(values: list[float]) -> None:
    timings = Timings(*values)
    document = timings.to_dict()
    assert list(document) == [*FIELDS, "total_s"]
    assert [document[name] for name in FIELDS] == values
    assert document["total_s"] == timings.total_s == pytest.approx(sum(values))


def test_predictions_and_measurements_have_the_same_fields_and_are_two_types() -> None:
    assert Estimate(*range(7)).to_dict() == Timings(*range(7)).to_dict()
    assert not isinstance(Estimate(), Timings)
    assert len(FIELDS) == 7


def test_a_transfer_costs_its_bits_and_half_of_what_an_exchange_costs() -> None:
    link = Link(8e6, 16e6, 0.04)
    assert link.uplink_s(1_000_000) == pytest.approx(1.0 + 0.02 + EXCHANGE_S / 2)
    assert link.downlink_s(1_000_000) == pytest.approx(0.5 + 0.02 + EXCHANGE_S / 2)
    assert link.uplink_s(0) + link.downlink_s(0) == pytest.approx(0.04 + EXCHANGE_S)


def test_an_infinite_rate_costs_the_delay_only() -> None:
    assert Link(inf, inf, 0.0, fixed_s=0.0).uplink_s(10**9) == 0.0


@pytest.mark.parametrize(
    "values",
    [(0.0, 1.0, 0.0), (1.0, -1.0, 0.0), (nan, 1.0, 0.0), (1.0, 1.0, -1.0), (1.0, 1.0, inf)],
)
def test_a_link_out_of_range_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="a link's"):
        Link(*values)


def test_an_emulated_device_is_called_one_and_a_real_one_is_not() -> None:
    assert Device("pi", 4, 8.0).label() == "pi (emulated 8x slower)"
    assert Device("pi", 4, 1.5).label() == "pi (emulated 1.5x slower)"
    assert Device("pi", 4).label() == "pi"


def test_this_device_knows_its_processor_and_memory() -> None:
    device = this_device(2, slowdown=4)
    assert device.name == device.cpu
    assert device.memory_nbytes > 1 << 28
    assert (device.threads, device.slowdown, device.emulated) == (2, 4.0, True)
    assert this_device(name="mine").name == "mine"


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 0},
        {"slowdown": 0.5},
        {"slowdown": inf},
        {"memory_nbytes": -1},
        {"active_w": -0.1},
        {"tx_w": nan},
    ],
)
def test_a_device_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a device's"):
        dataclasses.replace(Device("pi", 4), **change)


def test_radios_draw_more_the_faster_they_transfer() -> None:
    for radio in RADIOS.values():
        assert 0 < radio.base_w == radio.tx_w(0) < radio.tx_w(1e6) < radio.tx_w(5e6)
        assert radio.rx_w(1e6) < radio.tx_w(1e6)  # sending costs more than receiving


def test_a_device_survives_the_profile_it_travels_in_and_is_checked_there() -> None:
    device = Device("pi", 4, 8.0, "Cortex-A72", 1 << 32, active_w=5.5)
    profile = Profile(device, "g", "p", (), (), (0,))
    text = profile.to_json()
    assert Profile.from_json(text).device == device
    for faulty in ('"threads": 0', '"threads": "many"'):
        with pytest.raises(UsageError):
            Profile.from_json(text.replace('"threads": 4', faulty))
