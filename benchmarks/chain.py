"""What a chain of segments costs against the unsplit network: time and resident memory.

    python benchmarks/chain.py [--models resnet18,vgg16] [--pairs 30] [--json]

Time: both variants run in turn in one process, and the ratio is taken pair by pair. Memory:
each variant is loaded and run in a process of its own, all plans warm. Targets: at most 1.05
times in time for networks of 20 ms and more, at most 1.35 times in memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from midstream.loaders import open_inputs, open_network, open_partition
from midstream_lab.networks import NETWORKS
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.cutting import fuse, partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition


def time_pairs(part: Partition, pairs: int, threads: int) -> dict[str, float]:
    """Medians of both, and of the ratio pair by pair."""
    chain = Chain(part, threads=threads)
    last = len(part.segments)
    whole = Executor(fuse(part, 0, last), threads=threads)
    (sample,) = open_inputs(part, None, count=1)
    chain_s, whole_s = [], []
    for number in range(pairs + 3):
        first, second = (chain_s, whole_s) if number % 2 else (whole_s, chain_s)
        for times in (first, second):
            started = time.perf_counter()
            if times is chain_s:
                chain.run(sample, 0, last)
            else:
                whole.run(sample)
            times.append(time.perf_counter() - started)
    ratios = np.array(chain_s[3:]) / np.array(whole_s[3:])
    return {
        "whole_s": float(np.median(whole_s[3:])),
        "chain_s": float(np.median(chain_s[3:])),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(np.quantile(ratios, 0.25)),
        "ratio_high": float(np.quantile(ratios, 0.75)),
    }


def resident_nbytes(folder: Path, threads: int) -> int:
    """Resident memory of a fresh process that holds and has run the partition in `folder`."""
    command = [sys.executable, __file__, "--measure", str(folder), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def measure_here(folder: Path, threads: int) -> int:
    """In the child: load, run ten times, and read what the kernel says we hold."""
    part = load_partition(folder)
    (sample,) = open_inputs(part, None, count=1)
    before = _resident()
    chain = Chain(part, threads=threads)
    for _ in range(10):
        chain.run(sample, 0, len(part.segments))
    return _resident() - before


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(name: str, pairs: int, threads: int) -> dict[str, object]:
    network = open_network(name)
    part = open_partition(name)
    with TemporaryDirectory() as temporary:
        folders = Path(temporary, "chain"), Path(temporary, "whole")
        save_partition(part, folders[0])
        save_partition(partition(network, []), folders[1])
        chain, whole = (resident_nbytes(folder, threads) for folder in folders)
    return {
        "network": name,
        "segments": len(part.segments),
        **time_pairs(part, pairs, threads),
        "whole_mb": whole / 1e6,
        "chain_mb": chain / 1e6,
        "memory_ratio": chain / whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(measure_here(options.measure, options.threads))
        return
    rows = []
    for name in options.models.split(","):
        row = measure(name, options.pairs, options.threads)
        rows.append(row)
        if not options.json:
            print(
                f"{row['network']:12} {row['segments']} segments  whole "
                f"{row['whole_s'] * 1e3:7.2f} ms  chain {row['chain_s'] * 1e3:7.2f} ms  "
                f"x{row['ratio']:.3f} ({row['ratio_low']:.3f}-{row['ratio_high']:.3f})  "
                f"memory {row['whole_mb']:.0f} -> {row['chain_mb']:.0f} MB  "
                f"x{row['memory_ratio']:.2f}",
                flush=True,
            )
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
