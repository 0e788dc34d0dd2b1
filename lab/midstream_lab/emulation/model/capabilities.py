"""An emulated link's report on itself: capabilities, counters, lateness, validity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, final

from midstream_lab.emulation.model.packet_queue import Counters

#: A run is void beyond these: what it showed may be the emulator's doing.
MOST_ERROR = 0.05
MOST_LATENESS_S = 0.001
#: A round trip may be longer by this whatever the delay: two programs and two devices more.
RTT_ALLOWANCE_S = 0.0005


@final
@dataclass(frozen=True, slots=True)
class Capabilities:
    """A backend's capabilities on this machine, found out by trying."""

    delay: bool
    jitter: bool
    loss: bool
    queue: bool  # drops at queue_nbytes; otherwise senders wait for room
    congestion: bool  # TCP runs end to end over the link, with the control asked for
    silent_cut: bool  # in a black hole, nothing is acknowledged any more
    cuts: tuple[str, ...]
    realtime: bool  # the emulating process runs under SCHED_FIFO

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Capabilities:
        return cls(**{**document, "cuts": tuple(document["cuts"])})


@final
@dataclass(frozen=True, slots=True)
class DirectionStats:
    """One direction since the start. -1 where the backend cannot know.

    `dropped`: the queue was full; `lost`: the loss model struck; `cut`: the link was cut.
    """

    delivered_packets: int
    delivered_nbytes: int
    dropped_packets: int
    dropped_nbytes: int
    lost_packets: int
    lost_nbytes: int
    cut_packets: int
    cut_nbytes: int
    queued_nbytes: int
    most_queued_nbytes: int
    overrun_packets: int  # lost in front of the emulator, because it was not quick enough


@final
@dataclass(frozen=True, slots=True)
class LinkStats:
    """Both directions, and how late packets left the emulator, since the start.

    A proxy knows the lateness of its latest 4096 chunks only, and -1 for the most.
    """

    uplink: DirectionStats
    downlink: DirectionStats
    lateness_p50_s: float
    lateness_p99_s: float
    lateness_max_s: float

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LinkStats:
        up, down = (DirectionStats(**document[each]) for each in ("uplink", "downlink"))
        return cls(up, down, *(document[each.name] for each in fields(cls)[2:]))


@final
class Lateness:
    """Percentiles of how late things happened, within 5 %, in little memory and time.

    Counted in bins from a microsecond up, each `STEP` times as wide as the one before it.
    """

    STEP = 1.05
    BINS = 300  # up to 2.2 s

    def __init__(self) -> None:
        self._counts = [0] * self.BINS
        self._most_s = 0.0

    def add(self, late_s: float) -> None:
        number = int(math.log(late_s * 1e6) / _LOG_STEP) if late_s > 1e-6 else 0
        self._counts[min(number, self.BINS - 1)] += 1
        if late_s > self._most_s:
            self._most_s = late_s

    def document(self) -> dict[str, float]:
        return {
            "lateness_p50_s": self._percentile_s(50),
            "lateness_p99_s": self._percentile_s(99),
            "lateness_max_s": self._most_s,
        }

    def _percentile_s(self, percent: int) -> float:
        """The upper end of the bin in which it lies, 0 if there are none."""
        wanted = sum(self._counts) * percent / 100
        seen = 0
        for number, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(self.STEP ** (number + 1) / 1e6, self._most_s)
        return 0.0


_LOG_STEP = math.log(Lateness.STEP)


def direction_document(
    counters: Counters, queued_nbytes: int, *, overrun_packets: int = -1
) -> dict[str, int]:
    """One direction's stats as JSON, from what a `Line` counted."""
    return {
        **asdict(counters),
        "queued_nbytes": queued_nbytes,
        "overrun_packets": overrun_packets,
    }


@final
@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements over the idle link at the start, beside what was configured.

    Rates count whole IP packets. A trace is calibrated at its mean.
    """

    rtt_configured_s: float
    rtt_measured_s: float
    uplink_configured_bps: float
    uplink_measured_bps: float
    downlink_configured_bps: float
    downlink_measured_bps: float

    @property
    def rtt_error(self) -> float:
        """Beyond `RTT_ALLOWANCE_S`, as a share of what was configured."""
        over_s = abs(self.rtt_measured_s - self.rtt_configured_s) - RTT_ALLOWANCE_S
        return max(0.0, over_s) / max(self.rtt_configured_s, RTT_ALLOWANCE_S)

    @property
    def uplink_error(self) -> float:
        return self.uplink_measured_bps / self.uplink_configured_bps - 1

    @property
    def downlink_error(self) -> float:
        return self.downlink_measured_bps / self.downlink_configured_bps - 1


@final
@dataclass(frozen=True, slots=True)
class Validity:
    """The validity of a run over the link; `why` has the reasons against it."""

    backend: str
    realtime: bool
    congestion: str | None
    queue_nbytes: int | None
    calibration: Calibration | None
    lateness_p50_s: float
    lateness_p99_s: float
    valid: bool
    why: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """Plain values for JSON, the calibration's errors included."""
        document = asdict(self)
        if self.calibration is not None:
            for name in ("rtt_error", "uplink_error", "downlink_error"):
                document["calibration"][name] = getattr(self.calibration, name)
        return document


def reasons_against(
    calibration: Calibration | None, lateness_p99_s: float, overrun_packets: int
) -> tuple[str, ...]:
    """Return why a run is void; empty if it is not."""
    why = []
    if calibration is not None:
        for name in ("rtt", "uplink", "downlink"):
            error = getattr(calibration, f"{name}_error")
            if abs(error) > MOST_ERROR:
                why.append(
                    f"the measured {name} must be within {MOST_ERROR:.0%} of what was "
                    f"configured, and is {error:+.1%} off"
                )
    if lateness_p99_s > MOST_LATENESS_S:
        why.append(
            f"the emulator must be at most {MOST_LATENESS_S * 1e3:g} ms late in 99 of 100 "
            f"cases, and was {lateness_p99_s * 1e3:.2f} ms"
        )
    if overrun_packets > 0:
        why.append(
            f"the emulator must take every packet, and was too slow for {overrun_packets}"
        )
    return tuple(why)
