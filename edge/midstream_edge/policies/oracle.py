"""The clairvoyant: chooses by what the link is going to do. The measure of all others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.menu import Menu
from midstream_wire.errors import UsageError

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """The true uplink: `rates_bps[i]` from `times_s[i]` to `times_s[i + 1]`, then over again.

    `times_s` begin at 0 and have one entry more than the rates; `origin_s` is the monotonic
    moment of time 0. Raises `UsageError` where they do not, for rates that are negative or not
    finite, and for a curve that never carries anything.
    """

    times_s: Floats
    rates_bps: Floats
    origin_s: float

    def __post_init__(self) -> None:
        times_s = np.array(self.times_s, dtype=np.float64)
        rates_bps = np.array(self.rates_bps, dtype=np.float64)
        object.__setattr__(self, "times_s", times_s)
        object.__setattr__(self, "rates_bps", rates_bps)
        if (
            len(times_s) != len(rates_bps) + 1
            or times_s[0] != 0
            or (np.diff(times_s) <= 0).any()
        ):
            raise UsageError(
                "a curve's times must ascend from 0 and be one more than its rates (not "
                f"{len(times_s)} from {times_s[:1]} on for {len(rates_bps)}): give the edges"
            )
        if not (np.isfinite(rates_bps).all() and (rates_bps >= 0).all() and rates_bps.any()):
            raise UsageError(
                "a curve's rates must be finite, 0 or more, and not all 0: correct the trace"
            )
        bits = np.concatenate([[0.0], np.cumsum(rates_bps * np.diff(times_s))])
        object.__setattr__(self, "_bits", bits)

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1])

    def bits_until(self, moments_s: Floats | float) -> Floats:
        """Return what the link can have carried from time 0 up to each moment."""
        since_s = np.asarray(moments_s, dtype=np.float64) - self.origin_s
        rounds, inside_s = np.divmod(since_s, self.duration_s)
        bits: Floats = self.__dict__["_bits"]
        carried: Floats = rounds * bits[-1] + np.interp(inside_s, self.times_s, bits)
        return carried

    def finish_s(self, starts_s: Floats | float, bits: Floats | float) -> Floats:
        """The moments at which `bits` that start at `starts_s` are through, entry by entry."""
        starts_s = np.asarray(starts_s, dtype=np.float64)
        carried: Floats = self.__dict__["_bits"]
        goal = self.bits_until(starts_s) + bits
        # The last round is one that ends with the last bit or after it, never at its start.
        rounds = np.ceil(goal / carried[-1]) - 1
        inside = (goal - rounds * carried[-1]).clip(0.0, carried[-1])
        index = carried.searchsorted(inside).clip(1, len(self.rates_bps))
        # Searching from the left never ends on a piece that carries nothing, save for 0 bits.
        rate = np.maximum(self.rates_bps[index - 1], 1e-300)
        left_s = (carried[index] - inside) / rate
        moments_s = self.origin_s + rounds * self.duration_s + self.times_s[index] - left_s
        return np.where(np.asarray(bits) > 0, np.maximum(moments_s, starts_s), starts_s)


@final
@dataclass(frozen=True, slots=True)
class Oracle:
    """Per request the placement that ends first on the true uplink, which `curve` tells.

    Delay, downlink, queue and the devices' speed it knows as well as its belief does.
    """

    menu: Menu
    belief: LinkBelief
    curve: Curve

    @property
    def name(self) -> str:
        return "oracle"

    def learn(self, evidence: Evidence) -> Oracle:
        """The same policy with a better belief of all but the uplink."""
        return replace(
            self, belief=self.belief.observe(evidence, self.menu.placement_of(evidence))
        )

    def decide(self, situation: Situation) -> Decision:
        """Choose what will have been the fastest; edge-only while the link is not well."""
        menu, belief = self.menu.at(situation.sizes), self.belief.at(situation.now_s)
        met = belief.conditions(situation.backlog_nbytes)
        if situation.link != "connected" and menu.edge_only is not None:
            return Decision(menu.edge_only, None, menu.estimate(menu.edge_only, met))
        ready_s = situation.now_s + (menu.heads_s + menu.encodes_s) * met.head_scale
        gone = self.curve.bits_until(ready_s) - self.curve.bits_until(situation.now_s)
        backlog = np.maximum(8.0 * situation.backlog_nbytes - gone, 0.0)
        ends_s = self.curve.finish_s(ready_s, menu.payload_bits + backlog)
        serial_s = (ends_s - ready_s) * menu.remote
        index = int((menu.totals_s(replace(met, uplink_bps=inf)) + serial_s).argmin())
        uplink_s = float(serial_s[index]) + met.delay_s / 2 * menu.placements[index].remote
        return Decision(index, None, replace(menu.estimate(index, met), uplink_s=uplink_s))
