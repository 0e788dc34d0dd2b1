"""Trials in virtual time: one pair, fleets that share a cloud, and maps of what would win.

What decides is the very code that a session runs (`midstream_edge.policies`); what it decides
about, a link, a queue, processors, is modelled here (docs/simulation.md).
"""

from __future__ import annotations

from midstream_lab.simulation.figures import Figures, Share, figures
from midstream_lab.simulation.network import HEADER_SHARE, Network, steady
from midstream_lab.simulation.pair import Outcome, Setting, simulate_pair
from midstream_lab.simulation.source import Cut

__all__ = [
    "HEADER_SHARE",
    "Cut",
    "Figures",
    "Network",
    "Outcome",
    "Setting",
    "Share",
    "figures",
    "simulate_pair",
    "steady",
]
