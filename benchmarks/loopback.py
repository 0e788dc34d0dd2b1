"""What splitting costs where the link costs nothing: end to end, and in the cloud's processor.

    python benchmarks/loopback.py [--blocks 12] [--tails-ms 10,25] [--json]

Cloud and edge are two processes on loopback without shaping. A stack of convolutions is cut
where 200, 400 and 800 KB cross; the tail is as long as asked for. `overhead` is a request's
time, from submission to answer, less that of its segments; `cpu` is the cloud's processor time
per request over that of the same tail run alone. Targets: an overhead of at most 2 ms for up
to 800 KB raw and of at most 1.25 times the echo's (`overhead_ratio`, with the quartiles of the
blocks' own ratios), and a cpu of at most 1.08 for tails of 10 ms and more.

Requests follow one another without a pause. The pair, the tail alone and a bare echo take
turns in blocks, so that what else the machine does meets all three alike. The echo is the
floor under any server on grpc.aio: its handler gives the bytes that came to a thread, which
runs the tail on them, and sends the output's; without protobuf, codecs, checksums, a queue or
a session. `low` and `high` are the quartiles of the blocks' medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from midstream_edge.session.session import EdgeSession
from midstream_lab.processes.process import Process
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.allocator import keep_freed_memory

#: Side of the [1, 64, side, side] float32 tensor that crosses: 200, 400 and 800 KB.
SIDES = (28, 40, 56)
#: Requests in a block, and those in front that only warm the caches.
BLOCK, WARM_UP = 20, 3

_ECHO = "/bench.Echo/Session"

#: One request: how long it took, and how long its segments did, in seconds.
Ask = Callable[[], tuple[float, float]]


def stack(side: int, layers: int) -> Partition:
    """3x3 convolutions in a row, cut behind the first."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for at in range(layers + 1):
        values = (rng.standard_normal((64, 64, 3, 3)) * 0.05).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("Conv", [last, f"w{at}"], [f"c{at}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last = f"r{at}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    shape = [1, 64, side, side]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 1, 1])]
    graph = helper.make_graph(nodes, "stack", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    network = load_network(helper.make_model(graph, opset_imports=opset, ir_version=9))
    cuts = position_cuts(network.graph)
    return partition(network, [cut for cut in cuts if cut.tensors == ("r0",)])


def layers_for(side: int, tail_s: float) -> int:
    """As many layers as take about `tail_s` on this machine."""
    part = stack(side, 8)
    chain = Chain(part)
    x = {"x": np.random.default_rng(1).random((1, 64, side, side), np.float32)}
    state = chain.run(x, 0, 1)
    times = []
    for _ in range(20):
        started = time.thread_time()
        chain.run(state, 1, 2)
        times.append(time.thread_time() - started)
    return max(1, round(8 * tail_s / float(np.median(times))))


def measure(side: int, tail_s: float, blocks: int) -> dict[str, float]:
    part = stack(side, layers_for(side, tail_s))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "stack.midstream"
        save_partition(part, folder)
        chain = Chain(part)
        x = {"x": np.random.default_rng(1).random((1, 64, side, side), np.float32)}
        with pair(chain, folder, x) as (ask, cloud), echo(chain, folder, x) as (call, bare):
            return compare(chain, x, {"pair": (ask, cloud), "echo": (call, bare)}, blocks)


@contextmanager
def pair(
    chain: Chain, folder: Path, x: dict[str, Any]
) -> Iterator[tuple[Ask, psutil.Process]]:
    """midstream itself, the cloud as the command starts it."""
    flags = ["cloud", "serve", str(folder), "--listen", "127.0.0.1:0", "--runs", "0"]
    with Process("cloud", "midstream", [*flags, "--workers", "1", "--json"]) as cloud:
        address = cloud.document(60.0)["listening"]
        with EdgeSession(chain, address, plan=(1, "raw"), model="stack") as session:

            def ask() -> tuple[float, float]:
                started = time.perf_counter()
                answer = session.infer(x)
                total_s = time.perf_counter() - started
                assert answer.where == "cloud", answer.reason
                return total_s, answer.timings.head_s + answer.timings.tail_s

            yield ask, psutil.Process(cloud.pid)


@contextmanager
def echo(
    chain: Chain, folder: Path, x: dict[str, Any]
) -> Iterator[tuple[Ask, psutil.Process]]:
    """The bare echo: this file as a process, and a stream to it."""
    command = [sys.executable, __file__, "--echo", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            replies = channel.stream_stream(_ECHO)(iter(outgoing.get, None))

            def ask() -> tuple[float, float]:
                started = time.perf_counter()
                crossing = chain.run(x, 0, 1)["r0"]
                head_s = time.perf_counter() - started
                outgoing.put(crossing.tobytes())
                tail_s = float(np.frombuffer(next(replies), np.float64)[0])
                return time.perf_counter() - started, head_s + tail_s

            yield ask, psutil.Process(process.pid)
            outgoing.put(None)
        process.kill()


async def serve_echo(folder: Path) -> None:
    """Answer each message with its tail's time and output; print the port."""
    part = load_partition(folder)
    chain, (spec,) = Chain(part), part.crossing(1)
    shape = tuple(map(int, spec.shape))
    pool = ThreadPoolExecutor(1)

    def run(message: bytes) -> bytes:
        began = time.perf_counter()
        crossing = np.frombuffer(message, np.float32).reshape(shape)
        y = chain.run({spec.name: crossing}, 1, 2)["y"]
        return np.float64(time.perf_counter() - began).tobytes() + y.tobytes()

    async def session(_requests: object, context: Any) -> None:
        loop = asyncio.get_running_loop()
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(await loop.run_in_executor(pool, run, message))

    server = grpc.aio.server(options=[("grpc.http2.bdp_probe", 0),
                                      ("grpc.http2.lookahead_bytes", 1 << 22)])  # fmt: skip
    _, service, method = _ECHO.split("/")
    handlers = {method: grpc.stream_stream_rpc_method_handler(session)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def compare(
    chain: Chain,
    x: dict[str, Any],
    sides: dict[str, tuple[Ask, psutil.Process]],
    blocks: int,
) -> dict[str, float]:
    """Blocks of requests in turn, and of the tail alone in this process."""
    state = chain.run(x, 0, 1)
    alone_s = []
    cpu_s: dict[str, list[float]] = {name: [] for name in sides}
    times: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in sides}
    for block in range(blocks + 1):  # the first is for warming up
        before = time.thread_time()
        for _ in range(BLOCK):
            chain.run(state, 1, 2)
        alone_s.append((time.thread_time() - before) / BLOCK)
        for name in sorted(sides, reverse=block % 2 == 0):
            ask, process = sides[name]
            for _ in range(WARM_UP):
                ask()
            started_s = processor_s(process)
            times[name].append([ask() for _ in range(BLOCK)])
            cpu_s[name].append((processor_s(process) - started_s) / BLOCK)
    tail_s = float(np.mean(alone_s[1:]))
    row = {"payload_kb": state["r0"].nbytes / 1e3, "tail_cpu_ms": 1e3 * tail_s}
    for name in sides:
        row |= summary(name, times[name][1:], cpu_s[name][1:], tail_s)
    return row | ratio(times["pair"][1:], times["echo"][1:])


def ratio(
    pair: list[list[tuple[float, float]]], echo: list[list[tuple[float, float]]]
) -> dict[str, float]:
    """The pair's overhead over the echo's: of all medians, and block by block, in turn."""

    def overheads(times: list[list[tuple[float, float]]]) -> Any:
        measured = np.array(times)
        return np.median(measured[..., 0] - measured[..., 1], axis=1)

    ratios = overheads(pair) / overheads(echo)
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {
        "overhead_ratio": float(middle),
        "overhead_ratio_low": float(low),
        "overhead_ratio_high": float(high),
    }


def summary(
    name: str, times: list[list[tuple[float, float]]], cpu_s: list[float], tail_s: float
) -> dict[str, float]:
    """Medians over all requests, quartiles over the blocks' medians."""
    measured = np.array(times)
    overhead = 1e3 * (measured[..., 0] - measured[..., 1])
    low, high = np.quantile(np.median(overhead, axis=1), (0.25, 0.75))
    return {
        f"{name}_p50_ms": 1e3 * float(np.median(measured[..., 0])),
        f"{name}_overhead_p50_ms": float(np.median(overhead)),
        f"{name}_overhead_low_ms": float(low),
        f"{name}_overhead_high_ms": float(high),
        f"{name}_overhead_p90_ms": float(np.quantile(overhead, 0.9)),
        f"{name}_cpu": float(np.mean(cpu_s)) / tail_s,
    }


def processor_s(process: psutil.Process) -> float:
    """Seconds in steps of a clock tick, 10 ms: means over many blocks are finer than that."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=12, help="of 20 requests each")
    parser.add_argument("--tails-ms", default="10,25")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--echo", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.echo:
        asyncio.run(serve_echo(options.echo))
        return
    rows = []
    for tail_ms in map(float, options.tails_ms.split(",")):
        for side in SIDES:
            row = measure(side, tail_ms / 1e3, options.blocks)
            rows.append(row)
            if not options.json:
                print(
                    "  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True
                )
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
