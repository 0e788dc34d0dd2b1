"""An edge that starts before its server can be reached: when it answers, and from where.

    python benchmarks/boot.py [--runs 20] [--model resnet18] [--slowdown 4] [--json]

The edge, a process of its own, lives in a network namespace; a server waits in another. The
server's address belongs to nobody at first, and what is sent to it vanishes, unanswered. The
edge begins, answers alone, and gets its address after a random time: from that moment on,
`cloud_s` counts until the first answer from the cloud. `local_s` is from the opening of the
session to the first answer at all. Three ways are run in turn: a fixed plan and a policy in
Python, which needs the server's profile and a look at the link first; and the policy by
`midstream edge run`, whose `local_s` counts from the start of its process and holds the edge's
profile of itself.

Needs root and iproute2, for the namespaces; says so and ends with 0 where they are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from midstream import api
from midstream_lab.processes.process import Process
from midstream_partitioner.costs.profile import Profile

EDGE, CLOUD = f"boot-edge-{os.getpid()}", f"boot-cloud-{os.getpid()}"
ADDRESS, PORT = "10.77.9.1", 50051
MAC = "02:00:00:00:09:01"
#: An edge that has no answer from the cloud by then has failed.
PATIENCE_S = 60.0
WAYS = ("plan", "policy", "command")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="of each way")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--slowdown", type=float, default=4.0, help="of the edge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--edge", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.edge:
        run_edge(options)
        return 0
    if os.geteuid() != 0 or shutil.which("ip") is None:
        print("skipped: network namespaces need root and iproute2", file=sys.stderr)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):  # the namespaces go all the same
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    document = measure(options)
    print(json.dumps(document) if options.json else "\n".join(lines_of(document)))
    return 0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def apart() -> Iterator[None]:
    """Two namespaces and a wire between them; the cloud's end has no address yet."""
    try:
        for name in (EDGE, CLOUD):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "b0", "netns", EDGE, "type", "veth", "peer", "b1", "netns", CLOUD)
        ip("-n", CLOUD, "link", "set", "b1", "address", MAC)
        for name, end in ((EDGE, "b0"), (CLOUD, "b1")):
            ip("-n", name, "link", "set", end, "up")
        ip("-n", EDGE, "addr", "add", "10.77.9.2/24", "dev", "b0")
        # Packets find their way to the other end, where nobody is called so.
        ip("-n", EDGE, "neigh", "add", ADDRESS, "lladdr", MAC, "dev", "b0", "nud", "permanent")
        yield
    finally:
        for name in (EDGE, CLOUD):
            subprocess.run(["ip", "netns", "del", name], check=False)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    serve = ["cloud", "serve", options.model, "--listen", f"0.0.0.0:{PORT}", "--insecure",
             "--runs", "5", "--json"]  # fmt: skip
    with apart(), Process("cloud", "midstream", serve, prefix=_inside(CLOUD)) as cloud:
        cloud.document(60.0)  # it listens
        for number in range(options.runs):
            for way in WAYS:
                runs[way].append(boot(way, options, rng.uniform(0.5, 5.0)))
                print(f"{number} {way} {runs[way][-1]}", file=sys.stderr)
    return {
        "model": options.model, "runs": options.runs, "slowdown": options.slowdown,
        "ways": {way: summary(each) for way, each in runs.items()},
    }  # fmt: skip


def boot(way: str, options: argparse.Namespace, away_s: float) -> dict[str, float]:
    """One edge in the dark; its server comes up `away_s` after the first answer."""
    line = _command(options) if way == "command" else _own(way, options)
    began_s = time.monotonic()
    with subprocess.Popen(
        [*_inside(EDGE), *line], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as edge:
        try:
            assert edge.stdout is not None
            answers = (json.loads(text) for text in edge.stdout if text.startswith("{"))
            local_s = next(answers).get("took_s", time.monotonic() - began_s)
            time.sleep(away_s)
            up_s = time.monotonic()  # one clock for all processes of a machine
            ip("-n", CLOUD, "addr", "add", f"{ADDRESS}/24", "dev", "b1")
            cloud_s = (
                next(_moment(each) for each in answers if each["where"] == "cloud") - up_s
            )
        finally:
            edge.kill()
            subprocess.run(["ip", "-n", CLOUD, "addr", "flush", "dev", "b1"], check=False)
    return {"local_s": local_s, "cloud_s": cloud_s}


def _own(way: str, options: argparse.Namespace) -> list[str]:
    return [sys.executable, __file__, "--edge", way, "--model", options.model,
            "--slowdown", str(options.slowdown)]  # fmt: skip


def _command(options: argparse.Namespace) -> list[str]:
    line = f"edge run {options.model} --server {ADDRESS}:{PORT} --insecure --adaptive --runs 3"
    line += f" --slowdown {options.slowdown} --duration {PATIENCE_S:g}s --log /dev/stdout"
    return [sys.executable, "-m", "midstream", *line.split()]


def _moment(answer: dict[str, Any]) -> float:
    """When an answer was there, on the clock of all processes."""
    return float(answer["monotonic_s"] + answer["latency_s"])


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def run_edge(options: argparse.Namespace) -> None:
    """Say when the first answer is there, and when the first one from the cloud."""
    part = api.partition(options.model)
    inputs = next(iter(api.inputs(part)))
    server = f"{ADDRESS}:{PORT}"
    profile: Profile | None = None
    if options.edge == "policy":
        profile = api.profile(part, slowdown=options.slowdown, runs=3)
    began_s = time.monotonic()
    how: dict[str, Any] = (
        {"policy": "adaptive", "edge": profile} if profile else {"plan": (0, "raw")}
    )
    with api.connect(part, server, insecure=True, slowdown=options.slowdown, **how) as session:
        answer = session.infer(inputs)
        assert answer.where != "cloud", answer.reason
        print(json.dumps({"took_s": time.monotonic() - began_s}), flush=True)
        while time.monotonic() - began_s < PATIENCE_S:
            asked_s = time.monotonic()
            if session.infer(inputs).where == "cloud":
                found = {"where": "cloud", "monotonic_s": asked_s,
                         "latency_s": time.monotonic() - asked_s}  # fmt: skip
                print(json.dumps(found), flush=True)
                return
    raise SystemExit(f"no answer came from the cloud within {PATIENCE_S:g} s")


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The median and the worst of each time."""
    return {
        name: {
            "p50": statistics.median(each[name] for each in runs),
            "max": max(each[name] for each in runs),
        }
        for name in ("local_s", "cloud_s")
    }


def lines_of(document: dict[str, Any]) -> list[str]:
    return [
        f"{way:8}first answer {found['local_s']['p50']:.2f} s (max "
        f"{found['local_s']['max']:.2f}), from the cloud {found['cloud_s']['p50']:.2f} s "
        f"after it came up (max {found['cloud_s']['max']:.2f})"
        for way, found in document["ways"].items()
    ]


if __name__ == "__main__":
    sys.exit(main())
