"""A link that is cut and restored again and again, under load: what each request pays.

    python benchmarks/outages.py [--cuts 100] [--backend tun] [--policy adaptive] [--json]

A cloud, an emulated link and an edge are processes of their own. The edge sends one request
after the other; a small network runs on it, slowed down, in `edge_only_s`. The link is cut in
turn by a black hole (nothing passes, nobody is told), by resets (connections break, new ones
as soon as they carry data) and by refusals (connections break, new ones are refused), each for
a random time, and restored for a second or two.

Per kind of cut, from the moment of restoration: `usable` is when a new request could go to the
cloud, `answered` when the first answer that the cloud gave was there. `late` is the longest
that any request took from submission to answer, against the promise of 1.25 times edge-only
plus 50 ms; whatever else the machine does makes it longer (`--realtime` helps). Every answer
is compared with the network's own; `lost` requests have none, `doubled` ones more than one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import policy
from midstream_edge.session.session import EdgeSession
from midstream_lab.emulation.emulate import Emulation, emulate
from midstream_lab.emulation.model.outages import CUTS, Cut
from midstream_lab.emulation.model.spec import LinkSpec
from midstream_lab.processes.process import Process
from midstream_partitioner.costs.device import Device
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement

SIDE = 64
SEGMENTS, CHANNELS = 6, 48
#: Distinct inputs, and how long the edge rests between two requests.
INPUTS, REST_S = 8, 0.002
#: The promise that is checked.
SHARE, SLACK_S = 1.25, 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--backend", default="auto", help="auto, tun, kernel or proxy")
    parser.add_argument("--rate", type=float, default=20.0, help="either way, in Mbit/s")
    parser.add_argument("--delay", type=float, default=10.0, help="one way, in ms")
    parser.add_argument("--edge-only", type=float, default=100.0, help="in ms")
    parser.add_argument("--longest", type=float, default=3.0, help="of a cut, in s")
    parser.add_argument("--policy", default="adaptive", help='a policy, or "hedge:0.1s"')
    parser.add_argument("--realtime", action="store_true", help="schedule both ends first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="keep the edge's log here, and the cuts")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--edge", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.edge:
        folder, server = options.edge
        run_edge(Path(folder), server, options)
        return 0
    document = measure(options)
    print(json.dumps(document) if options.json else "\n".join(lines_of(document)))
    return 0 if document["promise_kept"] and not document["lost"] else 1


def network() -> Partition:
    """Six convolutions, cut between them: 48 KB go in, 48 numbers come out.

    Some 15 ms of real work: a slowed device that is held up by this machine's other work loses
    that many times as long.
    """
    rng = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "x", 3
    for at in range(SEGMENTS):
        values = (rng.standard_normal((CHANNELS, channels, 3, 3)) * 0.1).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("Conv", [last, f"w{at}"], [f"c{at}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last, channels = f"r{at}", CHANNELS
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CHANNELS, 1, 1])]
    graph = helper.make_graph(nodes, "six", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    net = load_network(helper.make_model(graph, opset_imports=opset, ir_version=9))
    inner = {(f"r{at}",) for at in range(SEGMENTS - 1)}
    return partition(net, [cut for cut in position_cuts(net.graph) if cut.tensors in inner])


# The edge, a process of its own at its end of the link.


class Hedge:
    """The raw input to the cloud, and the edge as well after a fixed time."""

    name = "hedge"

    def __init__(self, remote: int, local: int, after_s: float) -> None:
        self._remote, self._local, self._after_s = remote, local, after_s

    def decide(self, situation: Situation) -> Decision:
        if situation.link != "connected":
            return Decision(self._local)
        return Decision(self._remote, self._after_s)

    def learn(self, evidence: Evidence) -> Hedge:
        return self


def run_edge(folder: Path, server: str, options: argparse.Namespace) -> None:
    """Send requests until standard input ends; a JSON line each, and what the figures mean."""
    part = load_partition(folder)
    pictures = np.random.default_rng(1).random((INPUTS, 1, 3, SIDE, SIDE), np.float32)
    chain, edge_only_s = slowed(part, {"x": pictures[0]}, options.edge_only / 1e3)
    expected = [Chain(part).run({"x": x}, 0, chain.last)["y"] for x in pictures]
    with EdgeSession(chain, server, plan=(0, "raw"), insecure=True) as session:
        follow(session, part, edge_only_s, options.policy)
        say({"edge_only_s": edge_only_s, "monotonic_s": time.monotonic()})
        done = threading.Event()
        threading.Thread(target=wait_for_end, args=(done,), daemon=True).start()
        threading.Thread(target=watch, args=(session, done), daemon=True).start()
        number = 0
        while not done.is_set():
            submitted_s, which = time.monotonic(), number % INPUTS
            answers: list[float] = []
            future = session.submit({"x": pictures[which]})
            future.add_done_callback(lambda _: answers.append(time.monotonic()))  # noqa: B023
            answer = future.result(30)
            say({
                "number": number,
                "submitted_s": submitted_s,
                "answered_s": answers[0] if answers else time.monotonic(),
                "where": answer.where,
                "k": answer.k,
                "same": bool(np.array_equal(answer.outputs["y"], expected[which])),
            })  # fmt: skip
            number += 1
            time.sleep(REST_S)
        counts = {name: getattr(session.stats, name) for name in session.stats.__slots__}
        say({"stats": counts, "cpu_s": time.process_time()})


def slowed(part: Partition, x: Mapping[str, Any], wanted_s: float) -> tuple[Chain, float]:
    """The network on a device that takes about `wanted_s`, and what it really takes."""
    chain = Chain(part, slowdown=2.0)
    chain.keep_pace([wanted_s / chain.last] * chain.last)
    return chain, run_s(chain, x)


def run_s(chain: Chain, x: Mapping[str, Any]) -> float:
    times = []
    for _ in range(12):
        state, began = x, time.perf_counter()
        for segment in range(chain.last):
            state = chain.run(state, segment, segment + 1)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def follow(session: EdgeSession, part: Partition, edge_only_s: float, text: str) -> None:
    """Have the policy choose between the cloud, two cuts, and the edge."""
    placements = []
    for k in (0, 1, 3, SEGMENTS):
        remote = k < SEGMENTS
        nbytes = sum(4 * math.prod(map(int, spec.shape)) for spec in part.crossing(k))
        placements.append(
            Placement(
                cut=part.cuts[k].id,
                codec="raw",
                k=k,
                label=part.cuts[k].label,
                remote=remote,
                head_s=edge_only_s * k / SEGMENTS,
                encode_s=0.0005 * remote,
                decode_s=0.0005 * remote,
                tail_s=0.003 * remote,
                payload_nbytes=nbytes * remote,
                reply_nbytes=200 * remote,
                rest_s=edge_only_s * (SEGMENTS - k) / SEGMENTS if remote else None,
            )
        )
    if text.startswith("hedge:"):
        after_s = float(text.removeprefix("hedge:").removesuffix("s"))
        session.follow(Hedge(0, len(placements) - 1, after_s), placements)
        return
    device = Device("edge", 1, 1.0, "", 1 << 30)
    chosen = policy(text, Menu(tuple(placements)), link=session.measure_link(), device=device)
    session.follow(chosen, placements)


def watch(session: EdgeSession, done: threading.Event) -> None:
    """Say when the link comes and goes."""
    before = ""
    while not done.wait(0.002):
        state = session.link_state
        if state != before:
            before = state
            say({"link": state, "at_s": time.monotonic()})


def wait_for_end(done: threading.Event) -> None:
    sys.stdin.readline()
    done.set()


_saying = threading.Lock()


def say(document: Mapping[str, Any]) -> None:
    with _saying:
        print(json.dumps(document), flush=True)


# The other side: the cloud, the link, the cuts.


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    spec = LinkSpec(options.rate * 1e6, options.rate * 1e6, delay_s=options.delay / 1e3)
    with (
        TemporaryDirectory() as temporary,
        emulate(spec, backend=options.backend) as link,
        cloud_and_edge(Path(temporary) / "six.midstream", link, options) as (edge, log),
    ):
        first = edge.document(60.0)
        reader = threading.Thread(target=collect, args=(edge, log))
        reader.start()
        time.sleep(2.0)
        cuts = [
            cut(link, CUTS[n % len(CUTS)], rng, options.longest) for n in range(options.cuts)
        ]
        edge.tell("end")
        reader.join(60.0)
        about = link.describe()
    if options.log:
        lines = ({"cut": each} for each in cuts)
        options.log.write_text("\n".join(map(json.dumps, [first, *log, *lines])))
    return summary(first["edge_only_s"], log, cuts) | {
        "policy": options.policy,
        "link": about,
        "machine": {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "load": os.getloadavg()[0],
        },
    }


@contextmanager
def cloud_and_edge(
    folder: Path, link: Emulation, options: argparse.Namespace
) -> Iterator[tuple[Process, list[dict[str, Any]]]]:
    save_partition(network(), folder)
    serve = ["cloud", "serve", str(folder), "--listen", link.cloud_listen, "--insecure"]
    first = ("chrt", "--rr", "1") if options.realtime else ()
    prefix = (*link.cloud_prefix, *first)
    with Process(
        "cloud", "midstream", [*serve, "--runs", "0", "--json"], prefix=prefix
    ) as cloud:
        server = link.reach(cloud.document(60.0)["listening"])
        ask = ["--edge", str(folder), server, "--policy", options.policy]
        ask += ["--edge-only", str(options.edge_only)]
        # This file again: its folder is on the path that processes inherit.
        prefix = (*link.edge_prefix, *first)
        with Process("edge", Path(__file__).stem, ask, prefix=prefix) as edge:
            yield edge, []


def collect(edge: Process, log: list[dict[str, Any]]) -> None:
    while True:
        log.append(edge.document(60.0))
        if "stats" in log[-1]:
            return


def cut(link: Emulation, kind: Cut, rng: random.Random, longest_s: float) -> dict[str, Any]:
    """One cut, of 0.1 s to `longest_s`, log-uniformly; then a second or two of rest."""
    cut_s = link.cut(kind)
    time.sleep(0.1 * (longest_s / 0.1) ** rng.random())
    restored_s = link.restore()
    time.sleep(1.0 + rng.random())
    return {"kind": kind, "cut_s": cut_s, "restored_s": restored_s}


def summary(
    edge_only_s: float, log: Sequence[dict[str, Any]], cuts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    requests = [each for each in log if "number" in each]
    links = [each for each in log if "link" in each]
    stats = log[-1]["stats"]
    took_s = [each["answered_s"] - each["submitted_s"] for each in requests]
    answered = sum(stats[name] for name in ("cloud", "edge", "fallback", "ahead"))
    promise_s = SHARE * edge_only_s + SLACK_S
    ran_s = requests[-1]["answered_s"] - requests[0]["submitted_s"]
    rows = []
    for kind in CUTS:
        mine = [each for each in cuts if each["kind"] == kind]
        rows.append({
            "kind": kind,
            "cuts": len(mine),
            "outage_s": spread([each["restored_s"] - each["cut_s"] for each in mine]),
            "usable_s": spread([usable_s(each["restored_s"], links) for each in mine]),
            "answered_s": spread([cloud_s(each["restored_s"], requests) for each in mine]),
        })  # fmt: skip
    calm_s = [s for s, each in zip(took_s, requests, strict=True) if each["where"] == "cloud"]
    return {
        "edge_only_s": edge_only_s,
        "promise_s": promise_s,
        "late_s": max(took_s),
        "late_share": max(took_s) / edge_only_s,
        "broken": sum(each > promise_s for each in took_s),
        "promise_kept": max(took_s) <= promise_s,
        "requests": len(requests),
        "cloud_p50_s": statistics.median(calm_s),
        "where": dict(Counter(each["where"] for each in requests)),
        "lost": stats["requests"] - answered,
        "doubled": max(0, answered - len(requests)),
        "wrong": sum(not each["same"] for each in requests),
        "reconnects": stats["reconnects"],
        "edge_cpu_share": log[-1]["cpu_s"] / ran_s,
        "kinds": rows,
    }  # fmt: skip


def usable_s(restored_s: float, links: Sequence[dict[str, Any]]) -> float:
    """From the restoration until a new request could go to the cloud; 0 if it always could."""
    state = "down"
    for each in links:
        if each["at_s"] > restored_s:
            if state == "connected":
                break
            if each["link"] == "connected":
                return float(each["at_s"] - restored_s)
        state = each["link"]
    return 0.0 if state == "connected" else float("inf")


def cloud_s(restored_s: float, requests: Sequence[dict[str, Any]]) -> float:
    for each in requests:
        if each["where"] == "cloud" and each["answered_s"] > restored_s:
            return float(each["answered_s"] - restored_s)
    return float("inf")


def spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p99 = np.quantile(values, (0.5, 0.99), method="inverted_cdf")
    return {"p50": float(p50), "p99": float(p99), "max": max(values)}


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    link = document["link"]
    yield (
        f"{document['policy']} over {link['backend']}, "
        f"valid {link['validity']['valid']} {link['validity']['why']}"
    )
    yield (
        f"edge-only {document['edge_only_s'] * 1e3:.1f} ms, cloud p50 "
        f"{document['cloud_p50_s'] * 1e3:.1f} ms; latest {document['late_s'] * 1e3:.1f} ms "
        f"= {document['late_share']:.2f} x, promise {document['promise_s'] * 1e3:.1f} ms "
        f"({document['broken']} broken)"
    )
    names = ("requests", "lost", "doubled", "wrong", "reconnects", "where", "edge_cpu_share")
    yield ", ".join(f"{name} {document[name]}" for name in names)
    for row in document["kinds"]:
        parts = [f"{row['kind']:10} {row['cuts']:3} cuts"]
        for name in ("outage_s", "usable_s", "answered_s"):
            figures = " ".join(f"{key} {1e3 * value:.0f}" for key, value in row[name].items())
            parts.append(f"{name[:-2]} {figures} ms")
        yield "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
