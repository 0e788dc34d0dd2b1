"""Networks whose sizes change from request to request: every cut gives the whole's answer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from midstream_lab.networks.open_sizes import text_encoder, unet
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.costs.curves import Curve
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Bucket, CodecCost, Profile, Stat
from midstream_partitioner.costs.size_spans import buckets, parse_sizes
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import choose_cuts, static_profile, wire_nbytes
from midstream_partitioner.planning.planner import Planner
from midstream_wire.tensors import Array

SIDES = (64, 128, 256)


def text(length: int, batch: int = 1) -> dict[str, Array]:
    return {"ids": np.random.default_rng(length).integers(0, 2000, (batch, length))}


def picture(height: int, width: int) -> dict[str, Array]:
    rng = np.random.default_rng(height + width)
    return {"x": rng.normal(size=(1, 3, height, width)).astype(np.float32)}


def assert_exact(model: onnx.ModelProto, inputs: list[dict[str, Array]]) -> None:
    """Cut at every third position, one chain for all sizes: bit by bit, and to rounding."""
    network = load_network(model)
    chain = Chain(partition(network, position_cuts(network.graph)))
    whole = Executor(model.SerializeToString())
    last = chain.last
    for each in inputs:
        expected = whole.run(each)["y"]
        answers = [
            chain.run(chain.run(each, 0, k), k, last)["y"] for k in range(0, last + 1, 3)
        ]
        for answer in answers:
            assert np.array_equal(answer, answers[0])
        assert answers[0] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_text_encoder_is_cut_anywhere_at_any_length() -> None:
    model = text_encoder(width=16, layers=2)
    inputs = [text(8), text(512), text(13), text(100, batch=3), text(8)]
    assert_exact(model, inputs)


def test_a_unet_is_cut_anywhere_at_any_size() -> None:
    inputs = [picture(64, 64), picture(128, 96), picture(32, 40), picture(64, 64)]
    assert_exact(unet(width=4), inputs)


@pytest.fixture(scope="module")
def network() -> Network:
    spans = parse_sizes(["batch=1,height=64..256,width=64..256"])
    return load_network(unet(width=4), sizes=spans)


def at(side: int) -> Sizes:
    return (("batch", 1), ("height", side), ("width", side))


def priced(network: Network, part: Partition, slowdown: float) -> Profile:
    """A device whose times follow from arithmetic, and payloads from bytes, at all buckets."""
    found = []
    for sizes in buckets(network.feed.asked):
        graph = network.at(sizes)
        node_s, wire = static_profile(graph), wire_nbytes(graph)
        times = (slowdown * sum(node_s[n] for n in segment.nodes) for segment in part.segments)
        sent = [round(sum(wire[name] for name in cut.tensors)) for cut in part.cuts]
        reply = sum(graph.tensors[name].nbytes for name in graph.outputs)
        found.append(
            Bucket(
                sizes,
                tuple(Stat(s, s, s, 1) for s in times),
                tuple(
                    CodecCost(cut.id, "raw", nbytes, 0.0, 0.0)
                    for cut, nbytes in zip(part.cuts[:-1], sent, strict=False)
                ),
                (*(reply for _ in part.cuts[1:]), 0),
            )
        )
    empty = Profile(Device("d", threads=1), part.graph_digest, part.digest, (), (), ())
    return empty.holding(found[0], found[1:])


def test_shapes_are_those_of_the_sizes(network: Network) -> None:
    for side in SIDES:
        graph = network.at(at(side))
        assert graph.digest == network.graph.digest
        assert graph.tensors["y"].nominal == (1, 1, side, side)
        assert graph.tensors["y"].shape == network.graph.tensors["y"].shape


def test_a_unet_is_planned_anew_for_its_size_as_brute_force_says(network: Network) -> None:
    """A fixed cost of the exchange keeps small pictures at home; large ones leave."""
    part = partition(network, position_cuts(network.graph)[1:-1:4])
    edge, cloud = priced(network, part, 60.0), priced(network, part, 1.0)
    planner = Planner(part, edge, cloud)
    link = Link(40e6, 80e6, 0.01)
    chosen = {}
    for side in (*SIDES, 96, 192):
        here = planner.at(at(side))
        made = here.plan(link)
        every_s = {
            placement.k: placement.estimate(link, 0.0).total_s for placement in here.allowed
        }
        assert made.chosen.k == min(every_s, key=lambda k: every_s[k])
        graph = network.at(at(side))
        node_s, wire = static_profile(graph), wire_nbytes(graph)
        cut = part.cuts[made.chosen.k]
        true_s = 60 * sum(node_s[n] for n in cut.head)
        if made.chosen.k < len(part.segments):
            true_s += sum(node_s[n] for n in range(len(graph.nodes)) if n not in cut.head)
            true_s += link.uplink_s(round(sum(wire[name] for name in cut.tensors)))
            true_s += link.downlink_s(4 * side * side)
        assert made.chosen.latency_s == pytest.approx(true_s, rel=0.05)
        chosen[side] = made.chosen.k
    assert chosen[64] != chosen[256]


def test_cuts_are_chosen_for_all_sizes_together(network: Network) -> None:
    def cuts_at(*sides: int) -> set[str]:
        first, *more = (network.at(at(side)) for side in sides)
        others = [(graph, static_profile(graph)) for graph in more]
        return {cut.id for cut in choose_cuts(first, static_profile(first), others=others)}

    together = cuts_at(64, 256)
    assert together == cuts_at(256, 64)
    assert len(together) >= max(len(cuts_at(64)), len(cuts_at(256))) > 0


def test_the_law_tells_sizes_that_were_not_measured(network: Network) -> None:
    part = partition(network, [])
    curve = Curve(priced(network, part, 1.0))
    for side in (80, 112, 160, 224):
        graph = network.at(at(side))
        true_s = sum(static_profile(graph))
        assert curve.at(at(side)).segments_s(0, 1) == pytest.approx(true_s, rel=0.03)
