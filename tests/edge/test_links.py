"""The edge over emulated links: what it measures, and what it does when they go dark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from midstream_edge.session import EdgeSession
from midstream_lab.conditions import condition
from midstream_lab.proxy import ProxyThread
from midstream_partitioner.chain import Chain
from midstream_wire.address import parse_address
from midstream_wire.tensors import Array

Picture = Callable[[int], Mapping[str, Array]]

FALLBACK = "edge-after-cloud-failed"


@pytest.fixture
def proxy(server: str) -> Iterator[ProxyThread]:
    """4 Mbit/s up, 20 down, 60 ms there and back."""
    target = parse_address(server)
    assert target.port is not None
    with ProxyThread((target.host, target.port), condition("4Mbit:20Mbit:60ms")) as proxy:
        yield proxy


def address_of(proxy: ProxyThread) -> str:
    host, port = proxy.address
    return f"{host}:{port}"


def test_an_emulated_link_is_measured_as_it_was_set(chain: Chain, proxy: ProxyThread) -> None:
    with EdgeSession(chain, address_of(proxy), plan=(1, "raw")) as session:
        link = session.measure_link()
    assert link.uplink_bps == pytest.approx(4e6, rel=0.15)
    assert link.downlink_bps == pytest.approx(20e6, rel=0.15)
    assert link.rtt_s == pytest.approx(0.06, abs=0.02)


def test_uplink_and_downlink_are_told_apart(
    chain: Chain, proxy: ProxyThread, picture: Picture
) -> None:
    with EdgeSession(chain, address_of(proxy), plan=(1, "raw")) as session:
        session.infer(picture(0))
        answer = session.infer(picture(1))
    assert answer.where == "cloud"
    sending_s = answer.payload_nbytes * 8 / 4e6
    assert answer.timings.uplink_s == pytest.approx(sending_s + 0.03, abs=0.03)
    assert answer.timings.downlink_s == pytest.approx(0.03, abs=0.02)


def test_a_link_that_goes_dark_costs_one_wait_and_is_used_again_when_it_is_back(
    chain: Chain, proxy: ProxyThread, picture: Picture
) -> None:
    with EdgeSession(
        chain, address_of(proxy), plan=(1, "raw"), local_rest_s={1: 0.1}
    ) as session:
        assert session.infer(picture(0)).where == "cloud"
        proxy.black_hole()
        began = time.monotonic()
        first = session.infer(picture(1), deadline_s=0.5)
        assert time.monotonic() - began < 0.5
        began = time.monotonic()
        second = session.infer(picture(2), deadline_s=0.5)
        assert time.monotonic() - began < 0.25
        proxy.restore()
        assert session.wait_connected(15)
        third = session.infer(picture(3))
    assert (first.where, second.where, third.where) == (FALLBACK, FALLBACK, "cloud")


def test_a_reset_in_mid_request_is_finished_here_and_survived(
    chain: Chain, proxy: ProxyThread, picture: Picture
) -> None:
    with EdgeSession(chain, address_of(proxy), plan=(1, "raw")) as session:
        assert session.infer(picture(0)).where == "cloud"
        futures = [session.submit(picture(n)) for n in range(4)]
        proxy.reset_all()
        answers = [future.result(5) for future in futures]
        assert any(answer.where == FALLBACK for answer in answers)
        assert session.wait_connected(15)
        assert session.infer(picture(4)).where == "cloud"
