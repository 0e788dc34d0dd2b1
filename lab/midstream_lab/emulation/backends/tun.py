"""A link made of packets: two TUN devices in two network namespaces, and a loop between them.

    python -m midstream_lab.emulation.backends.tun

is a backend's process, which speaks JSON lines (`emulation.host.backend_server`).

Real TCP runs over it from one namespace to the other; what it sends are read as IP packets,
pass a `Line` each way, and are written to the other device when they are due.
"""

from __future__ import annotations

import gc
import math
import os
import select
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from midstream_lab.emulation.host.backend_server import (
    Control,
    complaint,
    first_command,
    hurry,
    tell,
)
from midstream_lab.emulation.host.namespaces import Namespace, open_tun, pin_congestion, run
from midstream_lab.emulation.model.capabilities import (
    Capabilities,
    Lateness,
    direction_document,
)
from midstream_lab.emulation.model.outages import CUTS, Breaker
from midstream_lab.emulation.model.packet_queue import Counters, Line
from midstream_lab.emulation.model.spec import MTU_NBYTES, LinkSpec
from midstream_wire.errors import MidstreamError

#: The same in every emulation: namespaces do not see one another.
EDGE, CLOUD = "10.77.0.1", "10.77.0.2"
DEVICE = "link0"
#: Packets waiting for the loop, in the device; more than it ever needs to be late by.
DEVICE_PACKETS = 4096
#: Packets taken from one device before looking at the clock again.
BATCH = 32
#: How much earlier than due the loop wakes: this share of its sleep, and at most so much.
EARLY, EARLY_S = 0.02, 100e-6
#: Packets closer than this (120 Mbit/s) are gathered for so long, at half the processor time.
GATHER_BELOW_S, GATHER_S = 100e-6, 200e-6


@final
class End:
    """One end: a namespace, the device in it, and the way to the other end."""

    def __init__(self, address: str, peer: str) -> None:
        self.address = address
        self._peer = peer
        self._overruns_before = 0
        self.namespace = Namespace()
        with self.namespace.entered():
            self.fd = open_tun(DEVICE)
            run(
                "ip",
                f"addr add {address} peer {peer} dev {DEVICE}",
                f"link set {DEVICE} mtu {MTU_NBYTES} txqueuelen {DEVICE_PACKETS} up",
            )

    def document(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "prefix": self.namespace.prefix,
            "namespace": self.namespace.path,
        }

    def pin(self, congestion: str | None) -> str:
        """Choose TCP's congestion control at this end; returns its name."""
        route = f"{self._peer} dev {DEVICE} proto kernel scope link src {self.address}"
        with self.namespace.entered():
            return pin_congestion(congestion, route)

    def begin(self) -> None:
        """Count from here."""
        self._overruns_before += self.overrun_packets()

    def overrun_packets(self) -> int:
        """Return what the device dropped because the loop did not come in time."""
        return self._dropped_packets() - self._overruns_before

    def _dropped_packets(self) -> int:
        with self.namespace.entered():
            for line in Path("/proc/thread-self/net/dev").read_text("utf-8").splitlines():
                name, _, figures = line.partition(":")
                if name.strip() == DEVICE:
                    return int(figures.split()[11])  # transmit: bytes packets errs drop
        return 0


