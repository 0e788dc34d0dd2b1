"""Made-up traces: a log rate with a memory, and outages, per kind of network.

The log of the rate is a first-order autoregression (an Ornstein-Uhlenbeck process in steps): a
normal marginal of deviation `sigma` whose autocorrelation falls to 1/e in `memory_s`. A second
process of two states takes the link away altogether, about every `outage_every_s`, for about
`outage_s` (both exponential: the model of Gilbert, Bell System Technical Journal 39, 1960).
Log-normal rates with short memory are what measurements of mobile links show (Riiser et al.,
MMSys 2013, 3G; Raca et al., MMSys 2018, 4G; Narayanan et al., SIGCOMM 2021, 5G).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from midstream_lab.traces.conditions import CONDITIONS
from midstream_lab.traces.statistics import (
    OUTAGE_BPS,
    log_rates,
    memory_s,
    on_grid,
    outage_lengths,
)
from midstream_lab.traces.trace import MOST_STEPS, Floats, Trace
from midstream_wire.errors import UsageError

#: The emulator's step: finer detail would not reach the link.
STEP_S = 0.1


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """The movement of the rate of one kind of link.

    `median_bps` is the level, `sigma` the deviation of the natural log of the rate, `memory_s`
    its memory. `outage_every_s` (`math.inf`: never) is the mean time between the end of an
    outage and the next, `outage_s` how long one lasts in the mean. `source` says whose figures
    these are.
    """

    name: str
    median_bps: float
    sigma: float
    memory_s: float
    outage_every_s: float
    outage_s: float
    source: str


def _kind(name: str, shape: tuple[float, float, float, float], source: str) -> Kind:
    """Level as in `CONDITIONS`; how it moves as fitted to a trace that was measured."""
    sigma, memory, every_s, outage_s = shape
    level = CONDITIONS[name].uplink_bps
    source = f"movement fitted to {source}; median: the uplink of the link {name!r}"
    return Kind(name, level, sigma, memory, every_s, outage_s, source)


#: Name -> kind. Sigma, memory, and the two times of outages are what `fitted` gives for the
#: trace named, rounded to two figures.
KINDS: Mapping[str, Kind] = {
    each.name: each
    for each in (
        _kind(
            "3g", (0.65, 5.7, 60.0, 2.5),
            "TMobile-UMTS-driving.up (Mahimahi's collection, an uplink in a car, 931 s)",
        ),
        _kind(
            "lte", (0.88, 0.87, 28.0, 1.5),
            "ATT-LTE-driving-2016.up (Mahimahi's collection, an uplink in a car, 120 s)",
        ),
        _kind(
            "satellite", (0.18, 4.9, math.inf, 0.0),
            "starlink_bw_example (LeoCC, SpaceNetLab, 120 s)",
        ),
        _kind(
            "broadband", (0.17, 6.5, 1800.0, 5.0),
            "broadband_fcc18_1000281 (FCC Measuring Broadband America 2018, in Meng et al.'s "
            "collection, 1835 s in steps of 5 s)",
        ),
        _kind(
            "5g", (0.93, 6.3, 48.0, 2.2),
            "5g_lumos_driving_94 (Lumos5G, Narayanan et al., IMC 2020, in a car, 250 s)",
        ),
        _kind(
            "wifi", (0.59, 0.76, 27.0, 1.6),
            "wifi_solis_lab_155424 (Solis Wi-Fi, in Meng et al.'s collection, 200 s)",
        ),
    )
}  # fmt: skip


def generate(
    kind: str | Kind,
    *,
    seed: int = 0,
    duration_s: float = 300.0,
    step_s: float = STEP_S,
    median_bps: float | None = None,
) -> Trace:
    """A made-up trace of one kind of network; the same arguments give the same trace.

    Raises `UsageError` for an unknown kind and for figures that make no trace.
    """
    shape = _known(kind)
    level = shape.median_bps if median_bps is None else median_bps
    for what, value in (("duration", duration_s), ("step", step_s), ("median", level)):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"a {what} must be above zero and finite (not {value!r})")
    if duration_s / step_s > MOST_STEPS or seed < 0:
        raise UsageError(
            f"a made-up trace must have at most {MOST_STEPS} steps and a seed from 0 on (not "
            f"{duration_s / step_s:.0f} steps, seed {seed})"
        )
    count = max(1, math.ceil(duration_s / step_s - 1e-9))
    draws = np.random.default_rng(seed)
    logs = _log_walk(draws.standard_normal(count), shape, step_s)
    rates = level * np.exp(logs)
    rates[_outages(draws.random(count), shape, step_s)] = 0.0
    edges_s = np.append(np.arange(count) * step_s, duration_s)
    source = f"made up: {shape.name}, seed {seed}; {shape.source}"
    return Trace(f"{shape.name}-{seed}", edges_s, rates, source)


def fitted(trace: Trace, name: str | None = None) -> Kind:
    """The kind that moves as `trace` does, on a grid of one second.

    Raises `UsageError` for a trace that is too short or too even to say.
    """
    grid = on_grid(trace)
    logs, memory = log_rates(grid), memory_s(grid)
    if memory is None:
        raise UsageError(f"a trace must vary over some seconds to be fitted ({trace.name})")
    outages_s = outage_lengths(grid)
    up_s = trace.duration_s - float(outages_s.sum())
    carrying = grid.rates_bps[grid.rates_bps >= OUTAGE_BPS]
    return Kind(
        name=name or trace.name,
        median_bps=float(np.median(carrying)),
        sigma=float(np.nanstd(logs)),
        memory_s=memory,
        outage_every_s=up_s / len(outages_s) if len(outages_s) else math.inf,
        outage_s=float(outages_s.mean()) if len(outages_s) else 0.0,
        source=f"fitted to {trace.source}",
    )


def _known(kind: str | Kind) -> Kind:
    if isinstance(kind, Kind):
        return kind
    if kind not in KINDS:
        raise UsageError(f"a kind of link must be {', '.join(KINDS)} (not {kind!r})")
    return KINDS[kind]


def _log_walk(normal: Floats, shape: Kind, step_s: float) -> Floats:
    """x[n+1] = a x[n] + sqrt(1 - a²) sigma e: stationary from the first step on."""
    kept = math.exp(-step_s / shape.memory_s)
    fresh = math.sqrt(1 - kept * kept)
    walk = np.empty_like(normal)
    now = float(normal[0])
    for at, draw in enumerate(normal.tolist()):
        now = kept * now + fresh * draw if at else now
        walk[at] = now
    return shape.sigma * walk


def _outages(uniform: Floats, shape: Kind, step_s: float) -> npt.NDArray[np.bool_]:
    """Return a mask of the steps in an outage; the link begins up."""
    begins = -math.expm1(-step_s / shape.outage_every_s)
    ends = -math.expm1(-step_s / shape.outage_s) if shape.outage_s else 1.0
    out = np.zeros(len(uniform), np.bool_)
    down = False
    for at, draw in enumerate(uniform.tolist()):
        down = draw >= ends if down else draw < begins
        out[at] = down
    return out
