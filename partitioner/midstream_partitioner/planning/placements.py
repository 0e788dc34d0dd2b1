"""Every way to place a partition, with all of its cost that does not depend on the link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.codec_spec import has_transform, is_known, is_lossless
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.timings import Estimate
from midstream_wire.errors import UsageError
from midstream_wire.limits import MAX_IN_FLIGHT

#: Figures of one placement, or of several at once.
Seconds = float | NDArray[np.float64]
Flags = bool | NDArray[np.bool_]


@final
@dataclass(frozen=True, slots=True)
class Placement:
    """A cut with a codec, and what one request takes: seconds and bytes, whatever the link.

    Segments [0, k) run on the edge, and what crosses is sent with `codec`. `remote` is False
    for edge-only, which has its whole time in `head_s`. `rest_s` is what the edge needs to run
    the segments from `k` on itself; None if it does not hold them. `payload_nbytes` is the
    mean of `payloads_nbytes`, the sizes of single samples, where these are known. `label` is
    for people: "edge-only", "cloud-only jpeg:90", "layer2.1/relu with half".
    """

    cut: str
    codec: str
    k: int
    label: str
    remote: bool
    head_s: float
    encode_s: float
    decode_s: float
    tail_s: float
    payload_nbytes: int
    reply_nbytes: int
    rest_s: float | None
    payloads_nbytes: tuple[int, ...] = ()

    @property
    def lossless(self) -> bool:
        """True if the codec is known here, and changes nothing."""
        return is_known(self.codec) and is_lossless(self.codec)

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

    def steady_s(self, link: Link, pipeline: Pipeline) -> float:
        """The slowest stage of a full pipeline other than the uplink."""
        downlink_s = link.downlink_serial_s(self.reply_nbytes)
        transforms = has_transform(self.codec)
        edge_s = pipeline.edge_s(self.head_s, self.encode_s, transforms)
        cloud_s = pipeline.cloud_s(self.decode_s, self.tail_s)
        return max(float(edge_s), float(cloud_s), downlink_s)

    def period_s(self, link: Link, pipeline: Pipeline, queue_s: float = 0.0) -> float:
        """Seconds between two answers of a full pipeline.

        Its stages work at the same time on different requests, so the slowest one counts; and
        of the requests that a session may have under way, each stays for the whole latency
        (Little's law).
        """
        stages_s = max(
            self.steady_s(link, pipeline), link.uplink_serial_s(self.payload_nbytes)
        )
        return max(stages_s, self.estimate(link, queue_s).total_s / pipeline.window)

    def energy_j(self, device: Device, link: Link, queue_s: float) -> float:
        """Return what one request costs the edge: computing, sending, waiting, receiving."""
        return device.energy_j(
            self.estimate(link, queue_s).total_s,
            busy_s=self.head_s + self.encode_s,
            sending_s=link.uplink_serial_s(self.payload_nbytes) if self.remote else 0.0,
            receiving_s=link.downlink_serial_s(self.reply_nbytes) if self.remote else 0.0,
        )


@final
@dataclass(frozen=True, slots=True)
class Pipeline:
    """The number of requests that the stages of a full pipeline work on at a time.

    The edge runs heads on one thread of its own and encodes on another, as far as its cores
    reach (0: unknown, and taken for enough). `workers` tails run at once in the cloud. At most
    `window` requests of a session are under way.
    """

    threads: int = 1
    cores: int = 0
    workers: int = 1
    window: int = MAX_IN_FLIGHT

    def __post_init__(self) -> None:
        if min(self.threads, self.workers, self.window) < 1 or self.cores < 0:
            raise UsageError(
                "a pipeline must have threads, workers and a window of at least 1, and cores "
                f"of at least 0 (not {self.threads}, {self.workers}, {self.window} and "
                f"{self.cores}): correct the menu or the profile"
            )

    @classmethod
    def of(cls, edge: Device, cloud: Device, window: int = MAX_IN_FLIGHT) -> Pipeline:
        """As the devices are; the cores of an emulated one are not its own."""
        cores = 0 if edge.emulated else edge.cores
        return cls(edge.threads, cores, cloud.workers, window)

    def edge_s(self, head_s: Seconds, encode_s: Seconds, transforms: Flags) -> Seconds:
        """Seconds between two requests that leave the edge, of one placement or of an array.

        A transform runs on the thread of the heads.
        """
        longer_s = np.where(transforms, head_s + encode_s, np.maximum(head_s, encode_s))
        if not self.cores:
            return longer_s
        busy_cores_s = head_s * min(self.threads, self.cores) + encode_s
        return np.maximum(longer_s, busy_cores_s / self.cores)

    def cloud_s(self, decode_s: Seconds, tail_s: Seconds) -> Seconds:
        """Seconds between two requests that the cloud has finished.

        The worker that runs a tail decodes what it runs on.
        """
        return (decode_s + tail_s) / self.workers


#: What is assumed where nobody says.
SIMPLE_PIPELINE = Pipeline()
