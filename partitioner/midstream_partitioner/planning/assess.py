"""Assessment of all placements of a partition, by the profiles of both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import final

from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.profile import CodecCost, Profile
from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement
from midstream_wire.errors import UsageError
from midstream_wire.tensors import nbytes_of
from midstream_wire.transfers import obstacle

#: Sizes this close are one: a calibration's are told by its bits per element.
_SAME_SIZE = 1e-3


#: The codec of edge-only, where nothing is encoded: one that every session takes.
NO_CODEC = "raw"


@final
@dataclass(frozen=True, slots=True)
class Assessment:
    """A placement, and what a planner judges it by before there is a link.

    `edge_nbytes` is the memory that its segments take on the edge. `fidelity` is what a
    calibration says of this cut and codec. `obstacle` says why the protocol cannot carry it,
    if so. `encode_scale` is None where the edge measured the placement's `encode_s`, else how
    many times another device's time it is: the calibrating machine's. `decode_scale` likewise:
    the edge's, or the calibrating machine's.
    """

    placement: Placement
    cut: Cut
    edge_nbytes: int
    fidelity: Fidelity | None = None
    obstacle: str = ""
    encode_scale: float | None = None
    decode_scale: float | None = None

    @property
    def most_nbytes(self) -> int:
        """The payload of nearly every request: the 95th percentile, if that is known."""
        known_nbytes = 0 if self.fidelity is None else self.fidelity.payload_p95_nbytes
        return max(self.placement.payload_nbytes, known_nbytes)


def assess(
    partition: Partition,
    edge: Profile,
    cloud: Profile,
    calibration: Calibration | None = None,
) -> tuple[Assessment, ...]:
    """All placements of the segments that the edge's profile knows, by k.

    The edge's profile may cover a prefix of the segments, the cloud's must cover all. Codecs
    are those that the edge has measured and those that the calibration knows; what a device
    has not timed takes the calibrating machine's time, scaled. Payload sizes are the
    calibration's where it has them from data, else the edge's. Replies are the edge's
    measurement where it has all segments, for it measures what is asked of it; else the
    cloud's. Raises `UsageError` for profiles or a calibration of another partition.
    """
    _check(partition, edge, cloud, calibration)
    count, held = len(partition.segments), len(edge.segments)
    known = None if calibration is None or calibration.generated else calibration
    learnt = known.costs if known else ()
    encoding = _Times("encode_s", edge.codecs, [learnt])
    decoding = _Times("decode_s", cloud.codecs, [learnt, edge.codecs])
    index_of = {cut.id: k for k, cut in enumerate(partition.cuts)}
    bare = [_bare(partition, edge, cloud, k) for k in range(min(count, held) + 1)]
    found = [each for each in bare if each.obstacle or not each.placement.remote]
    for (cut, codec), cost in _by_placement([*learnt, *edge.codecs]).items():
        k, encode = index_of.get(cut, count), encoding.of(cut, codec)
        if encode is None or k >= min(count, held + 1) or bare[k].obstacle:
            continue
        row = known.find(cut, codec) if known else None
        row = row and _at_sizes(row, partition, k, edge)
        decode_s, decode_scale = decoding.of(cut, codec) or (cost.decode_s, 1.0)
        placement = replace(
            bare[k].placement,
            codec=codec,
            label=f"cloud-only {codec}" if k == 0 else f"{bare[k].cut.label} with {codec}",
            encode_s=encode[0],
            decode_s=decode_s,
            payload_nbytes=row.payload_nbytes if row else cost.payload_nbytes,
            payloads_nbytes=() if row else cost.payloads_nbytes,
        )
        found.append(
            replace(
                bare[k],
                placement=placement,
                fidelity=row,
                encode_scale=encode[1],
                decode_scale=decode_scale,
            )
        )
    return tuple(sorted(found, key=lambda each: each.placement.k))


def _bare(partition: Partition, edge: Profile, cloud: Profile, k: int) -> Assessment:
    """The placement at cut `k` without a codec: edge-only, or what no codec changes of others.

    Where the protocol cannot carry it, it is what plans name as left out.
    """
    count, cut = len(partition.segments), partition.cuts[k]
    head_s, complete = edge.segments_s(0, k), len(edge.segments) >= count
    replies = edge if len(edge.segments) == count else cloud
    obstacle = ""
    if k < count:
        largest = edge.crossings_nbytes[k] if k < len(edge.crossings_nbytes) else 0
        obstacle = obstacle_at(
            partition, k, crossing_nbytes=largest, reply_nbytes=replies.replies_nbytes[k]
        )
    at_the_cut = "sending the input" if k == 0 else f"a cut {cut.label}"
    return Assessment(
        Placement(
            cut=cut.id,
            codec=NO_CODEC,
            k=k,
            label=at_the_cut if k < count else cut.id,
            remote=k < count,
            head_s=head_s,
            encode_s=0.0,
            decode_s=0.0,
            tail_s=cloud.segments_s(k, count),
            payload_nbytes=cut.nbytes if k < count else 0,
            reply_nbytes=replies.replies_nbytes[k] if k < count else 0,
            rest_s=max(0.0, edge.segments_s(0, count) - head_s) if complete else None,
        ),
        cut=cut,
        edge_nbytes=_edge_nbytes(partition, edge, k),
        obstacle=obstacle,
    )


def _at_sizes(row: Fidelity, partition: Partition, k: int, edge: Profile) -> Fidelity:
    """`row` with the payload of what crosses where the open dimensions have the edge's sizes.

    What a codec loses is taken to be as it was on the calibration's data.
    """
    dtypes = {spec.dtype for spec in partition.crossing(k)}
    bits = 8 * row.payload_nbytes
    if not edge.sizes or k >= len(edge.crossings_nbytes) or len(dtypes) > 1 or not bits:
        return row
    elements = edge.crossings_nbytes[k] / nbytes_of(dtypes.pop(), ())
    ratio = elements * row.bits_per_element / bits
    if abs(ratio - 1) < _SAME_SIZE:
        return row
    return replace(
        row,
        payload_nbytes=round(ratio * row.payload_nbytes),
        payload_p95_nbytes=round(ratio * row.payload_p95_nbytes),
    )


def obstacle_at(
    partition: Partition, k: int, *, crossing_nbytes: int = 0, reply_nbytes: int = 0
) -> str:
    """Return why the protocol cannot carry what crosses cut `k`, or the reply; "" if it can.

    `crossing_nbytes` and `reply_nbytes` are what was seen, where open sizes are larger than
    their nominal ones.
    """
    ways = (
        ("would take", partition.crossing(k), crossing_nbytes),
        ("would be answered with", partition.outputs_from(k), reply_nbytes),
    )
    for verb, specs, seen_nbytes in ways:
        found = obstacle(
            [spec.name for spec in specs],
            ndim=max((len(spec.shape) for spec in specs), default=0),
            nbytes=max(seen_nbytes, sum(spec.nominal_nbytes for spec in specs)),
        )
        if found is not None:
            return f"{verb} {found} by the protocol"
    return ""


def _edge_nbytes(partition: Partition, edge: Profile, k: int) -> int:
    """Return what segments [0, k) take of the edge's memory: as measured, else weights in
    files.
    """
    known = edge.memory_nbytes
    return known[k] if k < len(known) else partition.weight_nbytes(0, k)


def _check(
    partition: Partition, edge: Profile, cloud: Profile, calibration: Calibration | None
) -> None:
    count = len(partition.segments)
    for side, profile in (("edge", edge), ("cloud", cloud)):
        if profile.partition_digest != partition.digest:
            raise UsageError(
                f"the {side}'s profile must be of partition {partition.digest[:12]} "
                f"(not {profile.partition_digest[:12]}): profile this partition there"
            )
    if calibration is not None and calibration.partition_digest != partition.digest:
        raise UsageError(
            f"the calibration must be of partition {partition.digest[:12]} (not "
            f"{calibration.partition_digest[:12]}): calibrate this partition"
        )
    if len(cloud.segments) != count or len(cloud.replies_nbytes) != count + 1:
        raise UsageError(
            f"the cloud's profile must cover all {count} segments of {partition.name} "
            f"(not {len(cloud.segments)}): profile the whole partition there"
        )


def _by_placement(costs: Iterable[CodecCost]) -> dict[tuple[str, str], CodecCost]:
    """`costs` by cut and codec; the last one of a kind counts."""
    return {(cost.cut, cost.codec): cost for cost in costs}


@final
class _Times:
    """Seconds of codecs on one device: as measured there, or else another device's, scaled.

    The scale is how much longer this device takes than the other for what both have measured
    at that cut (the median), or at any cut.
    """

    def __init__(
        self, field: str, measured: Sequence[CodecCost], others: Iterable[Sequence[CodecCost]]
    ) -> None:
        self._seconds = {
            key: getattr(cost, field) for key, cost in _by_placement(measured).items()
        }
        self._others = [
            {key: getattr(cost, field) for key, cost in _by_placement(each).items()}
            for each in others
        ]

    def of(self, cut: str, codec: str) -> tuple[float, float | None] | None:
        """Seconds, and the scale if they were not measured; None if nothing is known."""
        if (cut, codec) in self._seconds:
            return self._seconds[cut, codec], None
        for other in self._others:
            if (cut, codec) in other and (scale := self._scale(other, cut)) is not None:
                return other[cut, codec] * scale, scale
        return None

    def _scale(self, other: Mapping[tuple[str, str], float], cut: str) -> float | None:
        ratios: defaultdict[bool, list[float]] = defaultdict(list)
        for key, seconds in self._seconds.items():
            if other.get(key, 0.0) > 0:
                ratios[key[0] == cut].append(seconds / other[key])
        return median(ratios[True] or ratios[False]) if ratios else None
