"""Measures a link from both of its ends at once: round trip, and rate each way.

    python -m midstream_lab.emulation.self_test.meter

speaks JSON lines, and `validity.calibrate` drives it.

One process holds the sockets of both ends, each made in its namespace, so that one clock times
everything. Over packets, rates come from a train of UDP datagrams that keeps the line busy,
stamped by the kernel as they arrive: TCP's slow start would take seconds. Over a proxy, from a
TCP transfer, which has none there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import statistics
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from midstream_lab.emulation.host.backend_server import PRIORITY, hurry
from midstream_lab.emulation.host.namespaces import entered
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, MTU_NBYTES
from midstream_lab.emulation.proxy.proxy import parse_address

#: A measurement of one rate takes about this long, and as many packets at least.
TRAIN_S: Final = 0.4
LEAST_PACKETS: Final = 20
#: The train is sent faster than the line, ahead of it by this much at the start.
EAGERNESS: Final = 1.15
AHEAD_S: Final = 0.05
#: The last exchange's acknowledgement is not part of the train (Linux's TCP_DELACK_MAX).
DELAYED_ACK_S: Final = 0.2
#: Beyond this rate, one process cannot send single datagrams fast enough.
MOST_DATAGRAMS_BPS: Final = 200e6
UDP_HEADERS_NBYTES: Final = 28
#: Nothing came for so long (beside the delay): what is missing was dropped.
QUIET_S: Final = 0.3
_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_BUFFER_NBYTES: Final = 8 << 20


def main() -> int:
    """First line in: `edge` and `cloud` (namespaces or null), `address` to listen on; first
    line out: `listening`. Second line in: `connect`, rates, delay; second line out: figures.
    """
    where = json.loads(sys.stdin.readline())
    with contextlib.ExitStack() as stack:
        fds = {
            end: None if where[end] is None else os.open(where[end], os.O_RDONLY)
            for end in ("edge", "cloud")
        }
        with _inside(fds["cloud"]):
            listener = stack.enter_context(socket.create_server((where["address"], 0)))
        _say({"listening": "{}:{}".format(*listener.getsockname())})
        asked = json.loads(sys.stdin.readline())
        hurry(
            PRIORITY // 2
        )  # before whoever else is at work, behind the link that it measures
        with _inside(fds["edge"]):
            edge = stack.enter_context(socket.socket())
            edge.settimeout(asked["timeout_s"])
            edge.connect(parse_address(asked["connect"]))
        cloud, _ = listener.accept()
        stack.enter_context(cloud).settimeout(asked["timeout_s"])
        _say(measure(edge, cloud, fds, asked))
    return 0


def measure(
    edge: socket.socket,
    cloud: socket.socket,
    fds: Mapping[str, int | None],
    asked: Mapping[str, Any],
) -> dict[str, float]:
    """Median round trip in seconds, and both rates in bits of IP packets per second."""
    figures = {"rtt_s": round_trip_s(edge, cloud, asked)}
    time.sleep(DELAYED_ACK_S)
    for direction, source, sink in (("uplink", edge, cloud), ("downlink", cloud, edge)):
        rate_bps = asked[f"{direction}_bps"]
        if asked["packets"] and rate_bps <= MOST_DATAGRAMS_BPS:
            ends = ("edge", "cloud") if direction == "uplink" else ("cloud", "edge")
            measured_bps = train_bps(
                (source.getsockname()[0], fds[ends[0]]),
                (sink.getsockname()[0], fds[ends[1]]),
                rate_bps,
                asked["rtt_s"],
            )
        else:
            payload_bps = transfer_bps(
                source, sink, rate_bps, asked["rtt_s"], packets=asked["packets"]
            )
            measured_bps = payload_bps / GOODPUT_SHARE
        figures[f"{direction}_bps"] = measured_bps
    return figures


def round_trip_s(edge: socket.socket, cloud: socket.socket, asked: Mapping[str, Any]) -> float:
    """The median over exchanges of a second or so, the first one left out."""
    message = bytes(asked["exchange_nbytes"])
    for each in (edge, cloud):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    count = min(40, max(5, int(1 / max(asked["rtt_s"], 1e-3))))
    taken_s = []
    for _ in range(count + 1):
        begun_s = time.perf_counter()
        edge.sendall(message)
        _receive(cloud, len(message))
        cloud.sendall(message)
        _receive(edge, len(message))
        taken_s.append(time.perf_counter() - begun_s)
    return statistics.median(taken_s[1:])


End = tuple[str, int | None]


def train_bps(source: End, sink: End, rate_bps: float, rtt_s: float) -> float:
    """The rate at which a train of datagrams arrives, in bits of IP packets per second."""
    with contextlib.ExitStack() as stack:
        with _inside(sink[1]):
            inlet = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            inlet.bind((sink[0], 0))
        inlet.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with contextlib.suppress(OSError):  # a privilege; without it, the buffer is smaller
            inlet.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_NBYTES)
        inlet.setblocking(False)
        with _inside(source[1]):
            outlet = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        outlet.connect(inlet.getsockname())
        outlet.setblocking(False)
        return _train(outlet, inlet, rate_bps, rtt_s)


def _train(
    outlet: socket.socket, inlet: socket.socket, rate_bps: float, rtt_s: float
) -> float:
    wanted_nbytes = rate_bps * TRAIN_S / 8
    packet_nbytes = min(MTU_NBYTES, max(100, int(wanted_nbytes / LEAST_PACKETS)))
    count = max(LEAST_PACKETS, int(wanted_nbytes / packet_nbytes))
    payload = bytes(packet_nbytes - UDP_HEADERS_NBYTES)
    pace_hz = EAGERNESS * rate_bps / 8 / packet_nbytes
    arrivals_s: list[float] = []
    sent, begun_s = 0, time.perf_counter()
    heard_s = begun_s
    while len(arrivals_s) < count:
        now_s = time.perf_counter()
        due = min(count, 2 + int((now_s - begun_s + AHEAD_S) * pace_hz))
        with contextlib.suppress(BlockingIOError):
            while sent < due:
                outlet.send(payload)
                sent += 1
        select.select([inlet], [], [], 0.001 if sent < count else 0.05)
        if came_s := _arrivals_s(inlet):
            arrivals_s += came_s
            heard_s = time.perf_counter()
        packet_s = packet_nbytes * 8 / rate_bps
        if sent == count and now_s - heard_s > QUIET_S + rtt_s + 2 * packet_s:
            break
    if len(arrivals_s) < 2:
        return 0.0
    taken_s = arrivals_s[-1] - arrivals_s[0]
    return (len(arrivals_s) - 1) * packet_nbytes * 8 / taken_s


def _arrivals_s(inlet: socket.socket) -> list[float]:
    """Return when the kernel got what has come, on its own clock."""
    came_s = []
    with contextlib.suppress(BlockingIOError):
        while True:
            _, ancillary, _, _ = inlet.recvmsg(1, 64)
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            came_s.append(seconds + nanoseconds / 1e9)
    return came_s


def transfer_bps(
    source: socket.socket,
    sink: socket.socket,
    rate_bps: float,
    rtt_s: float,
    *,
    packets: bool,
) -> float:
    """The payload rate of a TCP transfer, at its receiver, from its middle to its end.

    Over packets it is longer, for TCP to find the rate.
    """
    for each in (source, sink):
        each.setblocking(False)
    warm_up_s = TRAIN_S + 10 * rtt_s if packets else 0.0
    wanted = int(rate_bps / 8 * (TRAIN_S + warm_up_s) * GOODPUT_SHARE)
    total = max(wanted, LEAST_PACKETS * MTU_NBYTES // 2)
    block = memoryview(bytes(1 << 18))
    sent, received = 0, 0
    marks: list[tuple[float, int]] = []
    while received < total:
        outgoing = [source] if sent < total else []
        select.select([sink], outgoing, [])
        with contextlib.suppress(BlockingIOError):
            while sent < total:
                sent += source.send(block[: total - sent])
        with contextlib.suppress(BlockingIOError):
            received += len(sink.recv(1 << 20))
        if not marks or received > marks[-1][1]:
            marks.append((time.perf_counter(), received))
    for each in (source, sink):
        each.setblocking(True)
    middle = next(mark for mark in marks if mark[1] >= total / 2)
    taken_s = marks[-1][0] - middle[0]
    return (marks[-1][1] - middle[1]) * 8 / taken_s if taken_s > 0 else 0.0


def _receive(end: socket.socket, nbytes: int) -> None:
    while nbytes:
        data = end.recv(nbytes)
        if not data:
            raise ConnectionResetError("the link closed while it was measured")
        nbytes -= len(data)


def _inside(fd: int | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if fd is None else entered(fd)


def _say(document: Mapping[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
