"""What a session believes of an emulated link, against the link's rate, by codec and edge.

    python benchmarks/belief.py [--backend auto] [--rates 5,20] [--codecs raw,ctx:0.5]
        [--requests 16] [--json]

Requests are sent one after the other under one codec, by an edge as it is and by one eight
times slower, whose encoder is slower than the link. The belief begins three times too high and
three times too low; the figure is what is believed after 16 requests, over the rate of payload
that the emulated link carries. Encoding, computing and waiting must not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from midstream_edge.policies.interface import Decision, Evidence, Situation
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.session.session import EdgeSession
from midstream_lab.emulation.emulate import Emulation, emulate
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec
from midstream_lab.processes.pair import CloudSetting, cloud_process
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.placements import Placement

CODECS = ("raw", "lossless", "half", "int8", "ec:0.5", "ctx:0.5")
SLOWDOWNS = (1.0, 8.0)
STARTS = (3.0, 1 / 3)
REQUESTS = 16
DELAY_S = 0.015
#: How far a belief may lie from the rate.
ALLOWED = 0.1


@dataclass(frozen=True)
class Watching:
    """Sends everything by one placement, and believes what it sees."""

    belief: LinkBelief
    name: str = "watching"

    def decide(self, situation: Situation) -> Decision:
        return Decision(0)

    def learn(self, evidence: Evidence) -> Self:
        return replace(self, belief=self.belief.observe(evidence))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="auto", help="auto, tun, kernel or proxy")
    parser.add_argument("--rates", default="5,20", help="uplinks in Mbit/s")
    parser.add_argument("--codecs", default=",".join(CODECS), help="those to send by")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="in each row")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--edge", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.edge:
        for row in believe(Path(options.edge[0]), options.edge[1], options):
            print(json.dumps(row), flush=True)
        return 0
    rows = list(measure(options))
    if options.json:
        print(json.dumps({"requests": options.requests, "rows": rows}))
    worst = max(abs(row["error"]) for row in rows)
    print(f"worst error {worst:.1%}, {ALLOWED:.0%} allowed", file=sys.stderr)
    return int(worst > ALLOWED)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "net.midstream"
        save_partition(make_partition(), folder)
        for rate_mbps in map(float, options.rates.split(",")):
            spec = LinkSpec(rate_mbps * 1e6, rate_mbps * 1e6, delay_s=DELAY_S)
            with (
                emulate(spec, backend=options.backend, calibrated=False) as link,
                cloud_process(
                    folder,
                    CloudSetting(),
                    listen=link.cloud_listen,
                    prefix=link.cloud_prefix,
                ) as address,
            ):
                for row in edge_rows(folder, link, address, options):
                    carried_bps = rate_mbps * 1e6
                    carried_bps *= GOODPUT_SHARE if link.congestion else 1.0
                    row |= {"rate_bps": carried_bps, "backend": link.backend}
                    row["error"] = row["believed_bps"] / carried_bps - 1
                    if not options.json:
                        print(
                            f"{link.backend} {rate_mbps:g} Mbit/s, {row['codec']:9} "
                            f"x{row['slowdown']:g}, from {row['start']:.2g} times: "
                            f"{row['error']:+.1%}",
                            flush=True,
                        )
                    yield row


def edge_rows(
    folder: Path, link: Emulation, address: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    command = [*link.edge_prefix, sys.executable, __file__]
    command += ["--codecs", options.codecs, "--requests", str(options.requests)]
    command += ["--edge", str(folder), link.reach(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as edge:
        assert edge.stdout is not None
        for line in edge.stdout:
            yield json.loads(line)
    if edge.returncode:
        raise SystemExit(f"the edge ended with {edge.returncode}")


def believe(
    folder: Path, address: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """At the edge's end of the link: requests under every codec, and what they taught."""
    part = load_partition(folder)
    shape = part.inputs[0].shape
    drawn = np.random.default_rng(0).standard_normal([int(size) for size in shape])
    inputs = {part.inputs[0].name: drawn.astype(np.float32)}
    placement = Placement("c", "raw", 1, "cut", True, 0.001, 0.0, 0.0, 0.001, 1000, 100, 0.001)
    for slowdown in SLOWDOWNS:
        chain = Chain(part, slowdown=slowdown)
        with EdgeSession(
            chain, address, plan=(1, "raw"), insecure=True, timeout_s=60.0
        ) as session:
            session.wait_connected(20.0)
            link = session.measure_link()
            for codec in options.codecs.split(","):
                for start in STARTS:
                    belief = LinkBelief.of(replace(link, uplink_bps=start * link.uplink_bps))
                    director = session.follow(
                        Watching(belief), [replace(placement, codec=codec)]
                    )
                    answers = [session.infer(inputs) for _ in range(options.requests)]
                    assert all(answer.where == "cloud" for answer in answers)
                    assert director.belief is not None
                    yield {
                        "codec": codec,
                        "slowdown": slowdown,
                        "start": start,
                        "believed_bps": director.belief.uplink_bps,
                        "payload_nbytes": answers[-1].payload_nbytes,
                        "encode_s": answers[-1].timings.encode_s,
                    }


def make_partition(*, channels: int = 64, side: int = 64) -> Partition:
    """A convolution with a ReLU, the cut, and a mean: 2 MB of floats cross in two blocks."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, [1, 3, 2 * side, side])],
        [value("y", TensorProto.FLOAT, [1, channels, 1, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = load_network(model)
    return partition(
        network, [cut for cut in position_cuts(network.graph) if "r" in cut.tensors]
    )


if __name__ == "__main__":
    sys.exit(main())
