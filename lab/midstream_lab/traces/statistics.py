"""Statistics of a trace, in a few figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from midstream_lab.traces.trace import Floats, Trace

#: An outage: no more than one full packet (1,500 bytes) a second passes. Halfway to two, so
#: that rounding decides nothing.
OUTAGE_BPS = 18_000.0
#: Memory is looked for on this grid. Finer, and the spacing of single packets shows.
GRID_S = 1.0


@final
@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of one trace, weighted by time.

    `outage_share` is the share of time below `OUTAGE_BPS`, `longest_outage_s` the
    longest such stretch. `variation` is the coefficient of variation (standard deviation over
    mean). `memory_s` is the lag at which the autocorrelation of the log rate, outages left
    out, has fallen to 1/e; None if it does not fall within the trace, or nothing varies.
    """

    duration_s: float
    steps: int
    mean_bps: float
    p5_bps: float
    p50_bps: float
    p95_bps: float
    lowest_bps: float
    highest_bps: float
    variation: float
    outage_share: float
    outages: int
    longest_outage_s: float
    memory_s: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def statistics(trace: Trace) -> Statistics:
    """The figures of `trace`."""
    rates, widths_s = trace.rates_bps, np.diff(trace.times_s)
    p5, p50, p95 = _quantiles(rates, widths_s, (0.05, 0.5, 0.95))
    mean = trace.mean_bps
    spread = float(np.sqrt(np.average((rates - mean) ** 2, weights=widths_s)))
    outages_s = outage_lengths(trace)
    return Statistics(
        duration_s=trace.duration_s,
        steps=len(rates),
        mean_bps=mean,
        p5_bps=p5,
        p50_bps=p50,
        p95_bps=p95,
        lowest_bps=float(rates.min()),
        highest_bps=float(rates.max()),
        variation=spread / mean if mean else 0.0,
        outage_share=float(outages_s.sum()) / trace.duration_s,
        outages=len(outages_s),
        longest_outage_s=float(outages_s.max(initial=0.0)),
        memory_s=memory_s(trace),
    )


def outage_lengths(trace: Trace) -> Floats:
    """Seconds of each stretch below `OUTAGE_BPS`, in their order."""
    out = trace.rates_bps < OUTAGE_BPS
    edges = np.diff(np.concatenate(([0], out.astype(np.int8), [0])))
    starts, ends = np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0]
    lengths: Floats = trace.times_s[ends] - trace.times_s[starts]
    return lengths


def log_rates(trace: Trace) -> Floats:
    """Natural logs of the rates second by second, less their mean; NaN during outages."""
    rates = on_grid(trace).rates_bps
    logs = np.log(np.where(rates < OUTAGE_BPS, np.nan, rates))
    if np.isnan(logs).all():
        return logs
    centred: Floats = logs - np.nanmean(logs)
    return centred


def on_grid(trace: Trace) -> Trace:
    """The trace in whole steps of `GRID_S`; as it is if it is shorter than a few."""
    whole_s = trace.duration_s // GRID_S * GRID_S
    return trace.cut(0.0, whole_s).resampled(GRID_S) if whole_s >= 4 * GRID_S else trace


def memory_s(trace: Trace) -> float | None:
    """The lag at which the log rate's autocorrelation falls to 1/e, between grid points by a
    straight line.
    """
    logs = log_rates(trace)
    known = np.isfinite(logs)
    if trace.duration_s < 4 * GRID_S or known.sum() < 4:
        return None
    variance = float(np.mean(logs[known] ** 2))
    if variance < 1e-12:
        return None
    before = 1.0
    for lag in range(1, len(logs) // 2):
        both = known[lag:] & known[:-lag]
        if not both.any():
            return None
        now = float(np.mean((logs[lag:] * logs[:-lag])[both])) / variance
        if now < 1 / np.e:
            return GRID_S * (lag - 1 + (before - 1 / np.e) / (before - now))
        before = now
    return None


def _quantiles(rates: Floats, widths_s: Floats, shares: tuple[float, ...]) -> list[float]:
    """Rates below which the trace lies for these shares of its time."""
    order = np.argsort(rates, kind="stable")
    passed = np.cumsum(widths_s[order])
    at = np.searchsorted(passed, np.array(shares) * passed[-1])
    return [float(each) for each in rates[order][np.minimum(at, len(rates) - 1)]]
