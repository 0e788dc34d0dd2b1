"""Estimates of tail times: the profile's for that size, corrected by what was measured.

A server knows a request by the bytes that crossed the cut, which grow with the sizes of the
network's open dimensions. Pure: sizes and seconds come in as values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from midstream_partitioner.costs.profile import Bucket, Profile
from midstream_wire.codecs import split_codec

#: What decides how long a tail takes besides the size: the work. A partition's digest, the
#: first segment, the transform, the codecs.
Kind = tuple[str, int, str, tuple[str, ...]]

#: Bytes and seconds, ascending.
Points = Sequence[tuple[int, float]]

#: Weight of the newest run in the estimate of a tail's time: ten runs forget a cold start.
_NEWEST = 0.2

#: Kinds and sizes whose times are remembered: more than all models of a server have, until
#: many partitions made on request have come and gone.
_MOST = 4096


@final
class Estimates:
    """Seconds of decoding and tail, by kind and by size in quarters of an octave."""

    def __init__(self) -> None:
        #: By kind and bucket, the latest size there and the time.
        self._seen: dict[Kind, dict[int, tuple[int, float]]] = {}
        self._count = 0

    def of(self, kind: Kind, nbytes: int, points: Points = ()) -> float:
        """Return what a tail of `nbytes` may take; 0 where nothing is known.

        `points` are what a profile says. Of sizes that were not seen yet, it is `points`
        times what the nearest size that was took over them, or in proportion to that.
        """
        seen, wanted = self._seen.get(kind, {}), _bucket(nbytes)
        if wanted in seen:
            return seen[wanted][1]
        expected_s = expected(points, nbytes)
        if not seen:
            return expected_s
        near = min(seen, key=lambda bucket: abs(bucket - wanted))
        there_nbytes, took_s = seen[near]
        there_s = expected(points, there_nbytes)
        return took_s * (expected_s / there_s if there_s > 0 else nbytes / there_nbytes)

    def learn(self, kind: Kind, nbytes: int, seconds: float) -> None:
        """Take note that a tail of `nbytes` took so long."""
        if self._count >= _MOST:
            self._seen.clear()
            self._count = 0
        seen, bucket = self._seen.setdefault(kind, {}), _bucket(nbytes)
        self._count += bucket not in seen
        _, known_s = seen.get(bucket, (nbytes, seconds))
        seen[bucket] = max(nbytes, 1), known_s + _NEWEST * (seconds - known_s)


def points_of(
    profile: Profile, first_segment: int, *, cut: str = "", transform: str = ""
) -> Points:
    """Return what `profile` says of the tails from a segment on, at its sizes.

    Decoding is left out, unless `transform` names what is undone at `cut` before the tail.
    """
    found = []
    for bucket in profile.buckets:
        if first_segment < len(bucket.crossings_nbytes):
            tail_s = sum(stat.median_s for stat in bucket.segments[first_segment:])
            nbytes = bucket.crossings_nbytes[first_segment]
            found.append((nbytes, tail_s + _undone_s(bucket, cut, transform)))
    return sorted(found)


def expected(points: Points, nbytes: float) -> float:
    """Return the seconds at `nbytes`: on lines between `points`, beyond in proportion."""
    if not points:
        return 0.0
    for (low, low_s), (high, high_s) in zip(points, points[1:], strict=False):
        if low <= nbytes <= high and low < high:
            return low_s + (high_s - low_s) * (nbytes - low) / (high - low)
    end, end_s = points[0] if nbytes < points[0][0] else points[-1]
    return end_s * nbytes / max(end, 1)


def _undone_s(bucket: Bucket, cut: str, transform: str) -> float:
    """Return the longest that decoding took of a codec behind `transform`."""
    costs = (each for each in bucket.codecs if transform and each.cut == cut)
    return max(
        (c.decode_s for c in costs if split_codec(c.codec)[0] == transform), default=0.0
    )


def _bucket(nbytes: int) -> int:
    return round(4 * math.log2(max(nbytes, 1)))