@final
class TunLink:
    """The two ends, a line each way, and the loop that carries packets along them."""

    def __init__(self, spec: LinkSpec) -> None:
        self.edge = End(EDGE, CLOUD)
        self.cloud = End(CLOUD, EDGE)
        self._up = Line(spec, spec.uplink, "uplink")
        self._down = Line(spec, spec.downlink, "downlink")
        self._breaker = Breaker()
        self._lateness = Lateness()
        self._aimed_s, self._early_s = math.nan, 0.0  # what `_wait` waits for
        self.congestion = self._pin(spec)

    def run(self, control: Control) -> None:
        """Carry packets until the control says that it is over."""
        up, down = self._up, self._down
        edge_fd, cloud_fd = self.edge.fd, self.cloud.fd
        fds = (edge_fd, cloud_fd, *control.fds)
        handlers = {
            "set": self._set,
            "stats": self._stats,
            "start_trace": self._start_trace,
            "begin": self._begin,
            "cut": self._cut,
            "restore": self._restore,
        }
        while True:
            for fd in self._wait(fds):
                if fd == edge_fd:
                    self._take(fd, up)
                elif fd == cloud_fd:
                    self._take(fd, down)
                elif not control.serve(fd, handlers):
                    return
            now_s = time.monotonic()
            if up.next_s <= now_s:
                self._deliver(up, cloud_fd)
            if down.next_s <= now_s:
                self._deliver(down, edge_fd)

    def _wait(self, fds: tuple[int, ...]) -> list[int]:
        """Return until something is due or readable; returns what is readable.

        The kernel wakes us late, the later the longer we slept: rise early, and look at the
        clock until it is time. On a fast line that is busy, sleep over a few packets instead,
        also over those that come: what waits for its turn may as well wait in the device.
        """
        next_s = min(self._up.next_s, self._down.next_s)
        if next_s == math.inf:
            return select.select(fds, (), ())[0]
        wait_s = next_s - time.monotonic()
        if next_s != self._aimed_s:
            self._aimed_s, self._early_s = next_s, min(EARLY_S, EARLY * wait_s)
            busy = self._up.queued_nbytes or self._down.queued_nbytes
            if 0 < wait_s < GATHER_BELOW_S and busy:
                time.sleep(GATHER_S)
        return select.select(fds, (), (), max(0.0, wait_s - self._early_s))[0]

    def _take(self, fd: int, line: Line) -> None:
        now_s = time.monotonic()
        note = self._breaker.note_sent
        for _ in range(BATCH):
            try:
                packet = os.read(fd, MTU_NBYTES)
            except BlockingIOError:
                return
            if self._breaker.kind is not None and not self._passes(packet):
                line.cut(packet)
                continue
            note(packet)
            line.push(packet, now_s)

    def _deliver(self, line: Line, fd: int) -> None:
        clock, late, note = time.monotonic, self._lateness.add, self._breaker.note_arrived
        for due_s, packet in line.pop(clock()):
            late(clock() - due_s)
            note(packet)
            os.write(fd, packet)

    def _passes(self, packet: bytes) -> bool:
        passes, resets = self._breaker.answer(packet)
        self._inject(resets)
        return passes

    def _inject(self, packets: list[bytes]) -> None:
        """Write packets of our own to whom they are addressed."""
        for packet in packets:
            to_edge = packet[16:20] == bytes(map(int, EDGE.split(".")))
            os.write(self.edge.fd if to_edge else self.cloud.fd, packet)

    def _pin(self, spec: LinkSpec) -> str:
        self.cloud.pin(spec.congestion)
        return self.edge.pin(spec.congestion)

    def _set(self, command: Mapping[str, Any]) -> dict[str, Any]:
        spec = LinkSpec.from_document(command["spec"])
        self.congestion = self._pin(spec)
        now_s = time.monotonic()
        self._up.set(spec, spec.uplink, now_s)
        self._down.set(spec, spec.downlink, now_s)
        return {"at_s": now_s, "congestion": self.congestion}

    def _stats(self, _: Mapping[str, Any]) -> dict[str, Any]:
        ways = ("uplink", self._up, self.edge), ("downlink", self._down, self.cloud)
        return {
            **{
                name: direction_document(
                    line.counters,
                    line.queued_nbytes,
                    overrun_packets=end.overrun_packets(),
                )
                for name, line, end in ways
            },
            **self._lateness.document(),
        }

    def _begin(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self._up.counters, self._down.counters = Counters(), Counters()
        self._lateness = Lateness()
        for end in (self.edge, self.cloud):
            end.begin()
        return {"at_s": time.monotonic()}

    def _start_trace(self, _: Mapping[str, Any]) -> dict[str, Any]:
        now_s = time.monotonic()
        self._up.start_trace(now_s)
        self._down.start_trace(now_s)
        return {"at_s": now_s}

    def _cut(self, command: Mapping[str, Any]) -> dict[str, Any]:
        for line in (self._up, self._down):
            line.flush()
        self._inject(self._breaker.cut(command["kind"]))
        return {"at_s": time.monotonic()}

    def _restore(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self._breaker.restore()
        return {"at_s": time.monotonic()}


def main() -> int:
    try:
        link = TunLink(LinkSpec.from_document(first_command()["spec"]))
    except MidstreamError as error:
        tell(complaint(error))
        return 1
    control = Control()
    gc.disable()  # nothing here makes cycles, and a collection would make packets late
    capabilities = Capabilities(
        delay=True,
        jitter=True,
        loss=True,
        queue=True,
        congestion=True,
        silent_cut=True,
        cuts=CUTS,
        realtime=hurry(),
    )
    tell(
        {
            "backend": "tun",
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
