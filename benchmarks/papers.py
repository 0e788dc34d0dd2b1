"""The cuts that two papers report, and those that the planner picks.

    python benchmarks/papers.py [--json]

Nothing is measured: devices and networks are declared after the papers
(docs/results/papers.md), so the figures are the same on every machine. "over edge" and "over
cloud" are how many times faster the best cut is than edge-only and cloud-only; in brackets
what the paper reports. What is found is held against both, the cut and the speedups; of two
speedups against the one that is further off. Below the tables stand all other figures of the
page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from midstream_lab.papers.cases import (
    CONV_SHARES,
    dads_classifiers,
    dads_yolo,
    neurosurgeon,
    quoted_cut,
)
from midstream_lab.papers.statements import statements
from midstream_lab.papers.study import Case, Outcome, decide_all

PICTURES = ("uint8", "float32")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    parts = {
        "DADS: Raspberry Pi 3 B, Ali cloud": (*dads_yolo(), *dads_classifiers()),
        **{
            f"Neurosurgeon: Jetson TK1, Tesla K40, {picture} pictures": neurosurgeon(picture)
            for picture in PICTURES
        },
    }
    speeds = {
        f"AlexNet, TK1 GPU, Wi-Fi, {picture} pictures, by share of peak": tuple(
            quoted_cut(share, picture) for share in CONV_SHARES
        )
        for picture in PICTURES
    }
    if options.json:
        told = {title: told_of(cases) for title, cases in {**parts, **speeds}.items()}
        stated = [asdict(each) for each in statements()]
        document = {"conv_shares": CONV_SHARES, "cases": told, "statements": stated}
        print(json.dumps(document))
        return 0
    for title, cases in parts.items():
        show(title, cases)
    for title, cases in speeds.items():
        print(f"\n{title}")
        for share, outcome in zip(CONV_SHARES, decide_all(cases), strict=True):
            print(f"{share:6.1%}  {outcome.choice:11} {outcome.verdict}")
    print("\nWhat docs/results/papers.md states besides")
    for each in statements():
        print(f"{each.words:>18}  {each.says}")
    return 0


def show(title: str, cases: Sequence[Case]) -> None:
    print(f"\n{title}")
    print(f"{'network':21}{'edge':17}{'link':10}{'paper':11}{'planner':11}"
          f"{'s':>7} {'over edge':>14} {'over cloud':>14}  against the paper")  # fmt: skip
    for outcome in decide_all(cases):
        case, reported = outcome.case, outcome.case.reported
        print(
            f"{case.graph.name:21}{case.edge.name:17}{case.link:10}{reported.cut or '-':11}"
            f"{outcome.choice:11}{outcome.latency_s:7.3f} "
            f"{beside(outcome.over_edge, reported.over_edge):>14} "
            f"{beside(outcome.over_cloud, reported.over_cloud):>14}  {outcome.told}"
        )


def beside(ours: float, theirs: float | None) -> str:
    return f"{ours:.2f}" if theirs is None else f"{ours:.2f} ({theirs:.2f})"


def told_of(cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [row_of(outcome) for outcome in decide_all(cases)]


def row_of(outcome: Outcome) -> dict[str, Any]:
    case, reported = outcome.case, outcome.case.reported
    return {
        "paper": case.paper,
        "network": case.graph.name,
        "edge": case.edge.name,
        "cloud": case.cloud.name,
        "link": case.link,
        "uplink_bps": case.uplink_bps,
        "reported_cut": reported.cut,
        "reported_over_edge": reported.over_edge,
        "reported_over_cloud": reported.over_cloud,
        "source": reported.source,
        "cut": outcome.choice,
        "latency_s": outcome.latency_s,
        "over_edge": outcome.over_edge,
        "over_cloud": outcome.over_cloud,
        "reported_cut_s": outcome.reported_s,
        "verdict": outcome.verdict,
        "gain": outcome.gain,
    }


if __name__ == "__main__":
    sys.exit(main())
