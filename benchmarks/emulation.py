"""How exact an emulated link is: TCP goodput, round trips, a rate that follows a sinusoid.

    python benchmarks/emulation.py [--backend tun] [--seconds 4] [--delay 10] [--json]

One process holds the sockets of both ends, each made in its namespace, so that one clock times
everything. Goodput is payload at the receiver from one second after the start on, against the
configured rate times the share of payload in a full packet (1448 of 1500 bytes); round trips
are medians of exchanges of 16 bytes on the idle link, against the delay and the bits of the
exchange. The rate of the sinusoid changes every 100 ms over a period of 2 s, and, once more,
every 10 ms over a period of 100 ms. Under SCHED_FIFO where it may, behind the emulator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from midstream_lab.emulation.emulate import Emulation, emulate
from midstream_lab.emulation.host.backend_server import PRIORITY, hurry
from midstream_lab.emulation.host.namespaces import entered
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec
from midstream_lab.emulation.proxy.proxy import parse_address
from midstream_lab.emulation.self_test.validity import calibrate
from midstream_lab.traces.trace import Trace

RATES_MBPS = (1, 2, 5, 10, 20, 50, 100)
RTTS_MS = (2, 5, 10, 20, 50, 100, 200)
WARM_UP_S = 1.0
BLOCK = bytes(1 << 17)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="auto", help="auto, tun, kernel or proxy")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one transfer")
    parser.add_argument("--delay", type=float, default=10.0, help="one way, in ms")
    parser.add_argument("--congestion", default="cubic", help="TCP's congestion control")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    hurry(
        PRIORITY // 2
    )  # a busy machine keeps the line waiting for us, which is not its fault
    rows = list(measure(options))
    if options.json:
        machine = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "load": os.getloadavg()[0],
        }
        print(json.dumps({"machine": machine, "seconds": options.seconds, "rows": rows}))
    return 0 if all(row["within"] for row in rows) else 1


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    say = (lambda row: None) if options.json else _print
    for steps in (rates, round_trips, sinusoids):
        for row in steps(options):
            say(row)
            yield row


def rates(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for rate_mbps in RATES_MBPS:
        spec = LinkSpec(
            rate_mbps * 1e6,
            rate_mbps * 1e6,
            delay_s=options.delay / 1e3,
            congestion=options.congestion,
        )
        with linked(spec, options.backend) as link:
            for direction in ("uplink", "downlink"):
                wanted_bps = rate_mbps * 1e6 * GOODPUT_SHARE
                goodput_bps = link.goodput_bps(direction, options.seconds)
                yield link.row(
                    f"goodput {direction} {rate_mbps} Mbit/s", wanted_bps, goodput_bps
                )


def round_trips(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for rtt_ms in RTTS_MS if options.delay else ():
        spec = LinkSpec(20e6, 20e6, rtt_ms / 2e3, congestion=options.congestion)
        with emulate(spec, backend=options.backend, calibrated=False) as emulation:
            found = calibrate(emulation)
            allowed_s = 0.0005 + 0.02 * spec.rtt_s
            over_s = found.rtt_measured_s - found.rtt_configured_s
            stats = emulation.stats()
            yield {
                "what": f"RTT {rtt_ms} ms",
                "backend": emulation.backend,
                "wanted": found.rtt_configured_s,
                "measured": found.rtt_measured_s,
                "error": over_s / spec.rtt_s,
                "within": -0.02 * spec.rtt_s <= over_s <= allowed_s,
                "lateness_p50_s": stats.lateness_p50_s,
                "lateness_p99_s": stats.lateness_p99_s,
                "cpu_share": None,
            }


def sinusoids(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for period_s, step_s in ((2.0, 0.1), (0.1, 0.01)):
        trace = sinusoid(10e6, 6e6, period_s, step_s)
        delay_s = options.delay / 1e3
        spec = LinkSpec(trace, trace, delay_s, congestion=options.congestion)
        with linked(spec, options.backend) as link:
            # What arrives left the line a delay ago.
            origin_s = link.emulation.start_trace() + delay_s
            for direction in ("uplink", "downlink"):
                goodput_bps = link.goodput_bps(direction, options.seconds)
                since_s, until_s = (each - origin_s for each in link.window_s)
                bits = trace.nbits_by(until_s) - trace.nbits_by(since_s)
                wanted_bps = bits / (until_s - since_s) * GOODPUT_SHARE
                name = f"sinusoid {direction} {period_s:g} s in steps of {step_s * 1e3:g} ms"
                yield link.row(name, wanted_bps, goodput_bps)


def sinusoid(mean_bps: float, swing_bps: float, period_s: float, step_s: float) -> Trace:
    count = round(period_s / step_s)
    rates_bps = [
        mean_bps + swing_bps * math.sin(2 * math.pi * n / count) for n in range(count)
    ]
    return Trace("sinusoid", [n * step_s for n in range(count + 1)], rates_bps)


@dataclass(slots=True)
class Link:
    """A link, a connection over it, and how the latest transfer went."""

    emulation: Emulation
    edge: socket.socket
    cloud: socket.socket
    cpu_share: float = 0.0
    window_s: tuple[float, float] = (0.0, 0.0)

    def goodput_bps(self, direction: str, seconds: float) -> float:
        """Payload bits per second at the receiver, from `WARM_UP_S` after the start on."""
        way = (self.edge, self.cloud) if direction == "uplink" else (self.cloud, self.edge)
        begun_s, cpu_s = time.monotonic(), self._cpu_s()
        first, last = transfer(*way, begun_s + WARM_UP_S, begun_s + WARM_UP_S + seconds)
        self.cpu_share = (self._cpu_s() - cpu_s) / (time.monotonic() - begun_s)
        self.window_s = first[0], last[0]
        return (last[1] - first[1]) * 8 / (last[0] - first[0])

    def row(self, what: str, wanted_bps: float, measured_bps: float) -> dict[str, Any]:
        stats = self.emulation.stats()
        allowed = 0.05 if self.emulation.backend == "proxy" else 0.02
        error = measured_bps / wanted_bps - 1
        return {
            "what": what,
            "backend": self.emulation.backend,
            "wanted": wanted_bps,
            "measured": measured_bps,
            "error": error,
            "within": abs(error) <= allowed,
            "lateness_p50_s": stats.lateness_p50_s,
            "lateness_p99_s": stats.lateness_p99_s,
            "cpu_share": self.cpu_share,
        }

    def _cpu_s(self) -> float:
        with open(f"/proc/{self.emulation.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def linked(spec: LinkSpec, backend: str) -> Iterator[Link]:
    """A link with one connection over it."""
    with contextlib.ExitStack() as stack:
        emulation = stack.enter_context(emulate(spec, backend=backend, calibrated=False))
        with inside(emulation.cloud_namespace):
            listener = stack.enter_context(socket.create_server((emulation.cloud_address, 0)))
        address = parse_address(emulation.reach("{}:{}".format(*listener.getsockname())))
        with inside(emulation.edge_namespace):
            edge = stack.enter_context(socket.create_connection(address))
        cloud, _ = listener.accept()
        yield Link(emulation, edge, stack.enter_context(cloud))


@contextlib.contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    if namespace is None:
        yield
        return
    fd = os.open(namespace, os.O_RDONLY)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


Mark = tuple[float, int]


def transfer(
    source: socket.socket, sink: socket.socket, from_s: float, until_s: float
) -> tuple[Mark, Mark]:
    """Send as much as goes; the first and the last arrival between two moments, each with all
    bytes by then. What is still on its way is read before it returns.
    """
    for each in (source, sink):
        each.setblocking(False)
    sent, received = 0, 0
    marks: list[Mark] = []
    while time.monotonic() < until_s or received < sent:
        open_still = time.monotonic() < until_s
        readable, writable, _ = select.select([sink], [source] if open_still else [], [], 0.1)
        if writable:
            with contextlib.suppress(BlockingIOError):
                sent += source.send(BLOCK)
        if readable:
            received += len(sink.recv(1 << 20))
            now_s = time.monotonic()
            if from_s <= now_s <= until_s:
                marks = [*marks[:1], (now_s, received)]
    return marks[0], marks[-1]


def _print(row: dict[str, Any]) -> None:
    cpu = "" if row["cpu_share"] is None else f"{row['cpu_share']:6.1%} of a core"
    unit, scale = ("ms", 1e3) if row["what"].startswith("RTT") else ("Mbit/s", 1e-6)
    print(
        f"{row['what']:44} {row['backend']:6} wanted {row['wanted'] * scale:8.3f} {unit:6} "
        f"measured {row['measured'] * scale:8.3f} ({row['error']:+6.2%}) "
        f"{'' if row['within'] else 'OUTSIDE '}late p50 {row['lateness_p50_s'] * 1e6:.0f} "
        f"p99 {row['lateness_p99_s'] * 1e6:.0f} us {cpu}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
