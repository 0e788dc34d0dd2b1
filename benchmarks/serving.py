"""What serving a tail costs beside running it: time per request, and processor time.

    python benchmarks/serving.py [--layers 12] [--requests 100] [--codec raw] [--json]

The cloud runs as a process of its own on loopback, without shaping; this process sends what
crosses the cut (float32 [1, 64, 56, 56], 803 KB raw) over one session, one request at a time.
Between two requests it runs the same tail itself, so that both see the machine alike.
`overhead` is a request's time less the tail's in the cloud; `cpu` is the cloud's processor
time per request over that of the tail alone.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, run
from midstream_partitioner.chain import Chain
from midstream_partitioner.cuts import position_cuts
from midstream_partitioner.intake import load_network
from midstream_partitioner.partition import Partition, partition
from midstream_wire.allocator import keep_freed_memory
from midstream_wire.codecs import codec, encode
from midstream_wire.frames import Hello, Reply
from midstream_wire.messages import read_server, write_client
from midstream_wire.tensors import Array
from midstream_wire.transfers import Incoming, request_frames
from midstream_wire.v1.midstream_pb2_grpc import MidstreamStub

SHAPE = [1, 64, 56, 56]
WARM_UP = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12, help="convolutions in the tail")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--codec", default="raw")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    part = make_partition(options.layers)
    if options.serve:
        return serve(part)
    result = measure(part, options)
    if options.json:
        print(json.dumps(result))
    else:
        print("  ".join(f"{name} {value:.3f}" for name, value in result.items()))
    return 0


def make_partition(layers: int) -> Partition:
    """A stack of 3x3 convolutions, cut behind the first one."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for at in range(layers + 1):
        values = (rng.standard_normal((64, 64, 3, 3)) * 0.05).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("Conv", [last, f"w{at}"], [f"c{at}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last = f"r{at}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 1, 1])]
    graph = helper.make_graph(nodes, "stack", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    network = load_network(onnx.ModelProto.SerializeToString(model), name="stack")
    cuts = position_cuts(network.graph)
    return partition(network, [cut for cut in cuts if cut.tensors == ("r0",)])


def serve(part: Partition) -> int:
    repository = Repository()
    repository.add("stack", part)
    settings = Settings(workers=1)
    run(
        repository,
        "127.0.0.1:0",
        settings=settings,
        on_start=lambda address: print(address, flush=True),
    )
    return 0


@contextmanager
def cloud(layers: int) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, __file__, "--serve", "--layers", str(layers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield psutil.Process(process.pid), process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(part: Partition, options: argparse.Namespace) -> dict[str, float]:
    keep_freed_memory()
    rng = np.random.default_rng(1)
    chain = Chain(part)
    crossing = chain.run({"x": rng.standard_normal(SHAPE).astype(np.float32)}, 0, 1)
    alone_s: list[float] = []
    alone_cpu_s: list[float] = []
    totals_s: list[float] = []
    overheads_s: list[float] = []
    with (
        cloud(options.layers) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        ask = open_session(channel, part)
        for id in range(WARM_UP + options.requests):
            if id == WARM_UP:
                before_s = processor_s(process)
                for samples in (alone_s, alone_cpu_s, totals_s, overheads_s):
                    samples.clear()
            started_s, started_cpu_s = time.perf_counter(), time.thread_time()
            chain.run(crossing, 1, 2)
            alone_cpu_s.append(time.thread_time() - started_cpu_s)
            alone_s.append(time.perf_counter() - started_s)
            started_s = time.perf_counter()
            reply = ask(id, crossing, options.codec)
            totals_s.append(time.perf_counter() - started_s)
            overheads_s.append(totals_s[-1] - reply.timings.tail_s)
        served_cpu_s = (processor_s(process) - before_s) / options.requests
    return {
        "tail_alone_ms": 1e3 * statistics.median(alone_s),
        "p50_ms": 1e3 * statistics.median(totals_s),
        "overhead_p50_ms": 1e3 * statistics.median(overheads_s),
        "served_cpu_ms": 1e3 * served_cpu_s,
        "cpu": served_cpu_s / statistics.mean(alone_cpu_s),
    }


def open_session(channel: grpc.Channel, part: Partition):  # type: ignore[no-untyped-def]
    outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    call = MidstreamStub(channel).Session(iter(outbox.get, None))
    outbox.put(write_client(Hello("stack", part.digest)))
    next(call)

    def ask(id: int, tensors: dict[str, Array], codec_id: str) -> Reply:
        payloads = {name: encode(codec(codec_id), array) for name, array in tensors.items()}
        for frame in request_frames(id, 1, payloads):
            outbox.put(write_client(frame))
        reply = read_server(next(call))
        assert isinstance(reply, Reply)
        assert reply.status.ok, reply.status
        incoming = Incoming(reply.tensors, part.outputs_from(1), max_nbytes=1 << 20)
        for piece in reply.pieces:
            incoming.feed(piece)
        incoming.result()
        return reply

    return ask


def processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())
