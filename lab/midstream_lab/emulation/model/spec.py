"""The wanted link, as a value: rates, delay, jitter, loss, queue, congestion control.

A rate counts every bit of an IP packet, headers included: TCP's goodput on it is at most
`GOODPUT_SHARE` of it. It is the same for every backend, also for the proxy, which only sees
payload.
"""

from __future__ import annotations

import base64
import math
import operator
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol, final

from midstream_lab.traces.conditions import Condition
from midstream_wire.errors import UsageError

#: Bytes of an IP packet on the emulated link, as on Ethernet.
MTU_NBYTES = 1500
#: IPv4 takes 20, TCP 20, and TCP's timestamps (RFC 7323) 12.
TCP_HEADERS_NBYTES = 52
GOODPUT_SHARE = (MTU_NBYTES - TCP_HEADERS_NBYTES) / MTU_NBYTES
#: 2 s at 1 Mbit/s and 20 ms at 100 Mbit/s: a fixed number of bytes, as in a real router.
QUEUE_NBYTES = 256 * 1024
#: A queue must hold a few packets, and less than a gigabyte of this machine's memory.
QUEUE_BOUNDS = (2 * MTU_NBYTES, 1 << 30)
#: Slower, a packet takes minutes; faster, nobody here can follow.
RATE_BOUNDS_BPS = (100.0, 1e11)
LONGEST_DELAY_S = 60.0


class Varying(Protocol):
    """A rate that changes: n + 1 edges of n steps from 0 up, and n rates; it repeats.

    `midstream_lab.traces.Trace` is one.
    """

    @property
    def times_s(self) -> Iterable[float]: ...
    @property
    def rates_bps(self) -> Iterable[float]: ...


Rate = float | Varying


@final
@dataclass(frozen=True, slots=True)
class Loss:
    """Packets lost on the line, after they took their time on it.

    Two states (Gilbert 1960, Elliott 1963): each packet is lost with `good_share` or
    `bad_share`, and before it the state changes with `to_bad` or `to_good`. With `to_bad` 0,
    losses are independent. Raises `UsageError` for what is no probability.
    """

    good_share: float
    bad_share: float = 1.0
    to_bad: float = 0.0
    to_good: float = 1.0

    def __post_init__(self) -> None:
        for name in ("good_share", "bad_share", "to_bad", "to_good"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} of a loss must lie within 0 and 1 (not {value!r})")
        if self.to_bad > 0 and self.to_good == 0:
            raise UsageError("to_good of a loss must be above 0, or the link never gets well")

    @classmethod
    def random(cls, share: float) -> Loss:
        """Each packet is lost with this probability, whatever happened to the others."""
        return cls(share)

    @classmethod
    def bursts(cls, share: float, mean_packets: float) -> Loss:
        """Gilbert's model: on average `share` of all packets, in runs of `mean_packets`."""
        if not (mean_packets >= 1 and 0 <= share < mean_packets / (mean_packets + 1)):
            raise UsageError(
                "bursts must be one packet long or longer, and rarer than the packets between "
                f"them allow (not {share!r} of all packets in runs of {mean_packets!r})"
            )
        to_good = 1 / mean_packets
        return cls(0.0, 1.0, to_good * share / (1 - share), to_good)

    @property
    def mean_share(self) -> float:
        """The share of packets lost in the long run."""
        if self.to_bad == 0:
            return self.good_share
        bad = self.to_bad / (self.to_bad + self.to_good)
        return (1 - bad) * self.good_share + bad * self.bad_share


