"""What splitting costs where the link costs nothing: time end to end, and the cloud's CPU.

    python benchmarks/loopback.py [--requests 200] [--json]

Cloud and edge are two processes on loopback without shaping. A stack of convolutions is cut
where 200, 400 and 800 KB cross; the tail is as long as asked for. `overhead` is a request's
time, from submission to answer, less that of its segments; `cpu` is the cloud's processor time
per request over that of the same tail run alone, which this process does in turn with the
requests. Targets: an overhead of at most 2 ms for up to 800 KB raw, and a cpu of at most 1.10
for tails of 10 ms and more.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from midstream_edge.session import EdgeSession
from midstream_lab.processes import Process
from midstream_partitioner.artefact import save_partition
from midstream_partitioner.chain import Chain
from midstream_partitioner.cuts import position_cuts
from midstream_partitioner.intake import load_network
from midstream_partitioner.partition import Partition, partition
from midstream_wire.allocator import keep_freed_memory

#: Side of the [1, 64, side, side] float32 tensor that crosses: 200, 400 and 800 KB.
SIDES = (28, 40, 56)
WARM_UP = 20


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
        started = time.perf_counter()
        chain.run(state, 1, 2)
        times.append(time.perf_counter() - started)
    return max(1, round(8 * tail_s / float(np.median(times))))


def measure(side: int, tail_s: float, requests: int) -> dict[str, float]:
    part = stack(side, layers_for(side, tail_s))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "stack.midstream"
        save_partition(part, folder)
        flags = ["cloud", "serve", str(folder), "--listen", "127.0.0.1:0", "--runs", "0"]
        with Process("cloud", "midstream", [*flags, "--workers", "1", "--json"]) as cloud:
            address = cloud.document(60.0)["listening"]
            return exchange(part, address, psutil.Process(cloud.pid), requests, side=side)


def exchange(
    part: Partition, address: str, cloud: psutil.Process, requests: int, *, side: int
) -> dict[str, float]:
    chain = Chain(part)
    x = {"x": np.random.default_rng(1).random((1, 64, side, side), np.float32)}
    state = chain.run(x, 0, 1)
    totals, segments, alone_cpu = [], [], []
    cloud_before = 0.0
    with EdgeSession(chain, address, plan=(1, "raw"), model="stack") as session:
        for number in range(WARM_UP + requests):
            if number == WARM_UP:
                cloud_before = processor_s(cloud)
            cpu_before = time.thread_time()
            chain.run(state, 1, 2)
            alone_cpu.append(time.thread_time() - cpu_before)
            started = time.perf_counter()
            answer = session.infer(x)
            totals.append(time.perf_counter() - started)
            assert answer.where == "cloud", answer.reason
            segments.append(answer.timings.head_s + answer.timings.tail_s)
        cloud_cpu = (processor_s(cloud) - cloud_before) / requests
    overhead = np.array(totals[WARM_UP:]) - np.array(segments[WARM_UP:])
    return {
        "payload_kb": state["r0"].nbytes / 1e3,
        "segments_ms": 1e3 * float(np.median(segments[WARM_UP:])),
        "p50_ms": 1e3 * float(np.median(totals[WARM_UP:])),
        "overhead_p50_ms": 1e3 * float(np.median(overhead)),
        "overhead_p90_ms": 1e3 * float(np.quantile(overhead, 0.9)),
        "tail_cpu_ms": 1e3 * float(np.mean(alone_cpu[WARM_UP:])),
        "cloud_cpu_ms": 1e3 * cloud_cpu,
        "cpu": cloud_cpu / float(np.mean(alone_cpu[WARM_UP:])),
    }


def processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tails-ms", default="10,25")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for tail_ms in map(float, options.tails_ms.split(",")):
        for side in SIDES:
            row = measure(side, tail_ms / 1e3, options.requests)
            rows.append(row)
            if not options.json:
                print(
                    "  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True
                )
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
