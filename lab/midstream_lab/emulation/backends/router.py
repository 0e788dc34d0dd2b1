"""Two namespaces, a router between them, and its queues: what the kernel's link is made of.

The router is a namespace of its own, so that its queues drop packets as a real one's do: on
the sender's own device, TCP would see them fill and slow down (TCP small queues). HTB and not
TBF, whose `change` refills its bucket.
"""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any, final

from midstream_lab.emulation.host.namespaces import Namespace, pin_congestion, run
from midstream_lab.emulation.model.spec import MTU_NBYTES, LinkSpec
from midstream_wire.errors import MidstreamError

DEVICE = "link0"
#: HTB may catch up with this much of its lateness at once.
BURST_S = 0.001
#: What HTB would count beside the IP packet.
ETHERNET_NBYTES = 14
#: In netem's queue, packets that are under way; never the limit.
FLIGHT_PACKETS = 100_000


@final
class Side:
    """A namespace at one end, and the router's device towards it."""

    def __init__(self, router: Namespace, number: int) -> None:
        self.number = number
        self.address = f"10.77.{number}.2"
        self.device = f"side{number}"
        self.namespace = Namespace()
        self._congestion_route = ""
        near, far = f"02:00:00:00:{number:02x}:01", f"02:00:00:00:{number:02x}:02"
        self.far_mac = bytes.fromhex(far.replace(":", ""))
        gateway = f"10.77.{number}.1"
        with router.entered():
            # Fixed neighbours: no ARP on the line, and none that a cut could make forget.
            run(
                "ip",
                f"link add {self.device} address {near} type veth "
                f"peer name {DEVICE} address {far} netns {self.namespace.path}",
                f"addr add {gateway}/30 dev {self.device}",
                f"link set {self.device} mtu {MTU_NBYTES} up",
                f"neigh add {self.address} lladdr {far} dev {self.device} nud permanent",
            )
        with self.namespace.entered():
            run(
                "ip",
                f"addr add {self.address}/30 dev {DEVICE}",
                # One segment a packet: a larger one would be shaped and lost as a whole.
                f"link set {DEVICE} mtu {MTU_NBYTES} gso_max_segs 1 up",
                f"neigh add {gateway} lladdr {near} dev {DEVICE} nud permanent",
            )
        self._gateway = gateway

    def document(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "prefix": self.namespace.prefix,
            "namespace": self.namespace.path,
        }

    def pin(self, congestion: str | None) -> str:
        """Choose TCP's congestion control at this end; returns its name."""
        route = f"10.77.{3 - self.number}.0/30 via {self._gateway} dev {DEVICE}"
        with self.namespace.entered():
            return pin_congestion(congestion, route)

    def delay(self, delay_s: float) -> bool:
        """Have netem delay what this end sends; false where the kernel has none."""
        line = f"qdisc replace dev {DEVICE} root netem delay {delay_s * 1e6:.0f}us"
        with self.namespace.entered():
            try:
                run("tc", f"{line} limit {FLIGHT_PACKETS}")
            except MidstreamError:
                return False
        return True


@final
class Shapers:
    """HTB on the router's devices, changed through one long-lived `tc`."""

    def __init__(self, router: Namespace, spec: LinkSpec, devices: tuple[str, str]) -> None:
        self._devices = devices
        self._leaf = 10
        self._queue_nbytes = 0
        self._rates_bps = [math.nan, math.nan]
        with router.entered():
            self._tc = subprocess.Popen(
                ["tc", "-force", "-batch", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for device in devices:
                run(
                    "tc",
                    f"qdisc add dev {device} root handle 1: stab overhead -{ETHERNET_NBYTES} "
                    "linklayer ethernet mtu 2047 tsize 512 htb default 1",
                    f"class add dev {device} parent 1: classid 1:1 htb {_rate(1e6)}",
                )
        self.limit(spec.queue_nbytes)

    def limit(self, queue_nbytes: int) -> None:
        """Have queues of this size; if they are of another now, what waits is dropped."""
        if queue_nbytes != self._queue_nbytes:
            self._queue_nbytes = queue_nbytes
            self.flush()

    def flush(self) -> None:
        """Drop all that waits."""
        self._leaf = 30 - self._leaf  # a new qdisc, and with the old one its packets go
        for device in self._devices:
            leaf = f"dev {device} parent 1:1 handle {self._leaf}:"
            self._say(f"qdisc replace {leaf} bfifo limit {self._queue_nbytes}")

    def counted(self, router: Namespace) -> dict[str, dict[str, int]]:
        """Device -> packets, bytes, drops of what left it, and the backlog in bytes."""
        with router.entered():
            said = subprocess.run(
                ["tc", "-s", "-j", "qdisc", "show"], capture_output=True, check=True
            )
        keys = "packets", "bytes", "drops", "backlog"
        return {
            each["dev"]: {key: each[key] for key in keys}
            for each in json.loads(said.stdout)
            if each["kind"] == "htb"
        }

    def rate(self, number: int, rate_bps: float) -> None:
        """Set the rate of a device, if it is another than before."""
        if rate_bps != self._rates_bps[number]:
            self._rates_bps[number] = rate_bps
            device = self._devices[number]
            self._say(f"class change dev {device} parent 1: classid 1:1 htb {_rate(rate_bps)}")

    def _say(self, line: str) -> None:
        assert self._tc.stdin is not None
        self._tc.stdin.write(line + "\n")
        self._tc.stdin.flush()


def _rate(rate_bps: float) -> str:
    burst = max(MTU_NBYTES + 100, int(rate_bps * BURST_S / 8))
    return f"rate {rate_bps:.0f}bit ceil {rate_bps:.0f}bit burst {burst} cburst {burst}"
