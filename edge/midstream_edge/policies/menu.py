"""The menu of a policy: the placements that can win somewhere, with their costs.

Where a network leaves dimensions open, a menu has the same placements at all sizes of them, in
the same order, and `at` gives what they take at those of one request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, log2
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_edge.policies.interface import Evidence
from midstream_partitioner.codec_spec import has_transform
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.graph.cuts import CLOUD_ONLY
from midstream_partitioner.planning.placements import (
    SIMPLE_PIPELINE,
    Pipeline,
    Placement,
)
from midstream_partitioner.planning.planner import Planner
from midstream_wire.errors import UsageError

Floats = NDArray[np.float64]

#: Seconds of a placement that is not allowed at the sizes of a request: longer than anything,
#: and finite, so that no arithmetic gives a NaN.
NEVER_S = 1e9
#: Sizes from 2 to 2 ** (1 / STEPS) times 2 apart are priced as one: costs differ by 2 %.
STEPS = 32
#: Menus that are kept, and exact sizes of which it is known which menu they have.
MOST_MENUS, MOST_SIZES = 256, 4096


@final
@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a request: link, queue, and devices against their profiles.

    `delay_s` is the time of an empty exchange, software included. `head_scale` and
    `tail_scale` are how much slower edge and cloud are than when they were profiled.
    """

    uplink_bps: float
    downlink_bps: float
    delay_s: float
    queue_s: float = 0.0
    head_scale: float = 1.0
    tail_scale: float = 1.0
    backlog_nbytes: int = 0


