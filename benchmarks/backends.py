"""What another backend costs against onnxruntime's CPU, and how far their answers differ.

    .venv-openvino/bin/python benchmarks/backends.py --provider openvino [--json]
    .venv-torch/bin/python benchmarks/backends.py --backend torch [--models resnet18]

Both run the same chain of about five segments in turn, in one thread. The ratio is taken pair
by pair: its median and quartiles.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from midstream_lab.networks import NETWORKS
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.compare import relative_error
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition

PAIRS = 15


def split(name: str) -> Partition:
    """A reference network, or one from a file, cut at evenly spaced positions."""
    if name in NETWORKS:
        reference = NETWORKS[name]
        network = load_network(reference.build(), feed=reference.feed, name=name)
    else:
        network = load_network(Path(name))
    cuts = position_cuts(network.graph)
    return partition(network, cuts[1 : -1 : max(1, len(cuts) // 4)])


def measure(name: str, flags: argparse.Namespace) -> dict[str, object]:
    part = split(name)
    backend = open_backend(flags.backend, provider=flags.provider, device=flags.device)
    usual, last = Chain(part), len(part.segments)
    began_s = time.perf_counter()
    other = Chain(part, backend=backend)
    compile_s = time.perf_counter() - began_s
    (sample,) = read_inputs(part.feed, part.inputs, None, count=1, seed=0)
    expected, found = (chain.run(sample, 0, last) for chain in (usual, other))
    times: dict[Chain, list[float]] = {usual: [], other: []}
    for number in range(PAIRS + 3):
        for chain in (usual, other) if number % 2 else (other, usual):
            began_s = time.perf_counter()
            chain.run(sample, 0, last)
            if number >= 3:
                times[chain].append(time.perf_counter() - began_s)
    low, ratio, high = np.percentile(np.divide(times[other], times[usual]), [25, 50, 75])
    return {
        "network": Path(name).stem,
        "backend": backend.name,
        "onnxruntime_ms": round(1e3 * float(np.median(times[usual])), 2),
        "ratio": round(float(ratio), 2),
        "quartiles": [round(float(low), 2), round(float(high), 2)],
        "compile_s": round(compile_s, 2),
        "relative_error": relative_error(expected, found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--provider")
    parser.add_argument("--device")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    for name in flags.models.split(","):
        row = measure(name, flags)
        if flags.json:
            print(json.dumps(row), flush=True)
            continue
        low, high = np.array(row["quartiles"])
        print(
            f"{row['network']:>24} {row['backend']}: {row['ratio']} times ({low} to {high}) "
            f"{row['onnxruntime_ms']} ms, error {row['relative_error']:.1e}, compiled in "
            f"{row['compile_s']} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
