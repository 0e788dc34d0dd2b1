"""Networks by name and spelled out."""

from __future__ import annotations

import pytest

from midstream_lab.traces.conditions import CONDITIONS, Condition, condition, custom_condition
from midstream_wire.errors import UsageError


def test_the_named_networks_have_figures_and_a_source() -> None:
    assert set(CONDITIONS) == {"3g", "lte", "wifi", "5g", "broadband", "satellite"}
    for name, each in CONDITIONS.items():
        assert each.name == name
        assert condition(name) is each
        assert 1e5 < each.uplink_bps <= each.downlink_bps
        assert 0 < each.rtt_s < 1
        assert len(each.source) > 20


def test_networks_are_listed_from_the_slowest_uplink_on() -> None:
    rates_bps = [each.uplink_bps for each in CONDITIONS.values()]
    assert rates_bps == sorted(rates_bps)


def test_case_and_spaces_do_not_matter() -> None:
    assert condition(" LTE ") is CONDITIONS["lte"]


def test_a_network_can_be_spelled_out() -> None:
    both = condition("8Mbit:40ms")
    assert [both.uplink_bps, both.downlink_bps, both.rtt_s] == pytest.approx([8e6, 8e6, 0.04])
    each = condition("8Mbit:20Mbit/s:40ms")
    assert (each.uplink_bps, each.downlink_bps) == (8e6, 20e6)
    assert custom_condition("8Mbit", "20Mbit/s", "40ms") == each


def test_a_condition_is_the_link_that_planning_sees() -> None:
    link = condition("lte").link
    assert (link.uplink_bps, link.downlink_bps, link.rtt_s) == (12e6, 12e6, 0.07)


def test_a_condition_reads_as_a_line() -> None:
    assert str(condition("3g")) == "3g: 750 kbit/s up, 1.6 Mbit/s down, RTT 150 ms"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lt", "did you mean 'lte'"),
        ("modem", "known: 3g, lte"),
        ("8Mbit", "rates and an RTT"),
        ("8:40ms", "no unit"),
        ("8Mbit:40", "no unit"),
        ("1:2:3:4", "must be a name"),
        ("-8Mbit:40ms", "not negative"),
    ],
)
def test_what_is_no_network_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        condition(text)


@pytest.mark.parametrize(
    "figures", [(0.0, 1.0, 0.0), (1.0, float("inf"), 0.0), (1.0, 1.0, -0.1)]
)
def test_impossible_figures_are_refused(figures: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError):
        Condition("x", *figures, "none")
