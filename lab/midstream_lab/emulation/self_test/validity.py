"""The link measures itself before anyone uses it, and says whether a run may be believed."""

from __future__ import annotations

import dataclasses
from typing import Final, Protocol

from midstream_lab.emulation.host.backend_client import Child
from midstream_lab.emulation.model.capabilities import Calibration, Capabilities
from midstream_lab.emulation.model.spec import (
    GOODPUT_SHARE,
    TCP_HEADERS_NBYTES,
    LinkSpec,
    mean_bps,
)

#: What measuring takes beside round trips: trains each way, and their queues.
MEASURING_S: Final = 20.0
#: On slow links, what is sent beside that, both ways and twice over.
SLOW_BITS: Final = 480_000
#: Sent to and fro for a round trip, with headers where there are any.
EXCHANGE_NBYTES: Final = 16


class Measurable(Protocol):
    """A link that is up, as far as measuring it is concerned."""

    spec: LinkSpec
    capabilities: Capabilities

    @property
    def edge_namespace(self) -> str | None: ...
    @property
    def cloud_namespace(self) -> str | None: ...
    @property
    def cloud_address(self) -> str: ...
    def reach(self, address: str) -> str: ...


def calm(spec: LinkSpec) -> LinkSpec:
    """The link as it is calibrated: constant mean rates, nothing drawn."""
    return dataclasses.replace(
        spec,
        uplink=mean_bps(spec.uplink),
        downlink=mean_bps(spec.downlink),
        jitter_s=0.0,
        loss=None,
    )


def calibrate(emulation: Measurable) -> Calibration:
    """Measure round trip and rates of the link, idle and as it is set now, in about 2 s.

    Its rates must be constants (see `calm`).
    """
    spec = emulation.spec
    uplink_bps, downlink_bps = mean_bps(spec.uplink), mean_bps(spec.downlink)
    packets = emulation.capabilities.queue
    rtt_s = spec.rtt_s + _exchange_s(uplink_bps, downlink_bps, packets=packets)
    timeout_s = MEASURING_S + 100 * rtt_s + SLOW_BITS / min(uplink_bps, downlink_bps)
    with Child("midstream_lab.emulation.self_test.meter") as meter:
        listening = meter.ask(
            {
                "edge": emulation.edge_namespace,
                "cloud": emulation.cloud_namespace,
                "address": emulation.cloud_address,
            }
        )["listening"]
        figures = meter.ask(
            {
                "connect": emulation.reach(listening),
                "packets": packets,
                "exchange_nbytes": EXCHANGE_NBYTES,
                "uplink_bps": uplink_bps,
                "downlink_bps": downlink_bps,
                "rtt_s": rtt_s,
                "timeout_s": timeout_s,
            },
            timeout_s=timeout_s,
        )
    return Calibration(
        rtt_configured_s=rtt_s,
        rtt_measured_s=figures["rtt_s"],
        uplink_configured_bps=uplink_bps,
        uplink_measured_bps=figures["uplink_bps"],
        downlink_configured_bps=downlink_bps,
        downlink_measured_bps=figures["downlink_bps"],
    )


def _exchange_s(uplink_bps: float, downlink_bps: float, *, packets: bool) -> float:
    """Return what the bits of an exchange take on the line, beside the delay."""
    share = 1.0 if packets else GOODPUT_SHARE
    nbytes = EXCHANGE_NBYTES + (TCP_HEADERS_NBYTES if packets else 0)
    return sum(8 * nbytes / (rate_bps * share) for rate_bps in (uplink_bps, downlink_bps))
