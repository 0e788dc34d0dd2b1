"""A placement on machines that are slower, or faster, than those that were profiled."""

from __future__ import annotations

from dataclasses import replace

from midstream_partitioner.planning.placements import Placement


def slowed(placement: Placement, *, edge: float = 1.0, cloud: float = 1.0) -> Placement:
    """`placement` where the edge and the cloud take so many times as long as profiled."""
    if edge == cloud == 1.0:
        return placement
    return replace(
        placement,
        head_s=placement.head_s * edge,
        encode_s=placement.encode_s * edge,
        decode_s=placement.decode_s * cloud,
        tail_s=placement.tail_s * cloud,
        rest_s=None if placement.rest_s is None else placement.rest_s * edge,
    )
