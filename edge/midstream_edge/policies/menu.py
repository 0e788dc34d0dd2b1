"""What a policy chooses from: the placements that can win somewhere, and what each takes.

Where a network leaves dimensions open, a menu has the same options at all sizes of them, in
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

from midstream_edge.policies.interface import Evidence, Option
from midstream_partitioner.codec_spec import has_transform
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.graph.cuts import CLOUD_ONLY
from midstream_partitioner.planning.placements import SIMPLE_PIPELINE, Offer, Pipeline
from midstream_partitioner.planning.plan import Planner
from midstream_wire.errors import UsageError

Floats = NDArray[np.float64]

#: Seconds of an option that is not allowed at the sizes of a request: longer than anything,
#: and finite, so that no arithmetic gives a NaN.
NEVER_S = 1e9
#: Sizes from 2 to 2 ** (1 / STEPS) times 2 apart are priced as one: costs differ by 2 %.
STEPS = 32
#: Menus that are kept, and exact sizes of which it is known which menu they have.
MOST_MENUS, MOST_SIZES = 256, 4096


@final
@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request meets: the link, the queue, and the devices against their profiles.

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
    """The options, by k and then as they were offered, and the same as columns of an array.

    `edge_only` is the index of the placement that needs no link, None where the edge does not
    hold all segments. `objective` is the planner's: "latency", "energy" or "throughput".
    `pipeline` says how many requests each stage works on at a time.
    """

    options: tuple[Option, ...]
    objective: str = "latency"
    pipeline: Pipeline = SIMPLE_PIPELINE
    menus: Menus | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.options:
            raise UsageError(
                "a menu must hold at least one option (not none): loosen the constraints"
            )

    @classmethod
    def of(cls, planner: Planner, *, complete: bool, policies: Iterable[str] = ()) -> Menu:
        """Return what `planner` allows, less what another option beats whatever happens.

        `complete` says whether the edge holds all segments: only then is there edge-only, and
        a rest to run locally. Edge-only, the raw input and every option that one of `policies`
        names ("fixed:CUT:CODEC") stay, beaten or not.
        """
        named = {part for text in policies for part in text.split(":", 1)[1:]}
        planners = [planner, *map(planner.at, planner.buckets)]
        kept: dict[Key, Option] = {}
        for each in planners:
            allowed = _allowed(each, complete=complete)
            found = _options(allowed)
            for index, offer in enumerate(allowed):
                if _is_asked_for(offer, named) or not _is_beaten(index, allowed):
                    kept.setdefault(_key(offer), found[_key(offer)])
        if not planner.sizes:
            return cls(tuple(kept.values()), planner.objective, planner.pipeline)
        kept = dict(sorted(kept.items(), key=lambda item: item[1].k))
        few = planner.only(kept)
        menus = Menus(lambda sizes: few.at(sizes).allowed, kept, complete=complete)
        options = menus.priced(planner.sizes)
        return cls(options, planner.objective, planner.pipeline, menus)

    def at(self, sizes: Sizes) -> Menu:
        """The same options for inputs whose open dimensions have `sizes`; () says nothing.

        Sizes close together are priced as one. An option that is not allowed there takes
        `NEVER_S`.
        """
        return self if self.menus is None or not sizes else self.menus.at(sizes, self)

    def option_of(self, evidence: Evidence) -> Option | None:
        """The option that `evidence` is of, as it was priced for that request."""
        if evidence.option is None:
            return None
        return self.at(evidence.sizes).options[evidence.option]

    def __len__(self) -> int:
        return len(self.options)

    @cached_property
    def edge_only(self) -> int | None:
        remote = [option.remote for option in self.options]
        return remote.index(False) if False in remote else None

    @property
    def edge_only_s(self) -> float | None:
        """Return what the whole network takes on the edge, by its profile."""
        return None if self.edge_only is None else self.options[self.edge_only].head_s

    def find(self, cut: str, codec: str | None = None) -> int:
        """The option at `cut` (an id or a label) with `codec`, the first one if that is None.

        "jpeg" finds "jpeg:90". Raises `UsageError`, naming what there is.
        """
        for index, option in enumerate(self.options):
            if cut in (option.cut, option.label) and _is_codec(option.codec, codec):
                return index
        asked = cut if codec is None else f"{cut}:{codec}"
        names = ", ".join(_name(option) for option in self.options)
        raise UsageError(
            f"a policy must name an option of the menu (not {asked!r}): choose from {names}"
        )

    def estimate(self, index: int, met: Conditions) -> Estimate:
        """The seven times that option `index` takes under `met`."""
        option = self.options[index]
        head_s = option.head_s * met.head_scale
        if not option.remote:
            return Estimate(head_s=head_s)
        one_way_s = met.delay_s / 2
        sent_nbytes = option.payload_nbytes + met.backlog_nbytes
        return Estimate(
            head_s,
            option.encode_s * met.head_scale,
            sent_nbytes * 8 / met.uplink_bps + one_way_s,
            met.queue_s,
            option.decode_s * met.tail_scale,
            option.tail_s * met.tail_scale,
            option.reply_nbytes * 8 / met.downlink_bps + one_way_s,
        )

    def totals_s(self, met: Conditions) -> Floats:
        """[n] latencies of all options under `met`."""
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
        return self._column([float(option.remote) for option in self.options])

    @cached_property
    def heads_s(self) -> Floats:
        return self._column([option.head_s for option in self.options])

    @cached_property
    def encodes_s(self) -> Floats:
        return self._column([option.encode_s for option in self.options])

    @cached_property
    def decodes_s(self) -> Floats:
        return self._column([option.decode_s for option in self.options])

    @cached_property
    def tails_s(self) -> Floats:
        return self._column([option.tail_s for option in self.options])

    @cached_property
    def transforms(self) -> NDArray[np.bool_]:
        """[n] whether a transform runs before the codec."""
        return np.array([has_transform(option.codec) for option in self.options])

    @cached_property
    def serves_s(self) -> Floats:
        """[n] what the cloud does: decoding and the tail."""
        return self.decodes_s + self.tails_s

    @cached_property
    def rests_s(self) -> Floats:
        """[n] what is left to do on the edge; infinite where it cannot."""
        rests = [inf if option.rest_s is None else option.rest_s for option in self.options]
        return self._column(rests)

    @cached_property
    def payload_bits(self) -> Floats:
        return self._column([8.0 * option.payload_nbytes for option in self.options])

    @cached_property
    def reply_bits(self) -> Floats:
        return self._column([8.0 * option.reply_nbytes for option in self.options])

    def _column(self, values: Sequence[float]) -> Floats:
        column = np.array(values, dtype=np.float64)
        column.flags.writeable = False
        return column


@final
class Menus:
    """The menus of a session by the sizes of its requests, made when first asked for.

    `allowed` gives what may be offered at some sizes, `options` is what any menu has, as some
    size has it.
    """

    def __init__(
        self,
        allowed: Callable[[Sizes], Sequence[Offer]],
        options: Mapping[Key, Option],
        *,
        complete: bool,
    ) -> None:
        self._allowed = allowed
        self._options = options
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
            self._by_bucket[bucket] = replace(like, options=self.priced(bucket))
        return self._by_bucket[bucket]

    def priced(self, sizes: Sizes) -> tuple[Option, ...]:
        """All options as they are at just these sizes."""
        offers = [each for each in self._allowed(sizes) if each.remote or self._complete]
        priced = _options([each for each in offers if _key(each) in self._options])
        barred = {
            key: replace(option, encode_s=NEVER_S)
            if option.remote
            else replace(option, head_s=NEVER_S)
            for key, option in self._options.items()
            if key not in priced
        }
        return tuple((priced | barred)[key] for key in self._options)


def _bucket(sizes: Sizes) -> Sizes:
    """The sizes that stand for `sizes` and all that are close to them."""
    return tuple(
        (name, size if size <= STEPS else round(2 ** (round(STEPS * log2(size)) / STEPS)))
        for name, size in sizes
    )


#: What names an option on every menu of a session: cut and codec.
Key = tuple[str, str]


def _key(offer: Offer) -> Key:
    return offer.cut.id, offer.codec


def _allowed(planner: Planner, *, complete: bool) -> list[Offer]:
    return [offer for offer in planner.allowed if offer.remote or complete]


def _options(offers: Sequence[Offer]) -> dict[Key, Option]:
    whole = next((offer for offer in offers if not offer.remote), None)
    return {_key(offer): _option(offer, whole) for offer in offers}


def _option(offer: Offer, whole: Offer | None) -> Option:
    rest_s = None if whole is None else max(0.0, whole.head_s - offer.head_s)
    return Option(
        cut=offer.cut.id,
        codec=offer.codec,
        k=offer.k,
        label=offer.label,
        remote=offer.remote,
        head_s=offer.head_s,
        encode_s=offer.encode_s,
        decode_s=offer.decode_s,
        tail_s=offer.tail_s,
        payload_nbytes=offer.payload_nbytes,
        reply_nbytes=offer.reply_nbytes,
        rest_s=rest_s,
        payloads_nbytes=offer.payloads_nbytes,
    )


def _name(option: Option) -> str:
    return f"{option.cut}:{option.codec}" if option.remote else option.cut


def _is_codec(codec: str, asked: str | None) -> bool:
    return asked is None or codec == asked or codec.startswith(f"{asked}:")


def _is_asked_for(offer: Offer, named: set[str]) -> bool:
    if not offer.remote or (offer.cut.id == CLOUD_ONLY and offer.codec == "raw"):
        return True
    if offer.cut.id == CLOUD_ONLY and any(_is_codec(offer.codec, name) for name in named):
        return True
    names = {f"{cut}:{offer.codec}" for cut in (offer.cut.id, offer.cut.label)}
    return bool(names & named)


def _is_beaten(index: int, offers: Sequence[Offer]) -> bool:
    """Return True if another is at least as good at every bandwidth, delay, queue and load.

    Latencies are lines in the reciprocals of both rates, so it is enough to compare what does
    not depend on the link, and the bytes; the edge's share is compared as well, since energy,
    load and a slower edge count by it. Of equals the first one stays.
    """
    mine = _burdens(offers[index])
    for other_index, other in enumerate(offers):
        theirs = _burdens(other)
        if all(a <= b for a, b in zip(theirs, mine, strict=True)) and (
            theirs != mine or other_index < index
        ):
            return True
    return False


def _burdens(offer: Offer) -> tuple[float, ...]:
    busy_s = offer.head_s + offer.encode_s
    return (
        float(offer.remote),
        busy_s,
        busy_s + offer.decode_s + offer.tail_s,
        float(offer.payload_nbytes),
        float(offer.reply_nbytes),
    )
