"""A link made by the kernel: a router between two namespaces, HTB, and netem if there is one.

    python -m midstream_lab.emulation.backends.kernel

is a backend's process, which speaks JSON lines (`emulation.host.backend_server`).

No Python touches a packet: it goes as fast as the machine does. But a kernel without netem
cannot delay one, and nothing here draws losses or jitter.
"""

from __future__ import annotations

import math
import select
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, final

from midstream_lab.emulation.backends.router import Shapers, Side
from midstream_lab.emulation.host.backend_server import (
    Control,
    complaint,
    first_command,
    hurry,
    tell,
)
from midstream_lab.emulation.host.namespaces import Namespace, run
from midstream_lab.emulation.model.capabilities import (
    Capabilities,
    Lateness,
    direction_document,
)
from midstream_lab.emulation.model.outages import CUTS, Breaker
from midstream_lab.emulation.model.packet_queue import Counters
from midstream_lab.emulation.model.packets import completed
from midstream_lab.emulation.model.rates import Rates
from midstream_lab.emulation.model.spec import MTU_NBYTES, LinkSpec
from midstream_wire.errors import MidstreamError, UsageError

#: HTB pays for a packet at the rate at which it began: this is one in 100 ms.
LEAST_STEP_BPS: Final = 120e3
_ETH_P_IP: Final = 0x0800  # linux/if_ether.h


