"""One pool of threads for all sessions of onnxruntime in a process, or one each that sleeps.

    python benchmarks/thread_pools.py [--model resnet18] [--threads 2] [--runs 40]

Each in a process of its own: milliseconds of a run through five segments with pauses between
runs, and the processor time that a run and its pause take. The pool that is shared spins.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
import onnxruntime as ort

from midstream_lab.networks import NETWORKS
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition

PAUSE_S = 0.03


def measure(name: str, kind: str, threads: int, runs: int) -> None:
    ort.set_default_logger_severity(4)
    if kind == "shared":
        ort.set_global_thread_pool_sizes(threads, 1)
    reference = NETWORKS[name]
    network = load_network(reference.build(), feed=reference.feed)
    cuts = position_cuts(network.graph)
    part = partition(network, cuts[:: len(cuts) // 5])
    sessions = []
    for segment in part.segments:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if kind == "shared":
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = segment.compilable
        providers = ["CPUExecutionProvider"]
        sessions.append(ort.InferenceSession(source, options, providers=providers))
    (sample,) = read_inputs(part.feed, part.inputs, None, count=1, seed=0)

    def run() -> None:
        state = dict(sample)
        for session in sessions:
            names = [value.name for value in session.get_outputs()]
            feeds = {value.name: state[value.name] for value in session.get_inputs()}
            state.update(zip(names, session.run(names, feeds), strict=True))

    for _ in range(5):
        run()
    took_s, cpu_s = [], time.process_time()
    for _ in range(runs):
        began_s = time.perf_counter()
        run()
        took_s.append(time.perf_counter() - began_s)
        time.sleep(PAUSE_S)
    low, middle = np.percentile(took_s, [10, 50]) * 1e3
    cpu_ms = 1e3 * (time.process_time() - cpu_s) / runs
    print(f"{kind:>7}: run p10 {low:.1f} ms, p50 {middle:.1f} ms; processor {cpu_ms:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18", choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--kind", choices=("own", "shared"))
    given = parser.parse_args()
    if given.kind:
        measure(given.model, given.kind, given.threads, given.runs)
        return
    for kind in ("own", "shared"):
        command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
