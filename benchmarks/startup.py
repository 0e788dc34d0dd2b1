"""How long does a program take to start: `midstream --help`, and what others import?

    python benchmarks/startup.py [--runs 11] [--against CHECKOUT] [--json]

Every run is a process of its own. With `--against`, runs of this checkout and of another one
take turns, and the ratio of the two is told, so that the machine's load cancels. Targets: at
most 0.35 times the time that `--help` took while all commands were imported at once, and 0.2 s
for a process that imports the planner.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
ROOTS = ("proto", "partitioner", "edge", "cloud", "lab", "app")
PROGRAMS = {
    "midstream --help": ["-m", "midstream", "--help"],
    "import planner": ["-c", "import midstream_partitioner.planning.planner"],
    "import onnxruntime": ["-c", "import onnxruntime"],
    "python alone": ["-c", "pass"],
}


def run_once(program: list[str], checkout: Path) -> float:
    """Return the seconds that `program` took, with the packages of `checkout`."""
    path = os.pathsep.join(str(checkout / root) for root in ROOTS)
    began_s = time.perf_counter()
    subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began_s


def measure(name: str, runs: int, against: Path | None) -> dict[str, object]:
    """Return the median and the extremes of `runs` processes, in seconds."""
    times_s, ratios = [], []
    for _ in range(runs):
        times_s.append(run_once(PROGRAMS[name], HERE))
        if against is not None:
            ratios.append(times_s[-1] / run_once(PROGRAMS[name], against))
    found: dict[str, object] = {
        "program": name,
        "p50_s": median(times_s),
        "min_s": min(times_s),
        "max_s": max(times_s),
    }
    if ratios:
        found |= {
            "ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--against", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [
        measure(name, options.runs, options.against if "midstream" in name else None)
        for name in PROGRAMS
    ]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for each in found:
        line = f"{each['program']:20} {each['p50_s']:.3f} s"
        line += f" ({each['min_s']:.3f} to {each['max_s']:.3f})"
        if "ratio" in each:
            line += f", {each['ratio']:.3f} of the other checkout's time"
            line += f" ({each['ratio_min']:.3f} to {each['ratio_max']:.3f})"
        print(line)


if __name__ == "__main__":
    main()
