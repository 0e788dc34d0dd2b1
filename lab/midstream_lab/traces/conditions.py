"""Networks by name, each with figures and where they come from.

A condition is what one direction carries in bits of TCP payload per second, and a round trip
on the idle link. The figures stand for a typical link of the kind, not for a good one; who
needs another gives rates and a delay instead of a name ("8Mbit:40ms").
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import final

from midstream_partitioner.costs.link import Link
from midstream_partitioner.units import (
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)
from midstream_wire.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Condition:
    """Rates and delay of an emulated network; `source` says whose figures they are.

    Raises `UsageError` for rates that are not positive and finite, and for delays that are
    negative or not finite.
    """

    name: str
    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    source: str

    def __post_init__(self) -> None:
        for field in ("uplink_bps", "downlink_bps"):
            rate = getattr(self, field)
            if not (rate > 0 and math.isfinite(rate)):
                raise UsageError(f"{field} must be a finite rate above zero (not {rate!r})")
        if not (self.rtt_s >= 0 and math.isfinite(self.rtt_s)):
            raise UsageError(f"rtt_s must be finite and not negative (not {self.rtt_s!r})")

    @property
    def link(self) -> Link:
        """The same link as planning sees it."""
        return Link(self.uplink_bps, self.downlink_bps, self.rtt_s)

    def __str__(self) -> str:
        return (
            f"{self.name}: {format_rate(self.uplink_bps)} up, "
            f"{format_rate(self.downlink_bps)} down, RTT {format_duration(self.rtt_s)}"
        )


#: Name -> condition, slowest uplink first.
CONDITIONS: dict[str, Condition] = {
    each.name: each
    for each in (
        Condition(
            "3g", 0.75e6, 1.6e6, 0.150,
            "Lighthouse docs/throttling.md, mobile preset (about WebPageTest's '3G Fast', 1.6 "
            "Mbit/s and 768 kbit/s, 150 ms): the slowest quarter of 4G, the fastest of 3G",
        ),
        Condition(
            "lte", 12e6, 12e6, 0.070,
            "WebPageTest connectivity profile 'LTE (12 Mbps/12 Mbps 70ms RTT)'",
        ),
        Condition(
            "satellite", 18.17e6, 116.77e6, 0.047,
            "Ookla, 'Above Maine, Starlink Twinkles', 2024: medians of Starlink users in "
            "Maine, 1 October to 15 December 2024",
        ),
        Condition(
            "broadband", 20e6, 100e6, 0.028,
            "rates: FCC 2024 Section 706 Report, the benchmark for fixed broadband (100/20 "
            "Mbit/s); RTT: WebPageTest connectivity profile 'Cable'",
        ),
        Condition(
            "5g", 21.08e6, 166.13e6, 0.031,
            "rates: Ookla, 'Growing and Slowing: The State of 5G Worldwide in 2021', global "
            "medians of the third quarter; RTT: Ookla Speedtest, UK median on 5G, second half "
            "of 2024",
        ),
        Condition(
            "wifi", 40e6, 40e6, 0.020,
            "rates: one stream of 802.11n at 20 MHz signals 65 Mbit/s (IEEE Std 802.11n-2009, "
            "MCS 7), of which we take 60 % as goodput; RTT: more than half of the TCP packets "
            "of a campus took over 20 ms for the Wi-Fi hop (Sui et al., MobiSys 2016)",
        ),
    )
}  # fmt: skip


def condition(text: str) -> Condition:
    """The network called `text`, or one spelled out: "8Mbit:40ms" (both directions alike) or
    "8Mbit:20Mbit:40ms" (uplink, downlink, RTT). Raises `UsageError`.
    """
    found = CONDITIONS.get(text.strip().lower())
    if found is not None:
        return found
    parts = text.split(":")
    if len(parts) in (2, 3):
        return custom_condition(parts[0], parts[-2], parts[-1])
    near = difflib.get_close_matches(text.lower(), CONDITIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(CONDITIONS)}"
    raise UsageError(
        f'a link must be a name, or rates and an RTT such as "8Mbit:40ms" (not {text!r}): '
        f"{hint}"
    )


def custom_condition(uplink: str, downlink: str, rtt: str) -> Condition:
    """A condition from quantities with units ("8Mbit", "20Mbit", "40ms")."""
    rates_bps = parse_rate(uplink), parse_rate(downlink)
    name = ":".join(part.strip() for part in (uplink, downlink, rtt))
    return Condition(name, *rates_bps, parse_duration(rtt), "as asked for")
