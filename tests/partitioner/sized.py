"""A network of open length, and what two made-up devices take for it at several lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.partitioner.conftest import make_model

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Bucket, CodecCost, Profile, Stat
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition

Truth = Callable[[Mapping[str, int]], float]

LENGTHS = (8, 32, 128, 512)


def stat(seconds: float) -> Stat:
    return Stat(seconds, seconds * 0.9, seconds * 1.1, 5)


def bucket(sizes: Mapping[str, int], *truths: Truth) -> Bucket:
    """Segments that take what `truths` say, and replies of as many bytes as milliseconds."""
    taken_s = [truth(sizes) for truth in truths]
    return Bucket(
        tuple(sorted(sizes.items())),
        tuple(map(stat, taken_s)),
        (CodecCost("cloud-only", "raw", round(1e6 * taken_s[0]), taken_s[0] / 9, 0.0),),
        (round(1e3 * taken_s[0]), 7, 0)[: len(truths) + 1],
    )


def profile(*buckets: Bucket, part: Partition | None = None) -> Profile:
    digests = ("g", "p") if part is None else (part.graph_digest, part.digest)
    empty = Profile(Device("d", threads=1), *digests, (), (), ())
    return empty.holding(buckets[0], buckets[1:])


def two_steps() -> Partition:
    """Two segments, three cuts."""
    network = load_network(
        make_model(
            "net (float[batch, seq] x) => (float[batch, seq] y) {a = Relu (x) y = Exp (a)}"
        )
    )
    return partition(network, position_cuts(network.graph))


LINK = Link(8e6, 8e6, 0.005, fixed_s=0.0)


def sides(part: Partition) -> tuple[Profile, Profile]:
    """An edge whose time grows with the square of the length, and a cloud 20 times faster."""
    edges: list[Bucket] = []
    clouds: list[Bucket] = []
    for size in LENGTHS:
        costs = tuple(
            CodecCost(part.cuts[k].id, "raw", nbytes * size, 1e-5, 1e-5)
            for k, nbytes in enumerate((40, 16))
        )
        for made, scale in ((edges, 1.0), (clouds, 0.05)):
            seconds = [scale * 1e-4 * size, scale * 4e-7 * size**2]
            stats = tuple(map(stat, seconds))
            sizes = (("batch", 1), ("seq", size))
            made.append(Bucket(sizes, stats, costs, (16 * size, 16 * size, 0)))
    return profile(*edges, part=part), profile(*clouds, part=part)


def total_s(k: int, size: int) -> float:
    """What one request of length `size` takes over `LINK` with `k` segments on the edge."""
    heads_s = (1e-4 * size, 4e-7 * size**2)
    if k == 2:
        return sum(heads_s)
    bits = 8 * size * ((40, 16)[k] + 16)
    return sum(heads_s[:k]) + 0.05 * sum(heads_s[k:]) + 2e-5 + 0.005 + bits / 8e6
