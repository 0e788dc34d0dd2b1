"""How fast a network was, moment by moment: read, looked at, changed, made up, written."""

from __future__ import annotations

from midstream_lab.traces.generators import KINDS, Kind, fitted, generate
from midstream_lab.traces.parsing import load_trace, open_trace
from midstream_lab.traces.statistics import Statistics, statistics
from midstream_lab.traces.trace import Trace
from midstream_lab.traces.writing import write_trace

__all__ = [
    "KINDS",
    "Kind",
    "Statistics",
    "Trace",
    "fitted",
    "generate",
    "load_trace",
    "open_trace",
    "statistics",
    "write_trace",
]
