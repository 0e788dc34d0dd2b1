"""What a server makes of more requests than it can answer, with real threads and clocks.

    python benchmarks/overload.py            # shares of the capacity, and of a greedy peer
    python benchmarks/overload.py --json

The tails sleep for exactly 0.1 s, so that nothing but the queue decides. Closed-loop clients
ask again at once when answered, and after 20 ms when refused. The same in virtual time, over
more deadlines, is tests/cloud/test_work_queue.py.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from midstream_cloud.models import Model
from midstream_cloud.tails import Job, Tails
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import CloudRefused
from midstream_wire.tensors import Array
from midstream_wire.transfers import Incoming

TAIL_S, PAUSE_S, RUN_S, WORKERS = 0.1, 0.02, 4.0, 2


class Sleeper:
    """A chain whose every run takes 0.1 s."""

    def __init__(self, outputs: Mapping[str, Array]) -> None:
        self.outputs = outputs

    def run(
        self, state: object, first: int, last: int, *, stop: object
    ) -> Mapping[str, Array]:
        time.sleep(TAIL_S)
        return self.outputs


@dataclass(frozen=True)
class Row:
    """One case: what each peer was answered in time, as a share of the whole capacity."""

    budget_s: float
    clients: Mapping[str, int]
    in_time: Mapping[str, float]
    late: int
    refused: int


def measure(model: Model, budget_s: float, clients: Mapping[str, int]) -> Row:
    """Run `clients`, by their peer, for a while against two workers."""
    tails = Tails(workers=WORKERS)
    counts: Counter[tuple[str, str]] = Counter()
    lock, until_s = threading.Lock(), time.monotonic() + RUN_S

    def ask(peer: str) -> None:
        while (now_s := time.monotonic()) < until_s:
            job = Job(
                model, 0, Incoming((), (), max_nbytes=1), now_s, now_s + budget_s, peer=peer
            )
            try:
                tails.submit(job).result()
                ended_s = time.monotonic()
                how = "in time" if ended_s <= now_s + budget_s else "late"
                how = how if ended_s < until_s else "after the end"
            except CloudRefused:
                how = "refused"
                time.sleep(PAUSE_S)
            with lock:
                counts[peer, how] += 1

    threads = [
        threading.Thread(target=ask, args=(peer,))
        for peer, count in clients.items()
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tails.close()
    capacity = RUN_S / TAIL_S * WORKERS
    return Row(
        budget_s,
        clients,
        {peer: counts[peer, "in time"] / capacity for peer in clients},
        sum(n for (_, how), n in counts.items() if how == "late"),
        sum(n for (_, how), n in counts.items() if how == "refused"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    options = parser.parse_args()
    network = load_network(_tiny())
    part = partition(network, position_cuts(network.graph))
    outputs = {spec.name: np.zeros((1, 10), np.float32) for spec in part.outputs}
    model = Model("sleeper", part, cast(Chain, Sleeper(outputs)))
    cases: list[tuple[float, dict[str, int]]] = [
        (budget_s, {"all": clients * WORKERS})
        for clients in (3, 10, 64)
        for budget_s in (0.15, 0.25, 0.5, 1.0, 2.0)
    ]
    cases += [
        (2.0, {"honest": 2, "greedy": 16}),
        (2.0, {"honest": 2, "greedy": 128}),
        (2.0, {"honest": 8, "greedy": 128}),
    ]
    for budget_s, clients in cases:
        row = measure(model, budget_s, clients)
        if options.json:
            print(json.dumps(asdict(row)))
            continue
        shares = ", ".join(f"{peer} {share:.0%}" for peer, share in row.in_time.items())
        who = " + ".join(f"{count} {peer}" for peer, count in clients.items())
        print(
            f"{who:24} deadline {budget_s / TAIL_S:4.1f} tails: in time {shares}; "
            f"late {row.late}, refused {row.refused}",
            flush=True,
        )


def _tiny() -> Any:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])],
        "tiny",
        [value("x", TensorProto.FLOAT, [1, 10])],
        [value("z", TensorProto.FLOAT, [1, 10])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    main()
