"""One partition under a name, ready to run: what a request has to bring, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from midstream_cloud.estimates import Points, points_of
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.feed_terms import terms_of
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.transform import expansion
from midstream_partitioner.scratch import Scratch
from midstream_wire.codecs import CODECS
from midstream_wire.descriptions import (
    CutDescription,
    ModelDescription,
    TransformDescription,
)
from midstream_wire.errors import ProtocolError, UsageError
from midstream_wire.tensors import TensorSpec
from midstream_wire.transfers import Incoming


@final
@dataclass(frozen=True, slots=True)
class Model:
    """A partition under the name that edges ask for, ready to run."""

    name: str
    partition: Partition
    chain: Chain = field(repr=False)
    profile: Profile | None = None
    #: Where the files of a partition made on request lie, for as long as they may be read.
    scratch: Scratch | None = field(default=None, repr=False)
    _returns: tuple[tuple[TensorSpec, ...], ...] = field(init=False, repr=False)
    _points: tuple[Points, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.partition.segments)
        returns = tuple(map(self.partition.outputs_from, range(count)))
        object.__setattr__(self, "_returns", returns)
        told = self.profile
        points = ((() if told is None else points_of(told, k)) for k in range(count))
        object.__setattr__(self, "_points", tuple(points))

    def assemble(
        self, first_segment: int, names: Sequence[str], *, transform: str = "", max_nbytes: int
    ) -> Incoming:
        """Return what a request for the segments from `first_segment` on has to bring, not
        decoded.

        `max_nbytes` bounds the decoded tensors, and what a transform makes of them.
        """
        last = len(self.partition.segments) - 1
        if not 0 <= first_segment <= last:
            raise ProtocolError(
                f"first_segment must be 0 to {last} for {self.name!r} (not {first_segment}): "
                "cut the same partition on both sides"
            )
        try:
            specs = self.partition.travelling(first_segment, transform)
        except UsageError as error:
            raise ProtocolError(str(error)) from None
        max_nbytes = int(max_nbytes / self.growth(first_segment, transform))
        # Segments only read what they are given, at any alignment.
        return Incoming(names, specs, max_nbytes=max_nbytes, borrow=True, defer=True)

    def growth(self, first_segment: int, transform: str) -> float:
        """Return how many times larger a transform's inverse makes what came, at least 1."""
        if not transform:
            return 1.0
        crossing = self.partition.crossing(first_segment)
        pairs = zip(crossing, self.partition.travelling(first_segment, transform), strict=True)
        return max((1.0, *(expansion(*pair) for pair in pairs)))

    def tail_points(self, first_segment: int) -> Points:
        """Return what its profile says of tails of several sizes, or of one."""
        return self._points[first_segment]

    @property
    def longest_tail_s(self) -> float:
        """The longest that its profile measured of any tail; 0 without a profile."""
        return max((seconds for points in self._points for _, seconds in points), default=0.0)

    def returns(self, first_segment: int) -> tuple[TensorSpec, ...]:
        """Return what a reply to such a request carries."""
        return self._returns[first_segment]

    def describe(self) -> ModelDescription:
        """Return what an edge needs to know to cut its own copy alike."""
        partition = self.partition
        return ModelDescription(
            name=self.name,
            graph_digest=partition.graph_digest,
            partition_digest=partition.digest,
            cuts=tuple(
                CutDescription(
                    cut.id,
                    cut.runs,
                    partition.crossing(k),
                    tuple(
                        TransformDescription(name, partition.travelling(k, name))
                        for name in partition.transforms_at(k)
                    ),
                )
                for k, cut in enumerate(partition.cuts)
            ),
            codecs=CODECS,
            profile=self.profile.to_json(compact=True) if self.profile else "",
            feed=terms_of(partition.feed, partition.inputs),
        )
