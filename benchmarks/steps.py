"""How fast an adaptive edge follows a tenfold drop and a tenfold rise of the uplink.

    python benchmarks/steps.py [--json]

Real processes over an emulated link (TUN where it can be had). The uplink steps between a low
and a high rate every `HOLD_S`. An edge has settled at the first request from which on all
requests until the next step take the placement that most of them take in the second half. For
a drop that is held against the answer to the request whose bytes met the lower rate first,
plus a round trip; for a rise against a second.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from midstream.loaders import open_partition
from midstream_lab.emulation.emulate import emulate
from midstream_lab.emulation.model.spec import LinkSpec
from midstream_lab.processes.pair import CloudSetting, Drive, EdgeSetting, run_policy
from midstream_lab.traces.trace import Trace
from midstream_lab.traces.writing import write_trace
from midstream_partitioner.partition.folder import save_partition

HOLD_S = 5.0
STEPS = 10
LOW_BPS, HIGH_BPS = 1e6, 10e6
DELAY_S = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the uplink; seconds from the step.

    `settled_s` is when the first request with the placement that stays was sent, `met_s` when
    the first request whose bytes met the new rate had its answer.
    """

    kind: str
    settled_s: float
    met_s: float
    placement: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--slowdown", type=float, default=8.0)
    parser.add_argument("--policy", default="adaptive")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="midstream-steps-") as folder:
        document = measure(Path(folder), options)
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{options.model} x{options.slowdown:g}, {options.policy}, {document['backend']}")
    for kind in ("drop", "rise"):
        mine = [step for step in document["steps"] if step["kind"] == kind]
        settled = [step["settled_s"] for step in mine]
        met = [step["met_s"] for step in mine]
        kept = Counter(step["placement"] for step in mine)
        names = ", ".join(f"{name} {count} times" for name, count in kept.items())
        print(
            f"{kind}: settled after {median(settled):.3f} s (worst {max(settled):.3f}); the "
            f"first request that met it was answered after {median(met):.3f} s (worst "
            f"{max(met):.3f}); {names}"
        )


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    artefact = folder / "model.midstream"
    save_partition(open_partition(options.model), artefact)
    edges = [HOLD_S * index for index in range(STEPS + 1)]
    rates = [HIGH_BPS if index % 2 == 0 else LOW_BPS for index in range(STEPS)]
    trace = Trace("steps", edges, rates, "a tenfold drop and rise in turn")
    path, log = folder / "steps.csv", folder / "log.jsonl"
    write_trace(trace, path)
    with emulate(LinkSpec(trace, 50e6, delay_s=DELAY_S), backend=options.backend) as link:
        found = run_policy(
            artefact,
            link,
            Drive(options.policy, HOLD_S * STEPS, None, log, str(path)),
            cloud=CloudSetting(),
            edge=EdgeSetting(slowdown=options.slowdown),
            say=lambda what: print(what, file=sys.stderr),
        )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = list(follow(lines, found["trace_origin_s"], rates))
    return {
        "model": options.model,
        "slowdown": options.slowdown,
        "policy": options.policy,
        "backend": found["emulation"]["backend"],
        "valid": found["emulation"]["validity"]["valid"],
        "probe_share": found["probe_share"],
        "steps": [asdict(step) for step in steps],
    }


def follow(
    lines: Sequence[dict[str, Any]], origin_s: float, rates: Sequence[float]
) -> Iterator[Step]:
    """What a log says of each step but the first, which is the start."""
    for index in range(1, len(rates)):
        at_s = origin_s + HOLD_S * index
        mine = [line for line in lines if at_s <= line["monotonic_s"] < at_s + HOLD_S]
        late = [line for line in mine if line["monotonic_s"] >= at_s + HOLD_S / 2]
        if not late:
            continue
        (kept, _), *_ = Counter(_option(line) for line in late).most_common(1)
        strayed = [line["monotonic_s"] for line in mine if _option(line) != kept]
        stayed = [
            line["monotonic_s"] - at_s
            for line in mine
            if not strayed or line["monotonic_s"] > strayed[-1]
        ]
        yield Step(
            "rise" if rates[index] > rates[index - 1] else "drop",
            stayed[0] if stayed else HOLD_S,
            next((_end_s(line) for line in lines if _sent_s(line) > at_s), at_s) - at_s,
            kept,
        )


def _end_s(line: dict[str, Any]) -> float:
    return float(line["monotonic_s"] + line["latency_s"])


def _sent_s(line: dict[str, Any]) -> float:
    """Until when a request's bytes occupied the uplink; before all time if none did."""
    timings = line["timings"]
    if line["where"] == "edge":
        return -math.inf
    if line["where"] != "cloud":  # the edge was first: they still did
        return _end_s(line)
    travelled_s = timings["head_s"] + timings["encode_s"] + timings["uplink_s"]
    return float(line["monotonic_s"] + travelled_s - DELAY_S)


def _option(line: dict[str, Any]) -> str:
    return f"{line['cut']} {line['codec']}"


if __name__ == "__main__":
    main()
