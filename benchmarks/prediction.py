"""Do predictions hold, and does the plan ever lose? Real processes over emulated networks.

    python benchmarks/prediction.py [--models resnet18,mobilenetv2] [--links 3g,lte,...]
                                    [--requests 8] [--json]

For every model and network, cloud, link and edge run as three processes (`midstream pair`);
every placement (the baselines, the best cut, the plan) is predicted and measured. Targets:
mean absolute error of the predicted total at most 10 %, the worst placement at most 25 %, and
the plan's measured median at most 1.05 times the best baseline (edge-only, cloud-only raw,
cloud-only compressed).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from midstream.demo import photo
from midstream.loaders import open_partition
from midstream_edge.workload.comparison import BASELINES
from midstream_lab.processes.pair import CloudSetting, EdgeSetting, run_pairs
from midstream_lab.traces.conditions import CONDITIONS
from midstream_partitioner.partition.folder import save_partition


def errors(document: dict[str, Any]) -> dict[str, float]:
    """Relative error of the predicted total by placement; negative where it was too low."""
    return {
        entry["name"]: entry["predicted"]["total_s"] / entry["p50_s"] - 1
        for entry in document["placements"]
    }


def regret(document: dict[str, Any]) -> float:
    """The plan's measured median over the best baseline's."""
    times = {entry["name"]: entry["p50_s"] for entry in document["placements"]}
    chosen = next(e["p50_s"] for e in document["placements"] if e["is_chosen"])
    return float(chosen / min(times[name] for name in BASELINES if name in times))


def measure(model: str, networks: list[str], *, slowdown: float, requests: int) -> list[Any]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"{model}.midstream"
        save_partition(open_partition(model), folder)
        return run_pairs(
            folder,
            [CONDITIONS[name] for name in networks],
            cloud=CloudSetting(),
            edge=EdgeSetting(slowdown=slowdown, requests=requests, input=photo()),
            say=lambda text: print(text, file=sys.stderr),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet18,mobilenetv2")
    parser.add_argument("--links", default=",".join(CONDITIONS))
    parser.add_argument("--slowdown", type=float, default=8.0)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in options.models.split(","):
        documents = measure(
            model,
            options.links.split(","),
            slowdown=options.slowdown,
            requests=options.requests,
        )
        for document in documents:
            rows.append(
                {
                    "model": model,
                    "network": document["network"]["name"],
                    "chosen": document["chosen"]["label"],
                    "errors": errors(document),
                    "regret": regret(document),
                    "max_relative_error": document["max_relative_error"],
                }
            )
    every = [error for row in rows for error in row["errors"].values()]
    summary = {
        "mean_absolute_error": sum(map(abs, every)) / len(every),
        "worst_absolute_error": max(map(abs, every)),
        "worst_regret": max(row["regret"] for row in rows),
    }
    if options.json:
        print(json.dumps({"rows": rows, **summary}, indent=2))
        return
    for row in rows:
        listed = "  ".join(f"{name} {error:+.1%}" for name, error in row["errors"].items())
        print(f"{row['model']:12} {row['network']:10} plan {row['chosen']:32} "
              f"x{row['regret']:.3f} of the best baseline   {listed}")  # fmt: skip
    print("  ".join(f"{name} {value:.3f}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
