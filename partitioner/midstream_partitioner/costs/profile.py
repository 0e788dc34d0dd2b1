"""Profiles of a device: times per layer and per segment, cost and size per codec.

A network with open dimensions is measured at one bucket of their sizes or at several; `curves`
tells what it takes at others.

Profiles are documents: JSON on disk and on the wire, checked when read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar, final

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass as checked_dataclass

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.size_spans import MAX_SIZE, MOST_BUCKETS
from midstream_partitioner.costs.sizes import Sizes
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

_T = TypeVar("_T")

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]

#: Bindings as they lie in a document: an object, sizes by name.
_Bindings = Annotated[
    tuple[tuple[str, Annotated[int, Field(ge=0, le=MAX_SIZE)]], ...],
    BeforeValidator(lambda value: sorted(value.items()) if isinstance(value, dict) else value),
    PlainSerializer(dict),
    Field(max_length=64),
]

_CONFIG = ConfigDict(extra="forbid", defer_build=True)


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class Stat:
    """A time over several runs: median, 10th and 90th percentile."""

    median_s: Seconds
    low_s: Seconds
    high_s: Seconds
    runs: Count

    def scaled(self, factor: float) -> Stat:
        """The same runs on a device `factor` times slower."""
        return Stat(
            self.median_s * factor, self.low_s * factor, self.high_s * factor, self.runs
        )

    @classmethod
    def of(cls, samples_s: Sequence[float]) -> Stat:
        low, median, high = np.percentile(samples_s, [10, 50, 90])
        return cls(float(median), float(low), float(high), len(samples_s))


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class CodecCost:
    """Sending what crosses `cut` with `codec`: bytes of payload, seconds on this device.

    `payload_nbytes` is the mean of `payloads_nbytes`, sample by sample, where these are known.
    """

    cut: str
    codec: str
    payload_nbytes: Count
    encode_s: Seconds
    decode_s: Seconds
    payloads_nbytes: tuple[Count, ...] = ()


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class Bucket:
    """The fields of `Profile` where the open dimensions have these `sizes`."""

    sizes: _Bindings
    segments: tuple[Stat, ...]
    codecs: tuple[CodecCost, ...]
    replies_nbytes: tuple[Count, ...]
    crossings_nbytes: tuple[Count, ...] = ()

    def only(self, placements: Collection[tuple[str, str]]) -> Bucket:
        """The same with no other costs than of these cuts and codecs."""
        kept = tuple(cost for cost in self.codecs if (cost.cut, cost.codec) in placements)
        return replace(self, codecs=kept)

    def grown(self, sizes: Sizes) -> tuple[CodecCost, ...]:
        """Return what its codecs may cost at other `sizes`, in proportion to all of them."""
        here = math.prod(max(size, 1) for _, size in self.sizes)
        ratio = math.prod(max(size, 1) for _, size in sizes) / here
        return tuple(
            replace(
                cost,
                payload_nbytes=round(ratio * cost.payload_nbytes),
                encode_s=ratio * cost.encode_s,
                decode_s=ratio * cost.decode_s,
                payloads_nbytes=tuple(round(ratio * each) for each in cost.payloads_nbytes),
            )
            for cost in self.codecs
        )

    def slowed(self, factor: float) -> Bucket:
        """The same on a device `factor` times slower."""
        return replace(
            self,
            segments=tuple(stat.scaled(factor) for stat in self.segments),
            codecs=tuple(
                replace(cost, encode_s=cost.encode_s * factor, decode_s=cost.decode_s * factor)
                for cost in self.codecs
            ),
        )


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class Profile:
    """Segments [0, len(segments)) of a partition as they really run on `device`.

    `replies_nbytes[k]` is the payload of the reply when the cloud runs segments [k, K), and
    `crossings_nbytes[k]` the most that what crosses cut k took before any codec, if known.
    `memory_nbytes[k]` is what holding and running segments [0, k) takes of the process's
    memory, at all sizes measured; empty if not weighed.
    All this is for inputs whose open dimensions have `sizes`, and in `others` for further
    sizes.
    """

    device: Device
    graph_digest: str
    partition_digest: str
    segments: tuple[Stat, ...]
    codecs: tuple[CodecCost, ...]
    replies_nbytes: tuple[Count, ...]
    crossings_nbytes: tuple[Count, ...] = ()
    memory_nbytes: tuple[Count, ...] = ()
    sizes: _Bindings = ()
    others: Annotated[tuple[Bucket, ...], Field(max_length=MOST_BUCKETS)] = ()
    kind: Literal["segments"] = "segments"

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """All that was measured, `sizes` first."""
        return (
            Bucket(
                self.sizes,
                self.segments,
                self.codecs,
                self.replies_nbytes,
                self.crossings_nbytes,
            ),
            *self.others,
        )

    def holding(self, first: Bucket, others: Sequence[Bucket] = ()) -> Profile:
        """The same device and partition with other measurements."""
        return replace(
            self,
            segments=first.segments,
            codecs=first.codecs,
            replies_nbytes=first.replies_nbytes,
            crossings_nbytes=first.crossings_nbytes,
            sizes=first.sizes,
            others=tuple(others),
        )

    def fitting(self, within_nbytes: int, weights_nbytes: Sequence[int]) -> int:
        """The most segments that take at most so much memory: as measured, else by weights.

        `weights_nbytes[k]` are the weights of segments [0, k) in files.
        """
        taken = self.memory_nbytes or weights_nbytes
        return max((k for k, nbytes in enumerate(taken) if nbytes <= within_nbytes), default=0)

    def segments_s(self, first: int, last: int) -> float:
        """Seconds for segments [first, last): the sum of their medians."""
        return sum(stat.median_s for stat in self.segments[first:last])

    def only(self, placements: Collection[tuple[str, str]]) -> Profile:
        """The same with no other costs than of these cuts and codecs."""
        first, *others = (bucket.only(placements) for bucket in self.buckets)
        return self.holding(first, others)

    def slowed(self, factor: float) -> Profile:
        """The profile of an emulated device, `factor` times slower than this one."""
        first, *others = (bucket.slowed(factor) for bucket in self.buckets)
        device = replace(self.device, slowdown=self.device.slowdown * factor)
        return replace(self.holding(first, others), device=device)

    def serving(self, workers: int) -> Profile:
        """The profile of the same device that runs so many tails at once."""
        return replace(self, device=self.device.serving(workers))

    def to_json(self, *, compact: bool = False) -> str:
        """A document for people, or without spaces for the wire."""
        return _PROFILE.dump_json(self, indent=None if compact else 1).decode()

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "the profile") -> Profile:
        """Parse what `to_json` wrote; `UsageError` naming the first wrong field."""
        return _parse(_PROFILE, text, source)


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class Layer:
    """One node of the graph: its time, or 0 where it runs as part of the node `fused_into`."""

    name: str
    op_type: str
    time: Stat
    fused_into: str | None = None


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class LayerProfile:
    """Every node of a graph on `device`; the layers' medians add up to that of the whole."""

    device: Device
    graph_digest: str
    layers: tuple[Layer, ...]
    whole: Stat
    kind: Literal["layers"] = "layers"

    @property
    def seconds(self) -> tuple[float, ...]:
        """Median seconds by node index."""
        return tuple(layer.time.median_s for layer in self.layers)

    def to_json(self) -> str:
        return _LAYERS.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "the profile") -> LayerProfile:
        """Parse what `to_json` wrote; `UsageError` naming the first wrong field."""
        return _parse(_LAYERS, text, source)


def load_profile(path: Path) -> Profile:
    """Return the profile in the file at `path`; `UsageError` if there is none."""
    return Profile.from_json(read_text(path, "a profile"), source=str(path))


def _parse(adapter: TypeAdapter[_T], text: str | bytes, source: str) -> _T:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        raise UsageError(
            f"{source} must be a profile as `midstream profile --json` writes it; {field}: "
            f"{first['msg'].lower()}: measure it again"
        ) from None


_PROFILE = TypeAdapter(Profile)
_LAYERS = TypeAdapter(LayerProfile)
