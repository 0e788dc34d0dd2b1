"""One partition under a name, ready to run: what a request has to bring, and what it gets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from midstream_cloud.estimates import Points, points_of
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.feed_terms import terms_of
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.transform import expansion, is_packing
from midstream_partitioner.scratch import Scratch
from midstream_wire.codecs import usable
from midstream_wire.codecs.plugins import loaded_names
from midstream_wire.codecs.private import NO_PRIVATE_CODES, PrivateCodes
from midstream_wire.descriptions import (
    CutDescription,
    ModelDescription,
    TransformDescription,
)
from midstream_wire.errors import ProtocolError, TensorError, UsageError
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
    #: For each first segment what its tail took once, where no profile tells (`tails_timed`).
    timed: tuple[Points, ...] = field(default=(), repr=False)
    #: Where the files of a partition made on request lie, for as long as they may be read.
    scratch: Scratch | None = field(default=None, repr=False)
    _returns: tuple[tuple[TensorSpec, ...], ...] = field(init=False, repr=False)
    _points: dict[tuple[int, str], Points] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.partition.segments)
        returns = tuple(map(self.partition.outputs_from, range(count)))
        object.__setattr__(self, "_returns", returns)
        points = {
            (k, transform): self._points_of(k, transform)
            for k in range(count)
            for transform in ("", *self.partition.transforms_at(k))
        }
        object.__setattr__(self, "_points", points)

    def assemble(
        self,
        first_segment: int,
        names: Sequence[str],
        *,
        transform: str = "",
        max_nbytes: int,
        codes: PrivateCodes = NO_PRIVATE_CODES,
    ) -> Incoming:
        """Return what a request for the segments from `first_segment` on has to bring, not
        decoded.

        `max_nbytes` bounds the decoded tensors, and what a transform makes of them. `codes`
        says what private codes stand for.
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
        return Incoming(
            names, specs, max_nbytes=max_nbytes, borrow=True, defer=True, codes=codes
        )

    def growth(self, first_segment: int, transform: str) -> float:
        """Return how many times larger a transform's inverse makes what came, at least 1."""
        if not transform:
            return 1.0
        crossing = self.partition.crossing(first_segment)
        pairs = zip(crossing, self.partition.travelling(first_segment, transform), strict=True)
        return max((1.0, *(expansion(*pair) for pair in pairs)))

    def tail_points(self, first_segment: int, transform: str = "") -> Points:
        """Return what tails took that begin at a cut, by the bytes there without a transform.

        Undoing the transform is part of it, where the profile knows what that takes.
        """
        return self._points[first_segment, transform]

    def crossing_nbytes(self, first_segment: int, transform: str, nbytes: int) -> int:
        """Return the bytes at a cut once a transform is undone, of `nbytes` that travelled.

        They are exact where the cut has no open dimensions, and else in proportion. How many
        a prior has packed there is only known once it has decoded: it is `nbytes` until then.
        """
        if not transform:
            return nbytes
        crossing = self.partition.crossing(first_segment)
        whole = sum(spec.nominal_nbytes for spec in crossing)
        if all(isinstance(size, int) for spec in crossing for size in spec.shape):
            return whole
        if is_packing(transform):
            return nbytes
        travelling = self.partition.travelling(first_segment, transform)
        return nbytes * whole // max(1, sum(spec.nominal_nbytes for spec in travelling))

    @property
    def longest_tail_s(self) -> float:
        """Return the longest time that was measured of any tail; 0 if none was."""
        points = self._points.values()
        return max((seconds for each in points for _, seconds in each), default=0.0)

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
            codecs=usable(),
            profile=self.profile.to_json(compact=True) if self.profile else "",
            feed=terms_of(partition.feed, partition.inputs),
            own_codecs=loaded_names(),
        )

    def _points_of(self, k: int, transform: str) -> Points:
        if self.profile is None:
            return self.timed[k] if self.timed else ()
        return points_of(self.profile, k, cut=self.partition.cuts[k].id, transform=transform)


def time_tails(chain: Chain) -> tuple[Points, ...]:
    """Run `chain` twice on random inputs; return what the tail from each segment on took.

    The first run of a segment takes two to four times as long as the others, so the second
    one is timed.
    """
    part = chain.partition
    (inputs,) = read_inputs(part.feed, part.inputs, None, count=1, seed=0)
    chain.run(inputs, 0, chain.last)
    nbytes, took_s, state = list[int](), list[float](), dict(inputs)
    for k in range(chain.last):
        crossing = part.cuts[k].tensors
        nbytes.append(sum(state[name].nbytes for name in crossing))
        began_s = time.perf_counter()
        state = chain.run({name: state[name] for name in crossing}, k, k + 1)
        took_s.append(time.perf_counter() - began_s)
    return tuple(((size, sum(took_s[k:])),) for k, size in enumerate(nbytes))


def tails_timed(chain: Chain) -> tuple[Points, ...]:
    """Return the same, or nothing of a network that refuses random inputs."""
    try:
        return time_tails(chain)
    except TensorError:
        return ()
