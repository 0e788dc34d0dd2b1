"""Emulated links behind one interface: packets over TUN, the kernel's own queues, a proxy."""

from __future__ import annotations

from midstream_lab.emulation.breaking import CUTS, Cut
from midstream_lab.emulation.emulate import BACKENDS, Backend, Emulation, emulate, why_not
from midstream_lab.emulation.reports import (
    Calibration,
    Capabilities,
    DirectionStats,
    LinkStats,
    Validity,
)
from midstream_lab.emulation.spec import GOODPUT_SHARE, LinkSpec, Loss, Rate, Varying

__all__ = [
    "BACKENDS",
    "CUTS",
    "GOODPUT_SHARE",
    "Backend",
    "Calibration",
    "Capabilities",
    "Cut",
    "DirectionStats",
    "Emulation",
    "LinkSpec",
    "LinkStats",
    "Loss",
    "Rate",
    "Validity",
    "Varying",
    "emulate",
    "why_not",
]