@final
@dataclass(frozen=True, eq=False)
class Menu:
    """The placements, by k and then in the planner's order; the same as columns of an array.

    `edge_only` is the index of the placement that needs no link, None where the edge does not
    hold all segments. `objective` is the planner's: "latency", "energy" or "throughput".
    `pipeline` says how many requests each stage works on at a time.
    """

    placements: tuple[Placement, ...]
    objective: str = "latency"
    pipeline: Pipeline = SIMPLE_PIPELINE
    menus: Menus | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.placements:
            raise UsageError(
                "a menu must hold at least one placement (not none): loosen the constraints"
            )

    @classmethod
    def of(cls, planner: Planner, *, complete: bool, policies: Iterable[str] = ()) -> Menu:
        """Return what `planner` allows, less what another placement beats whatever happens.

        `complete` says whether the edge holds all segments: only then is there edge-only, and
        a rest to run locally. Edge-only, the raw input and every placement that one of
        `policies` names ("fixed:CUT:CODEC") stay, beaten or not.
        """
        named = {part for text in policies for part in text.split(":", 1)[1:]}
        planners = [planner, *map(planner.at, planner.buckets)]
        kept: dict[Key, Placement] = {}
        for each in planners:
            held = _held(each.allowed, complete)
            for index, placement in enumerate(held):
                if _is_asked_for(placement, named) or not _is_beaten(index, held):
                    kept.setdefault(_key(placement), placement)
        if not planner.sizes:
            return cls(tuple(kept.values()), planner.objective, planner.pipeline)
        kept = dict(sorted(kept.items(), key=lambda item: item[1].k))
        few = planner.only(kept)
        menus = Menus(lambda sizes: few.at(sizes).allowed, kept, complete=complete)
        placements = menus.priced(planner.sizes)
        return cls(placements, planner.objective, planner.pipeline, menus)

    def at(self, sizes: Sizes) -> Menu:
        """The same placements for inputs whose open dimensions have `sizes`; () says nothing.

        Sizes close together are priced as one. A placement that is not allowed there takes
        `NEVER_S`.
        """
        return self if self.menus is None or not sizes else self.menus.at(sizes, self)

    def placement_of(self, evidence: Evidence) -> Placement | None:
        """The placement that `evidence` is of, as it was priced for that request."""
        if evidence.placement is None:
            return None
        return self.at(evidence.sizes).placements[evidence.placement]

    def __len__(self) -> int:
        return len(self.placements)

    @cached_property
    def edge_only(self) -> int | None:
        remote = [placement.remote for placement in self.placements]
        return remote.index(False) if False in remote else None

    @property
    def edge_only_s(self) -> float | None:
        """Return what the whole network takes on the edge, by its profile."""
        return None if self.edge_only is None else self.placements[self.edge_only].head_s

    def find(self, cut: str, codec: str | None = None) -> int:
        """Return the first placement at `cut` (an id or a label), with `codec` if given.

        "jpeg" finds "jpeg:90". Raises `UsageError`, naming what there is.
        """
        for index, placement in enumerate(self.placements):
            if cut in _cuts_told(placement) and _is_codec(placement.codec, codec):
                return index
        asked = cut if codec is None else f"{cut}:{codec}"
        names = ", ".join(_name(placement) for placement in self.placements)
        raise UsageError(
            f"a policy must name a placement of the menu (not {asked!r}): choose from {names}"
        )

    def estimate(self, index: int, met: Conditions) -> Estimate:
        """The seven times that placement `index` takes under `met`."""
        placement = self.placements[index]
        head_s = placement.head_s * met.head_scale
        if not placement.remote:
            return Estimate(head_s=head_s)
        one_way_s = met.delay_s / 2
        sent_nbytes = placement.payload_nbytes + met.backlog_nbytes
        return Estimate(
            head_s,
            placement.encode_s * met.head_scale,
            sent_nbytes * 8 / met.uplink_bps + one_way_s,
            met.queue_s,
            placement.decode_s * met.tail_scale,
            placement.tail_s * met.tail_scale,
            placement.reply_nbytes * 8 / met.downlink_bps + one_way_s,
        )

    def totals_s(self, met: Conditions) -> Floats:
        """[n] latencies of all placements under `met`."""
        return self.heads_s * met.head_scale + self.waits_s(met)

    def waits_s(self, met: Conditions) -> Floats:
        """[n] seconds from the activation to the cloud's answer; 0 for edge-only."""
        waits_s: Floats = (
            self.encodes_s * met.head_scale
            + self.serves_s * met.tail_scale
            + (self.payload_bits + 8.0 * met.backlog_nbytes) / met.uplink_bps
            + self.reply_bits / met.downlink_bps
            + (met.delay_s + met.queue_s)
        ) * self.remote
        return waits_s

    @cached_property
    def remote(self) -> Floats:
        """[n] 1.0 where the cloud is needed, else 0.0."""
        return self._column([float(placement.remote) for placement in self.placements])

    @cached_property
    def heads_s(self) -> Floats:
        return self._column([placement.head_s for placement in self.placements])

    @cached_property
    def encodes_s(self) -> Floats:
        return self._column([placement.encode_s for placement in self.placements])

    @cached_property
    def decodes_s(self) -> Floats:
        return self._column([placement.decode_s for placement in self.placements])

    @cached_property
    def tails_s(self) -> Floats:
        return self._column([placement.tail_s for placement in self.placements])

    @cached_property
    def transforms(self) -> NDArray[np.bool_]:
        """[n] whether a transform runs before the codec."""
        return np.array([has_transform(placement.codec) for placement in self.placements])

    @cached_property
    def serves_s(self) -> Floats:
        """[n] what the cloud does: decoding and the tail."""
        return self.decodes_s + self.tails_s

    @cached_property
    def rests_s(self) -> Floats:
        """[n] what is left to do on the edge; infinite where it cannot."""
        rests = [
            inf if placement.rest_s is None else placement.rest_s
            for placement in self.placements
        ]
        return self._column(rests)

    @cached_property
    def payload_bits(self) -> Floats:
        return self._column([8.0 * placement.payload_nbytes for placement in self.placements])

    @cached_property
    def reply_bits(self) -> Floats:
        return self._column([8.0 * placement.reply_nbytes for placement in self.placements])

    def _column(self, values: Sequence[float]) -> Floats:
        column = np.array(values, dtype=np.float64)
        column.flags.writeable = False
        return column