@final
@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One link, both directions. Raises `UsageError` for what no backend could emulate.

    `delay_s` is one way and the same both ways; jitter moves it by at most `jitter_s` to
    either side, without reordering. Loss strikes each direction on its own. `queue_nbytes`
    wait in front of the line, each way; what comes then is dropped. `congestion` names TCP's
    congestion control at both ends, None leaves the system's. What is drawn comes from `seed`.
    """

    uplink: Rate
    downlink: Rate
    delay_s: float
    jitter_s: float = 0.0
    loss: Loss | None = None
    queue_nbytes: int = QUEUE_NBYTES
    congestion: str | None = "cubic"
    seed: int = 0

    def __post_init__(self) -> None:
        for direction in ("uplink", "downlink"):
            _check_rate(direction, getattr(self, direction))
        if not 0 <= self.delay_s <= LONGEST_DELAY_S:
            raise UsageError(
                f"delay_s must lie within 0 and {LONGEST_DELAY_S:g} s (not {self.delay_s!r})"
            )
        if not 0 <= self.jitter_s <= self.delay_s:
            raise UsageError(
                f"jitter_s must lie within 0 and delay_s, {self.delay_s:g} s "
                f"(not {self.jitter_s!r})"
            )
        least, most = QUEUE_BOUNDS
        if not least <= self.queue_nbytes <= most:
            raise UsageError(
                f"queue_nbytes must lie within {least} and {most} (not {self.queue_nbytes!r})"
            )

    @classmethod
    def of(cls, condition: Condition, **others: Any) -> LinkSpec:
        """A link whose best goodput is that of a condition, which counts payload only."""
        return cls(
            uplink=condition.uplink_bps / GOODPUT_SHARE,
            downlink=condition.downlink_bps / GOODPUT_SHARE,
            delay_s=condition.rtt_s / 2,
            **others,
        )

    @property
    def rtt_s(self) -> float:
        return 2 * self.delay_s

    def to_document(self) -> dict[str, Any]:
        """Plain values for JSON; `from_document` reads them."""
        return {
            "uplink": _rate_document(self.uplink),
            "downlink": _rate_document(self.downlink),
            "delay_s": self.delay_s,
            "jitter_s": self.jitter_s,
            "loss": None if self.loss is None else asdict(self.loss),
            "queue_nbytes": self.queue_nbytes,
            "congestion": self.congestion,
            "seed": self.seed,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LinkSpec:
        """Raises `UsageError` for values out of range, as the constructor does."""
        loss = document["loss"]
        return cls(
            uplink=_rate_from(document["uplink"]),
            downlink=_rate_from(document["downlink"]),
            delay_s=document["delay_s"],
            jitter_s=document["jitter_s"],
            loss=None if loss is None else Loss(**loss),
            queue_nbytes=document["queue_nbytes"],
            congestion=document["congestion"],
            seed=document["seed"],
        )

    def describe(self) -> dict[str, Any]:
        """For people and reports: as `to_document`, with traces by name and mean."""
        described = self.to_document()
        for direction in ("uplink", "downlink"):
            rate = getattr(self, direction)
            if not isinstance(rate, float | int):
                name = str(getattr(rate, "name", "trace"))
                described[direction] = {"trace": name, "mean_bps": mean_bps(rate)}
        return described


@final
@dataclass(frozen=True, slots=True)
class Steps:
    """A `Varying` of plain arrays: what crosses the pipe to a backend's process."""

    times_s: array[float]
    rates_bps: array[float]
    name: str = "trace"


def mean_bps(rate: Rate) -> float:
    """The rate itself, or a trace's bits over its duration."""
    if isinstance(rate, float | int):
        return float(rate)
    times_s, rates_bps = list(map(float, rate.times_s)), list(map(float, rate.rates_bps))
    steps_s = (after - before for before, after in pairwise(times_s))
    bits: float = sum(map(operator.mul, steps_s, rates_bps))
    return bits / times_s[-1]


def _check_rate(direction: str, rate: Rate) -> None:
    least, most = RATE_BOUNDS_BPS
    if isinstance(rate, float | int):
        if not least <= rate <= most:
            raise UsageError(
                f"the {direction} must carry {least:g} to {most:g} bit/s (not {rate!r})"
            )
        return
    times_s, rates_bps = list(rate.times_s), list(rate.rates_bps)
    if len(times_s) != len(rates_bps) + 1 or times_s[0] != 0 or len(rates_bps) == 0:
        raise UsageError(
            f"a trace for the {direction} must have n + 1 edges from 0 up for its n rates "
            f"(not {len(times_s)} for {len(rates_bps)})"
        )
    if any(after <= before for before, after in pairwise(times_s)):
        raise UsageError(f"the times of the {direction}'s trace must rise")
    if not all(0 <= each <= most for each in rates_bps) or not math.isfinite(times_s[-1]):
        raise UsageError(
            f"the rates of the {direction}'s trace must lie within 0 and {most:g}"
        )
    if not mean_bps(rate) >= least:
        raise UsageError(
            f"the {direction}'s trace must carry {least:g} bit/s on average, or nothing passes"
        )


def _rate_document(rate: Rate) -> Any:
    """A trace of an hour has 36,000 steps; as numbers in JSON they would stall the link."""
    if isinstance(rate, float | int):
        return float(rate)
    return {
        "name": str(getattr(rate, "name", "trace")),
        "times_s": _packed(rate.times_s),
        "rates_bps": _packed(rate.rates_bps),
    }


def _rate_from(document: Any) -> Rate:
    if isinstance(document, float | int):
        return float(document)
    times_s, rates_bps = (_unpacked(document[key]) for key in ("times_s", "rates_bps"))
    return Steps(times_s, rates_bps, document["name"])


def _packed(values: Iterable[float]) -> str:
    return base64.b64encode(array("d", values).tobytes()).decode()


def _unpacked(text: str) -> array[float]:
    return array("d", base64.b64decode(text))
