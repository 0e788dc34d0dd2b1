"""How a server's decoding grows with its workers, codec by codec.

    python benchmarks/decoding.py [--seconds 2] [--codecs raw,half,ec:0.5,ctx:0.5] [--json]

Two clients on two connections keep 8 requests each under way, each 800 KB of activations
encoded once; the tail behind the cut takes next to nothing. Servers of one and of two workers
take turns. `growth` is the second one's rate over the first one's; where two cores have other
work to do, `machine` says by how much two processes that only compute get more done than one,
which is the most that there was to be had. Target: a growth of 1.8 for ctx on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from onnx import TensorProto, helper

from midstream_lab.processes.process import Process
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.frames import Hello, Piece, Reply, Request, Welcome
from midstream_wire.limits import MAX_IN_FLIGHT
from midstream_wire.messages import read_server, write_client

SHAPE = (1, 64, 56, 56)
CLIENTS = 2
TURNS = 3

_SPIN = "import time; t = time.process_time\nwhile t() < {}: pass"


def network() -> Partition:
    """A rectifier, and behind the cut the mean of a few of its elements."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Constant", [], ["from"], value_ints=[0, 0]),
        helper.make_node("Constant", [], ["to"], value_ints=[1, 1]),
        helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
        helper.make_node("Slice", ["r", "from", "to", "axes"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "corner",
        [value("x", TensorProto.FLOAT, list(SHAPE))],
        [value("y", TensorProto.FLOAT, [1, 64, 1, 1])],
    )
    opset = [helper.make_opsetid("", 17)]
    found = load_network(helper.make_model(graph, opset_imports=opset, ir_version=8))
    cuts = position_cuts(found.graph)
    return partition(found, [cut for cut in cuts if cut.tensors == ("r",)])


@contextmanager
def server(folder: Path, workers: int) -> Iterator[str]:
    flags = ["cloud", "serve", str(folder), "--listen", "127.0.0.1:0", "--runs", "0"]
    with Process("cloud", "midstream", [*flags, "--workers", str(workers), "--json"]) as cloud:
        yield cloud.document(60.0)["listening"]


class Client:
    """One session that keeps its window full of the same request."""

    def __init__(self, address: str, part: Partition) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        session = self._channel.stream_stream("/midstream.v1.Midstream/Session")
        self._replies = session(iter(self._outgoing.get, None))
        self._id = 0
        self._outgoing.put(write_client(Hello("corner", part.digest)))
        assert isinstance(read_server(next(self._replies)), Welcome)

    def send(self, payload: bytes) -> None:
        self._id += 1
        self._outgoing.put(write_client(Request(self._id, 1, ("r",), (Piece(0, payload),))))

    def hear(self) -> None:
        reply = read_server(next(self._replies))
        assert isinstance(reply, Reply)
        assert reply.status.ok, reply.status

    def close(self) -> None:
        self._outgoing.put(None)
        self._channel.close()


def rate_hz(clients: list[Client], payload: bytes, seconds: float) -> float:
    """Answers per second, all clients together, with all windows full."""
    for client in clients:
        for _ in range(MAX_IN_FLIGHT):
            client.send(payload)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for client in clients:
            client.hear()
            client.send(payload)
        count += len(clients)
    took = time.perf_counter() - began
    for client in clients:
        for _ in range(MAX_IN_FLIGHT):
            client.hear()
    return count / took


def machine_growth(seconds: float) -> float:
    """How much more two processes compute than one: 2 on two idle cores."""

    def took_s(count: int) -> float:
        began = time.perf_counter()
        spinning = [
            subprocess.Popen([sys.executable, "-c", _SPIN.format(seconds)])
            for _ in range(count)
        ]
        for each in spinning:
            each.wait()
        return time.perf_counter() - began

    return 2 * took_s(1) / took_s(2)


def measure(ids: list[str], seconds: float) -> list[dict[str, Any]]:
    part = network()
    activations = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    payloads = {name: encode_bytes(codec(name), np.maximum(activations, 0)) for name in ids}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary) / "corner.midstream"
        save_partition(part, folder)
        clients: dict[int, list[Client]] = {}
        for workers in (1, 2):
            address = stack.enter_context(server(folder, workers))
            clients[workers] = [Client(address, part) for _ in range(CLIENTS)]
            for client in clients[workers]:
                stack.callback(client.close)
        return [row(name, payloads[name], clients, seconds) for name in ids]


def row(
    name: str, payload: bytes, clients: dict[int, list[Client]], seconds: float
) -> dict[str, Any]:
    for each in clients.values():
        rate_hz(each, payload, seconds / 2)  # warm
    rates: dict[int, list[float]] = {workers: [] for workers in clients}
    growths = []
    for _ in range(TURNS):
        for workers, each in clients.items():
            rates[workers].append(rate_hz(each, payload, seconds))
        growths.append(machine_growth(seconds / 4))
    one, two = (float(np.median(rates[workers])) for workers in (1, 2))
    ratios = sorted(b / a for a, b in zip(rates[1], rates[2], strict=True))
    return {
        "codec": name,
        "payload_kb": len(payload) / 1e3,
        "one_hz": one,
        "two_hz": two,
        "growth": two / one,
        "growth_low": ratios[0],
        "growth_high": ratios[-1],
        "machine": float(np.median(growths)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--codecs", default="raw,lossless,half,ec:0.5,ctx:0.5")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.codecs.split(","), options.seconds)
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    for each in rows:
        print("  ".join(f"{k} {v if k == 'codec' else f'{v:.2f}'}" for k, v in each.items()))


if __name__ == "__main__":
    main()