@final
class Menus:
    """The menus of a session by the sizes of its requests, made when first asked for.

    `allowed` gives what is allowed at some sizes, `placements` is what any menu has, as some
    size has it.
    """

    def __init__(
        self,
        allowed: Callable[[Sizes], Sequence[Placement]],
        placements: Mapping[Key, Placement],
        *,
        complete: bool,
    ) -> None:
        self._allowed = allowed
        self._placements = placements
        self._complete = complete
        self._lock = threading.Lock()
        self._by_bucket: dict[Sizes, Menu] = {}
        self._by_sizes: dict[Sizes, Menu] = {}

    def at(self, sizes: Sizes, like: Menu) -> Menu:
        """The menu at `sizes`, in all else as `like`."""
        found = self._by_sizes.get(sizes)
        if found is None:
            with self._lock:
                found = self._find(_bucket(sizes), like)
                if len(self._by_sizes) >= MOST_SIZES:
                    self._by_sizes.clear()
                self._by_sizes[sizes] = found
        return found

    def _find(self, bucket: Sizes, like: Menu) -> Menu:
        if bucket not in self._by_bucket:
            if len(self._by_bucket) >= MOST_MENUS:
                del self._by_bucket[next(iter(self._by_bucket))]
            self._by_bucket[bucket] = replace(like, placements=self.priced(bucket))
        return self._by_bucket[bucket]

    def priced(self, sizes: Sizes) -> tuple[Placement, ...]:
        """All placements as they are at just these sizes."""
        priced = {_key(each): each for each in _held(self._allowed(sizes), self._complete)}
        barred = {
            key: replace(placement, encode_s=NEVER_S)
            if placement.remote
            else replace(placement, head_s=NEVER_S)
            for key, placement in self._placements.items()
            if key not in priced
        }
        return tuple((priced | barred)[key] for key in self._placements)


def _bucket(sizes: Sizes) -> Sizes:
    """The sizes that stand for `sizes` and all that are close to them."""
    return tuple(
        (name, size if size <= STEPS else round(2 ** (round(STEPS * log2(size)) / STEPS)))
        for name, size in sizes
    )


#: What names a placement on every menu of a session: cut and codec.
Key = tuple[str, str]


def _key(placement: Placement) -> Key:
    return placement.cut, placement.codec


def _held(allowed: Sequence[Placement], complete: bool) -> list[Placement]:
    """Return what an edge can do that holds all segments (`complete`), or some of them."""
    if complete:
        return list(allowed)
    return [replace(each, rest_s=None) for each in allowed if each.remote]


def _name(placement: Placement) -> str:
    return f"{placement.cut}:{placement.codec}" if placement.remote else placement.cut


def _is_codec(codec: str, asked: str | None) -> bool:
    return asked is None or codec == asked or codec.startswith(f"{asked}:")


def _is_asked_for(placement: Placement, named: set[str]) -> bool:
    cut, codec = placement.cut, placement.codec
    if not placement.remote or (cut == CLOUD_ONLY and codec == "raw"):
        return True
    if cut == CLOUD_ONLY and any(_is_codec(codec, name) for name in named):
        return True
    return any(f"{each}:{codec}" in named for each in _cuts_told(placement))


def _cuts_told(placement: Placement) -> tuple[str, str, str]:
    """Return what people call the cut: its id, its label, or the label of the placement."""
    label = placement.label
    return placement.cut, label.removesuffix(f" with {placement.codec}"), label


def _is_beaten(index: int, placements: Sequence[Placement]) -> bool:
    """Return True if another is at least as good at every bandwidth, delay, queue and load.

    Latencies are lines in the reciprocals of both rates, so it is enough to compare what does
    not depend on the link, and the bytes; the edge's share is compared as well, since energy,
    load and a slower edge count by it. Of equals the first one stays.
    """
    mine = _burdens(placements[index])
    for other_index, other in enumerate(placements):
        theirs = _burdens(other)
        if all(a <= b for a, b in zip(theirs, mine, strict=True)) and (
            theirs != mine or other_index < index
        ):
            return True
    return False


def _burdens(placement: Placement) -> tuple[float, ...]:
    busy_s = placement.head_s + placement.encode_s
    return (
        float(placement.remote),
        busy_s,
        busy_s + placement.decode_s + placement.tail_s,
        float(placement.payload_nbytes),
        float(placement.reply_nbytes),
    )
