"""What link is asked for is checked in words, and survives the way to another process."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from midstream_lab.emulation.model.capabilities import Calibration, Lateness, reasons_against
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec, Loss, mean_bps
from midstream_lab.emulation.self_test.validity import calm
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.trace import Trace
from midstream_wire.errors import UsageError

TRACE = Trace("up and down", [0.0, 1.0, 4.0], [8e6, 0.0], "drawn by hand")


def test_a_specification_survives_json_with_its_traces() -> None:
    spec = LinkSpec(TRACE, 5e6, 0.02, 0.001, Loss.bursts(0.01, 3), 100_000, "reno", 7)
    again = LinkSpec.from_document(json.loads(json.dumps(spec.to_document())))
    assert again.to_document() == spec.to_document()
    assert not isinstance(again.uplink, float | int)
    assert list(again.uplink.times_s) == [0.0, 1.0, 4.0]
    assert list(again.uplink.rates_bps) == [8e6, 0.0]
    assert dataclasses.replace(again, uplink=1e6) == dataclasses.replace(spec, uplink=1e6)


def test_a_trace_is_described_by_name_and_mean() -> None:
    described = LinkSpec(TRACE, 5e6, 0.02).describe()
    assert described["uplink"] == {"trace": "up and down", "mean_bps": 2e6}
    assert described["downlink"] == 5e6
    json.dumps(described)


def test_a_condition_keeps_its_goodput() -> None:
    wifi = condition("wifi")
    spec = LinkSpec.of(wifi, seed=3)
    assert mean_bps(spec.uplink) * GOODPUT_SHARE == pytest.approx(wifi.uplink_bps)
    assert (spec.rtt_s, spec.seed) == (wifi.rtt_s, 3)


def test_calibration_holds_the_mean_and_draws_nothing() -> None:
    spec = calm(LinkSpec(TRACE, 5e6, 0.02, 0.001, Loss.random(0.5)))
    assert (spec.uplink, spec.downlink, spec.jitter_s, spec.loss) == (2e6, 5e6, 0.0, None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"uplink": 0.0}, "the uplink must carry"),
        ({"downlink": float("nan")}, "the downlink must carry"),
        ({"uplink": Trace("no_answer", [0.0, 1.0], [0.0])}, "on average"),
        ({"delay_s": -1.0}, "delay_s must lie"),
        ({"delay_s": float("nan")}, "delay_s must lie"),
        ({"jitter_s": 0.03}, "jitter_s must lie within 0 and delay_s"),
        ({"queue_nbytes": 100}, "queue_nbytes must lie"),
    ],
)
def test_what_no_backend_could_do_is_refused_in_a_sentence(
    wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        LinkSpec(**{"uplink": 1e6, "downlink": 1e6, "delay_s": 0.02, **wrong})


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_loss_is_a_probability(share: float) -> None:
    with pytest.raises(UsageError, match="good_share"):
        Loss.random(share)


@pytest.mark.parametrize(("share", "packets"), [(0.9, 2), (0.1, 0.5), (float("nan"), 2)])
def test_bursts_leave_room_for_what_is_between(share: float, packets: float) -> None:
    with pytest.raises(UsageError, match="bursts"):
        Loss.bursts(share, packets)


GOOD = Calibration(0.02, 0.0205, 1e6, 1.01e6, 1e6, 0.99e6)


@pytest.mark.parametrize(
    ("calibration", "lateness_s", "overruns", "word"),
    [
        (GOOD, 0.0005, 0, None),
        (None, 0.0005, 0, None),
        (dataclasses.replace(GOOD, rtt_measured_s=0.0216), 0.0, 0, "rtt"),
        (dataclasses.replace(GOOD, uplink_measured_bps=0.94e6), 0.0, 0, "uplink"),
        (dataclasses.replace(GOOD, downlink_measured_bps=1.06e6), 0.0, 0, "downlink"),
        (GOOD, 0.0011, 0, "late"),
        (GOOD, 0.0, 3, "too slow for 3"),
    ],
)
def test_a_run_is_void_beyond_five_percent_or_a_millisecond(
    calibration: Calibration | None, lateness_s: float, overruns: int, word: str | None
) -> None:
    why = reasons_against(calibration, lateness_s, overruns)
    assert len(why) == (word is not None)
    assert word is None or word in why[0]


def test_percentiles_of_lateness_are_within_five_percent_and_never_too_low() -> None:
    lateness = Lateness()
    for late_us in range(1, 101):
        lateness.add(late_us * 1e-6 + 5e-7)
    lateness.add(3.0)
    found = lateness.document()
    assert 51e-6 <= found["lateness_p50_s"] <= 51e-6 * 1.07
    assert 100e-6 <= found["lateness_p99_s"] <= 100e-6 * 1.07
    assert found["lateness_max_s"] == 3.0
