"""Every way to place a partition, with all of its cost that does not depend on the link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_partitioner.cuts import Cut
from midstream_partitioner.device import Device
from midstream_partitioner.link import Link
from midstream_partitioner.partition import Partition
from midstream_partitioner.profile import Profile
from midstream_partitioner.timings import Estimate
from midstream_wire.codecs import codec as codec_called
from midstream_wire.errors import UsageError

#: The codec of edge-only, where nothing is encoded: one that every session takes.
NO_CODEC = "raw"


@final
@dataclass(frozen=True, slots=True)
class Offer:
    """Segments [0, k) on the edge, what crosses sent with `codec`; seconds and bytes.

    `edge_nbytes` are the weights that the edge must hold. `remote` is False for edge-only.
    """

    cut: Cut
    codec: str
    k: int
    head_s: float
    encode_s: float
    decode_s: float
    tail_s: float
    payload_nbytes: int
    reply_nbytes: int
    edge_nbytes: int
    lossless: bool
    remote: bool

    @property
    def label(self) -> str:
        """For people: "edge-only", "cloud-only jpeg:90", "after layer2.1/relu with half"."""
        if not self.remote:
            return self.cut.id
        return (
            f"cloud-only {self.codec}"
            if self.k == 0
            else f"{self.cut.label} with {self.codec}"
        )

    def estimate(self, link: Link, queue_s: float) -> Estimate:
        """The seven times over `link`, when the cloud makes requests wait `queue_s`."""
        if not self.remote:
            return Estimate(head_s=self.head_s)
        return Estimate(
            self.head_s,
            self.encode_s,
            link.uplink_s(self.payload_nbytes),
            queue_s,
            self.decode_s,
            self.tail_s,
            link.downlink_s(self.reply_nbytes),
        )

    def steady_s(self, link: Link) -> float:
        """The slowest stage of a full pipeline other than the uplink."""
        downlink_s = link.downlink_serial_s(self.reply_nbytes)
        return max(self.head_s + self.encode_s, self.decode_s + self.tail_s, downlink_s)

    def period_s(self, link: Link) -> float:
        """Seconds between two answers of a full pipeline: its slowest stage.

        Edge compute, uplink, cloud compute and downlink work at the same time on different
        requests; delays and queueing lengthen a request's stay, not the distance to the next.
        """
        return max(self.steady_s(link), link.uplink_serial_s(self.payload_nbytes))

    def energy_j(self, device: Device, link: Link, queue_s: float) -> float:
        """What one request costs the edge: computing, sending, waiting, receiving."""
        busy_s = self.head_s + self.encode_s
        if not self.remote:
            return device.active_w * busy_s
        waiting_s = queue_s + self.decode_s + self.tail_s + 2 * link.one_way_s
        return (
            device.active_w * busy_s
            + device.tx_w * link.uplink_serial_s(self.payload_nbytes)
            + device.idle_w * waiting_s
            + device.rx_w * link.downlink_serial_s(self.reply_nbytes)
        )


def offers_of(partition: Partition, edge: Profile, cloud: Profile) -> tuple[Offer, ...]:
    """All placements that both profiles know, by k and then in the order of measurement.

    The edge's profile may cover a prefix of the segments, the cloud's must cover all. Payload
    sizes and encoding are the edge's measurements, decoding the cloud's; a codec counts where
    both have measured it. Raises `UsageError` for profiles of another partition.
    """
    count = len(partition.segments)
    for side, profile in (("edge", edge), ("cloud", cloud)):
        if profile.partition_digest != partition.digest:
            raise UsageError(
                f"the {side}'s profile must be of partition {partition.digest[:12]} "
                f"(not {profile.partition_digest[:12]}): profile this partition there"
            )
    if len(cloud.segments) != count or len(cloud.replies_nbytes) != count + 1:
        raise UsageError(
            f"the cloud's profile must cover all {count} segments of {partition.name} "
            f"(not {len(cloud.segments)}): profile the whole partition there"
        )
    decode_s = {(cost.cut, cost.codec): cost.decode_s for cost in cloud.codecs}
    index_of = {cut.id: k for k, cut in enumerate(partition.cuts)}
    offers = []
    for cost in edge.codecs:
        k = index_of.get(cost.cut, count)
        if k < count and k <= len(edge.segments) and (cost.cut, cost.codec) in decode_s:
            offers.append(
                Offer(
                    cut=partition.cuts[k],
                    codec=cost.codec,
                    k=k,
                    head_s=edge.segments_s(0, k),
                    encode_s=cost.encode_s,
                    decode_s=decode_s[cost.cut, cost.codec],
                    tail_s=cloud.segments_s(k, count),
                    payload_nbytes=cost.payload_nbytes,
                    reply_nbytes=cloud.replies_nbytes[k],
                    edge_nbytes=partition.weight_nbytes(0, k),
                    lossless=codec_called(cost.codec).lossless,
                    remote=True,
                )
            )
    if len(edge.segments) >= count:
        offers.append(_edge_only(partition, edge))
    return tuple(sorted(offers, key=lambda offer: offer.k))


def _edge_only(partition: Partition, edge: Profile) -> Offer:
    count = len(partition.segments)
    return Offer(
        cut=partition.cuts[count],
        codec=NO_CODEC,
        k=count,
        head_s=edge.segments_s(0, count),
        encode_s=0.0,
        decode_s=0.0,
        tail_s=0.0,
        payload_nbytes=0,
        reply_nbytes=0,
        edge_nbytes=partition.weight_nbytes(0, count),
        lossless=True,
        remote=False,
    )
