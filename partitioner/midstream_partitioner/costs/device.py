"""A device that runs segments: what it is, how fast it pretends to be, what it draws."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from midstream_partitioner.backends.backend import DEFAULT_NAME
from midstream_partitioner.machine import usable_cores, usable_memory_nbytes
from midstream_wire.errors import UsageError

# Declared, not measured: energy plans are only as good as these four figures, and a profile's
# JSON is the place to put a device's own. All four are what the *whole* device draws, so that
# energy is power times time, stage by stage.
#
# Raspberry Pi 4 B: 540 mA at 5 V idle, 1280 mA with all four cores busy (J. Geerling,
# "Raspberry Pi Dramble: power consumption benchmarks").
IDLE_W = 2.7
ACTIVE_W = 6.4


#: A number, or many of them.
_Some = TypeVar("_Some", float, npt.NDArray[np.float64])


@final
@dataclass(frozen=True, slots=True)
class Radio:
    """Power of a radio on top of the idle device: base_w + slope * rate while it transfers.

    The linear model and figures of Huang, Qian, Gerber, Mao, Sen and Spatscheck, "A close
    examination of performance and power characteristics of 4G LTE networks", MobiSys 2012;
    measured on one phone, and not to be read beyond some 20 Mbit/s.
    """

    base_w: float
    uplink_w_per_mbps: float
    downlink_w_per_mbps: float

    def tx_w(self, uplink_bps: float) -> float:
        """Return what the radio draws while it sends at `uplink_bps`."""
        return self.base_w + self.uplink_w_per_mbps * uplink_bps / 1e6

    def rx_w(self, downlink_bps: float) -> float:
        """Return what the radio draws while it receives at `downlink_bps`."""
        return self.base_w + self.downlink_w_per_mbps * downlink_bps / 1e6


RADIOS: Mapping[str, Radio] = {
    "lte": Radio(base_w=1.28804, uplink_w_per_mbps=0.43839, downlink_w_per_mbps=0.05197),
    "3g": Radio(base_w=0.81788, uplink_w_per_mbps=0.86898, downlink_w_per_mbps=0.12212),
    "wifi": Radio(base_w=0.13286, uplink_w_per_mbps=0.28317, downlink_w_per_mbps=0.13701),
}

#: Beyond any watts, bytes or slowdown that there are; and no infinity.
_MOST = 1e18

# LTE at the median rates of that paper: 6 Mbit/s up, 13 Mbit/s down.
TX_W = round(IDLE_W + RADIOS["lte"].tx_w(6e6), 2)
RX_W = round(IDLE_W + RADIOS["lte"].rx_w(13e6), 2)


@final
@dataclass(frozen=True, slots=True)
class Device:
    """One side's machine.

    `slowdown` is 1.0 for a real device; above that the device is an emulation that waits, and
    `label()` says so in every output. `memory_nbytes` and `cores` are what a process may use
    of it (0 if unknown). `workers` tails run at once where it serves.
    `backend` is what ran the segments (`backend.Backend.name`).
    `active_w`, `idle_w`, `tx_w` and `rx_w` are watts that the whole device draws while it
    computes, waits, sends and receives. Raises `UsageError` for values out of range.
    """

    name: str
    threads: int
    slowdown: float = 1.0
    cpu: str = "unknown"
    memory_nbytes: int = 0
    active_w: float = ACTIVE_W
    idle_w: float = IDLE_W
    tx_w: float = TX_W
    rx_w: float = RX_W
    cores: int = 0
    workers: int = 1
    backend: str = DEFAULT_NAME

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(
                f"a device's threads must be at least 1 (not {self.threads}): "
                "give the number of cores to use"
            )
        if self.cores < 0 or self.workers < 1:
            raise UsageError(
                f"a device's cores must be 0 (unknown) or more and its workers at least 1 "
                f"(not {self.cores} and {self.workers}): correct the profile"
            )
        if not 1 <= self.slowdown <= _MOST:
            raise UsageError(
                f"a device's slowdown must be a number from 1 up (not {self.slowdown}): a "
                "device can be emulated slower than it is, never faster"
            )
        for name in ("memory_nbytes", "active_w", "idle_w", "tx_w", "rx_w"):
            value = getattr(self, name)
            if not 0 <= value <= _MOST:
                raise UsageError(
                    f"a device's {name} must be a number from 0 to {_MOST:g} (not {value}): "
                    "correct the profile or leave the field out"
                )

    @property
    def emulated(self) -> bool:
        """Return True if its times are stretched."""
        return self.slowdown != 1

    def serving(self, workers: int) -> Device:
        """The device as a server with so many workers; real ones share its cores."""
        if self.cores and not self.emulated:
            workers = min(workers, self.cores // self.threads)
        return replace(self, workers=max(1, workers))

    def label(self) -> str:
        """The name for people; an emulated device is always called one."""
        on = "" if self.backend == DEFAULT_NAME else f" on {self.backend}"
        emulation = f" (emulated {self.slowdown:g}x slower)" if self.emulated else ""
        return self.name + on + emulation

    def energy_j(
        self,
        total_s: _Some,
        *,
        busy_s: _Some,
        sending_s: _Some,
        receiving_s: _Some,
    ) -> _Some:
        """Return the joules that it draws in `total_s`, numbers or arrays alike.

        It idles throughout; computing, sending and receiving come on top of that.
        """
        idle_w = self.idle_w
        drawn_j: _Some = (
            idle_w * total_s
            + (self.active_w - idle_w) * busy_s
            + (self.tx_w - idle_w) * sending_s
            + (self.rx_w - idle_w) * receiving_s
        )
        return drawn_j

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def this_device(threads: int = 1, slowdown: float = 1.0, name: str | None = None) -> Device:
    """The machine at hand, named after its processor unless `name` is given.

    The host's name is not used: profiles travel, and it tells strangers more than they need.
    """
    cpu = _cpu_model()
    return Device(
        name=name or cpu,
        threads=threads,
        slowdown=float(slowdown),
        cpu=cpu,
        memory_nbytes=usable_memory_nbytes(),
        cores=usable_cores(),
    )


def _cpu_model() -> str:
    """x86 says "model name", 64-bit Arm boards only "Model" (Raspberry Pi 4 Model B ...)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    entries = {
        key.strip().lower(): value.strip()
        for key, separator, value in (
            line.partition(":") for line in reversed(text.splitlines())
        )
        if separator
    }
    found = entries.get("model name") or entries.get("model", "")
    if not found or found.isdigit():
        found = platform.processor() or platform.machine()
    return found or "unknown"
