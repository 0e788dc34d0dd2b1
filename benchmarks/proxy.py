"""How exact the emulated link is: rate both ways and round trip, against what was asked.

    python benchmarks/proxy.py [--seconds 2] [--json]

The proxy runs as a process of its own, as in real use; this process is both ends. Rates are
payload bits over the time from the first byte sent to the acknowledgement of the last one by
the far end's program, less one round trip; round trips are medians of 50 exchanges of 16
bytes on the idle link.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from midstream_lab.traces.conditions import CONDITIONS, Condition, condition

SWEEP = (
    "0.5Mbit:20ms",
    "2Mbit:20ms",
    "20Mbit:20ms",
    "100Mbit:10ms",
    "300Mbit:5ms",
    "1Gbit:2ms",
)
EXCHANGES = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one transfer")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    conditions = [*CONDITIONS.values(), *map(condition, SWEEP)]
    rows = [measure(each, options.seconds) for each in conditions]
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.platform()}
        print(json.dumps({"machine": machine, "seconds": options.seconds, "rows": rows}))
        return 0
    print(f"{'network':20} {'uplink':>18} {'downlink':>18} {'RTT added':>10} {'late p99':>9}")
    for row in rows:
        print(
            f"{row['network']:20} {row['uplink_bps'] / 1e6:9.2f} {error(row, 'uplink')} "
            f"{row['downlink_bps'] / 1e6:9.2f} {error(row, 'downlink')} "
            f"{row['rtt_added_s'] * 1e3:7.2f} ms {row['lateness_p99_s'] * 1e3:6.2f} ms"
        )
    return 0


def error(row: dict[str, float], direction: str) -> str:
    return f"({row[f'{direction}_error'] * 100:+5.1f} %)"


def measure(network: Condition, seconds: float) -> dict[str, float]:
    with echo_server() as target, proxy_process(target, network) as (process, address):
        with socket.create_connection(address) as end:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            rtt_s = statistics.median(exchange(end, 16, 16) for _ in range(EXCHANGES))
            uplink_nbytes = int(network.uplink_bps * seconds / 8)
            downlink_nbytes = int(network.downlink_bps * seconds / 8)
            up_s = exchange(end, uplink_nbytes, 16) - rtt_s
            down_s = exchange(end, 16, downlink_nbytes) - rtt_s
        process.terminate()
        output, _ = process.communicate(timeout=10)
        stats = json.loads(output.splitlines()[-1])
    uplink_bps, downlink_bps = uplink_nbytes * 8 / up_s, downlink_nbytes * 8 / down_s
    return {
        "network": network.name,
        "uplink_bps": uplink_bps,
        "uplink_error": uplink_bps / network.uplink_bps - 1,
        "downlink_bps": downlink_bps,
        "downlink_error": downlink_bps / network.downlink_bps - 1,
        "rtt_s": rtt_s,
        "rtt_added_s": rtt_s - network.rtt_s,
        "lateness_p99_s": max(stats[way]["lateness_p99_s"] for way in ("uplink", "downlink")),
    }


def exchange(end: socket.socket, request_nbytes: int, reply_nbytes: int) -> float:
    """Seconds until the whole reply is here."""
    header = request_nbytes.to_bytes(8, "big") + reply_nbytes.to_bytes(8, "big")
    request = header + bytes(request_nbytes - 16)
    begin_s = time.perf_counter()
    end.sendall(request)
    drain(end, reply_nbytes)
    return time.perf_counter() - begin_s


@contextlib.contextmanager
def echo_server() -> Iterator[tuple[str, int]]:
    """Reads requests of the size that their header says, replies with what it asks for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()


def serve(listener: socket.socket) -> None:
    end, _ = listener.accept()
    with end:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := end.recv(16, socket.MSG_WAITALL):
            drain(end, int.from_bytes(header[:8], "big") - 16)
            end.sendall(bytes(int.from_bytes(header[8:], "big")))


def drain(end: socket.socket, nbytes: int) -> None:
    while nbytes:
        nbytes -= len(end.recv(min(nbytes, 1 << 20)))


@contextlib.contextmanager
def proxy_process(
    target: tuple[str, int], network: Condition
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    rates = f"{network.uplink_bps:.0f}bit:{network.downlink_bps:.0f}bit:{network.rtt_s}s"
    command = [sys.executable, "-m", "midstream_lab.emulation.proxy.proxy", "--link", rates]
    command += ["--target", f"{target[0]}:{target[1]}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, _, port = json.loads(process.stdout.readline())["listening"].rpartition(":")
            yield process, (host, int(port))
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
