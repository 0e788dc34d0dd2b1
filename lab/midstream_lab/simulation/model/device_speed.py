"""An option on machines that are slower, or faster, than those that were profiled."""

from __future__ import annotations

from dataclasses import replace

from midstream_edge.policies.interface import Option


def slowed(option: Option, *, edge: float = 1.0, cloud: float = 1.0) -> Option:
    """`option` where the edge and the cloud take so many times as long as profiled."""
    if edge == cloud == 1.0:
        return option
    return replace(
        option,
        head_s=option.head_s * edge,
        encode_s=option.encode_s * edge,
        decode_s=option.decode_s * cloud,
        tail_s=option.tail_s * cloud,
        rest_s=None if option.rest_s is None else option.rest_s * edge,
    )
