"""The seven stages of one request's time, predicted and measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds that one request spends in each stage, in the order in which it passes them.

    `head_s` runs the first segments on the edge, `encode_s` makes the payload, `uplink_s`
    carries it (serialisation, half the round trip, half the fixed cost), `queue_s` waits for
    the cloud, `decode_s` reads the payload, `tail_s` runs the remaining segments, and
    `downlink_s` brings the reply. A stage that does not happen takes 0.0.
    """

    head_s: float = 0.0
    encode_s: float = 0.0
    uplink_s: float = 0.0
    queue_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0
    downlink_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The request's latency: the stages follow each other."""
        return (
            self.head_s
            + self.encode_s
            + self.uplink_s
            + self.queue_s
            + self.decode_s
            + self.tail_s
            + self.downlink_s
        )

    def to_dict(self) -> dict[str, float]:
        """The seven fields and `total_s`, for JSON."""
        return {**{name: getattr(self, name) for name in FIELDS}, "total_s": self.total_s}


#: The names of the seven stages, in order.
FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Stages))


@final
@dataclass(frozen=True, slots=True)
class Timings(Stages):
    """The stages of one request as a session measured them."""


@final
@dataclass(frozen=True, slots=True)
class Estimate(Stages):
    """The stages of one request as a planner or a policy predicts them."""