@final
class KernelLink:
    """The router, what shapes on it, and the loop that follows traces and answers commands."""

    def __init__(self, spec: LinkSpec) -> None:
        _check(spec)
        self._router = Namespace()
        with self._router.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")
        self.edge, self.cloud = Side(self._router, 1), Side(self._router, 2)
        self._sides = self.edge, self.cloud
        # What goes up leaves the router towards the cloud.
        self._devices = self.cloud.device, self.edge.device
        self._shapers = Shapers(self._router, spec, self._devices)
        self._breaker = Breaker()
        self._lateness = Lateness()
        self._before: dict[str, dict[str, int]] = {}
        self._packets: socket.socket | None = None  # listens while the link is cut
        self.delays = self.edge.delay(0.0) and self.cloud.delay(0.0)
        self._apply(spec)

    def run(self, control: Control) -> None:
        """Follow the traces until the control says that it is over."""
        handlers = {
            "set": self._set,
            "stats": self._stats,
            "begin": self._begin,
            "start_trace": self._start_trace,
            "cut": self._cut,
            "restore": self._restore,
        }
        due_s = math.inf
        while True:
            wait_s = None if due_s == math.inf else max(0.0, due_s - time.monotonic())
            packets = () if self._packets is None else (self._packets,)
            ready, _, _ = select.select((*packets, *control.fds), (), (), wait_s)
            for each in ready:
                if isinstance(each, socket.socket):
                    self._answer(each)
                elif not control.serve(each, handlers):
                    return
            if due_s <= time.monotonic():
                self._lateness.add(time.monotonic() - due_s)
            due_s = self._follow()

    def _follow(self) -> float:
        """Set the rates of this moment; returns when they change."""
        now_s = time.monotonic()
        steps = self._uplink.at(now_s), self._downlink.at(now_s)
        for number, (rate_bps, _) in enumerate(steps):
            self._shapers.rate(number, rate_bps)
        return min(until_s for _, until_s in steps)

    def _apply(self, spec: LinkSpec) -> None:
        if spec.delay_s and not self.delays:
            raise UsageError(
                "this kernel has no netem and so no delay: use the backend tun, or set "
                "delay_s to 0"
            )
        self.congestion = self.edge.pin(spec.congestion)
        self.cloud.pin(spec.congestion)
        if self.delays:
            self.edge.delay(spec.delay_s)
            self.cloud.delay(spec.delay_s)
        self._shapers.limit(spec.queue_nbytes)
        self._uplink, self._downlink = Rates(spec.uplink), Rates(spec.downlink)
        self._follow()

    def _set(self, command: Mapping[str, Any]) -> dict[str, Any]:
        spec = LinkSpec.from_document(command["spec"])
        _check(spec)
        self._apply(spec)
        return {"at_s": time.monotonic(), "congestion": self.congestion}

    def _start_trace(self, _: Mapping[str, Any]) -> dict[str, Any]:
        now_s = time.monotonic()
        self._uplink.start(now_s)
        self._downlink.start(now_s)
        return {"at_s": now_s}

    def _cut(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The router forgets the way; what comes is answered, or passed on by hand."""
        self._restore({})
        self._breaker.cut(command["kind"])
        with self._router.entered():
            run("ip", *(f"route add blackhole {each.address}/32" for each in self._sides))
            self._shapers.flush()
            if command["kind"] != "black-hole":
                self._packets = socket.socket(
                    socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)
                )
                self._packets.setblocking(False)
        return {"at_s": time.monotonic()}

    def _restore(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if self._breaker.kind is not None:
            self._breaker.restore()
            with self._router.entered():
                run("ip", *(f"route del blackhole {each.address}/32" for each in self._sides))
        if self._packets is not None:
            self._packets.close()
            self._packets = None
        return {"at_s": time.monotonic()}

    def _answer(self, packets: socket.socket) -> None:
        """Set what reaches the router while the link is cut."""
        packet, (device, *_) = packets.recvfrom(MTU_NBYTES)
        if device not in (each.device for each in self._sides):
            return
        passes, resets = self._breaker.answer(packet)
        for each in [completed(packet), *resets] if passes else resets:
            self._inject(packets, each)

    def _inject(self, packets: socket.socket, packet: bytes) -> None:
        """Hand a packet to whom it is addressed, past routes and queues."""
        for side in self._sides:
            if packet[16:20] == socket.inet_aton(side.address):
                packets.sendto(packet, (side.device, _ETH_P_IP, 0, 0, side.far_mac))

    def _begin(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self._lateness = Lateness()
        self._before = self._shapers.counted(self._router)
        return {"at_s": time.monotonic()}

    def _stats(self, _: Mapping[str, Any]) -> dict[str, Any]:
        counted = self._shapers.counted(self._router)
        return {
            name: _direction(counted[device], self._before.get(device))
            for name, device in zip(("uplink", "downlink"), self._devices, strict=True)
        } | self._lateness.document()


def _direction(now: Mapping[str, int], before: Mapping[str, int] | None) -> dict[str, int]:
    """HTB's counters since `before`; -1 for what it does not count."""

    def since(key: str) -> int:
        return now[key] - (before[key] if before else 0)

    counters = Counters(*[-1] * 9)
    counters.delivered_packets = since("packets")
    counters.delivered_nbytes = since("bytes")
    counters.dropped_packets = since("drops")
    return direction_document(counters, now["backlog"])


def _check(spec: LinkSpec) -> None:
    for field in ("jitter_s", "loss"):
        if getattr(spec, field):
            raise UsageError(
                f"the kernel's queues draw no {field} from a seed: leave it out, or use tun"
            )
    for rate in (spec.uplink, spec.downlink):
        if not isinstance(rate, float | int) and min(rate.rates_bps) < LEAST_STEP_BPS:
            raise UsageError(
                f"a trace for the kernel must stay above {LEAST_STEP_BPS / 1e3:g} kbit/s, "
                "because HTB does not speed up a packet it has begun to pay for "
                f"(not {min(rate.rates_bps):g} bit/s): use tun"
            )


def main() -> int:
    try:
        link = KernelLink(LinkSpec.from_document(first_command()["spec"]))
    except MidstreamError as error:
        tell(complaint(error))
        return 1
    control = Control()
    capabilities = Capabilities(
        delay=link.delays,
        jitter=False,
        loss=False,
        queue=True,
        congestion=True,
        silent_cut=True,
        cuts=CUTS,
        realtime=hurry(),
    )
    tell(
        {
            "backend": "kernel",
            "edge": link.edge.document(),
            "cloud": link.cloud.document(),
            "congestion": link.congestion,
            "capabilities": asdict(capabilities),
        }
    )
    link.run(control)
    return 0


if __name__ == "__main__":
    sys.exit(main())
