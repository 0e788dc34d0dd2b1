"""When another partition is worth it, priced on the scale on which the present one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import CodecCost, Profile, Stat
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.memory_estimate import most_weights
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import choose_cuts, static_profile
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.replan import (
    EVERY_S,
    HOLD_S,
    MIN_GAIN,
    Replanner,
    Watch,
    estimated_profile,
    node_seconds,
)

MBIT = 1e6
DEVICE = Device("test", 1, 1.0, "test", 1 << 30, 1.0, 1.0, 1.0, 1.0)


NARROW = """
net (float[1, 3, 64, 64] x) => (float[1, 256, 1, 1] y) {
  a = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (x, w1)
  b = Relu(a)
  c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  d = Relu(c)
  e = Conv <pads = [1, 1, 1, 1]> (d, w3)
  f = Relu(e)
  y = GlobalAveragePool(f)
}"""


@pytest.fixture(scope="module")
def network() -> Network:
    """A little arithmetic before the narrow place behind b, and much of it afterwards."""
    text = f'<ir_version: 8, opset_import: ["" : 17]>{NARROW}'
    model = onnx.parser.parse_model(text)
    shapes = {"w1": (8, 3, 3, 3), "w2": (256, 8, 3, 3), "w3": (256, 256, 3, 3)}
    for name, shape in shapes.items():
        array = np.full(shape, 0.01, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return load_network(model.SerializeToString(), name="narrow")


@pytest.fixture(scope="module")
def replanner_at(network: Network) -> Callable[..., Replanner]:
    """`replanner_at(cuts)`: of a partition at these cuts, on an edge ten times slower."""
    cloud_s = static_profile(network.graph)

    def make(cuts: tuple[Cut, ...], **options: object) -> Replanner:
        edge_s = [10 * seconds for seconds in cloud_s]
        part = partition(network, cuts)
        return Replanner(network.graph, part, edge_s=edge_s, cloud_s=cloud_s, **options)  # type: ignore[arg-type]

    return make


@settings(max_examples=20)
@given(bps=st.floats(1e5, 1e9), rtt_s=st.floats(0.001, 0.1))
def test_a_partition_at_the_cuts_that_can_win_is_left_alone(
    replanner_at: Callable[..., Replanner], network: Network, bps: float, rtt_s: float
) -> None:
    cuts = choose_cuts(network.graph, static_profile(network.graph))
    assert replanner_at(cuts).better(Link(bps, 2 * bps, rtt_s)) is None


@pytest.mark.parametrize("asked", [{"codecs": ("raw",)}, {"lossless": True}], ids=str)
@given(bps=st.floats(1e5, 1e9), place=st.integers(1, 6), shrinks=st.floats(0.4, 1))
def test_the_cuts_that_there_are_are_not_promised_again_whatever_codecs_are_allowed(
    replanner_at: Callable[..., Replanner],
    network: Network,
    asked: dict[str, Any],
    bps: float,
    place: int,
    shrinks: float,
) -> None:
    """Payloads are as the codecs left make them, larger than what is usually estimated."""
    share = 1.0 if "codecs" in asked else shrinks
    every = position_cuts(network.graph)
    sizes = {cut.id: share * cut.nbytes for cut in every}
    options = {"known_nbytes": sizes, "constraints": Constraints(**asked)}
    cuts, link = (every[place],), Link(bps, bps, 0.02)
    better = replanner_at(cuts, **options).better(link)
    if better is not None:
        assert cuts[0].id not in {cut.id for cut in better.cuts} or len(better.cuts) > 1
        assert replanner_at(better.cuts, **options).better(link) is None


def test_what_may_not_cross_is_not_promised(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    link, wrong = Link(8 * MBIT, 8 * MBIT, 0.02), position_cuts(network.graph)[4:5]
    better = replanner_at(wrong).better(link)
    assert better is not None
    names = frozenset(cut.label for cut in better.cuts)
    for limits in (Constraints(forbidden=names), Constraints(max_payload_nbytes=10)):
        assert replanner_at(wrong, constraints=limits).better(link) is None


def test_what_it_promises_is_what_it_gives_and_then_it_asks_for_nothing_more(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    link = Link(8 * MBIT, 8 * MBIT, 0.02)
    wrong = position_cuts(network.graph)[4:5]
    better = replanner_at(wrong).better(link)
    assert better is not None
    assert better.gain > MIN_GAIN
    assert replanner_at(better.cuts).better(link) is None


def test_slower_devices_move_the_answer(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    """Edge-only and cloud-only are there always; the edge slows down until neither will do."""
    replanner = replanner_at(())
    link = Link(8 * MBIT, 8 * MBIT, 0.02)
    found = [replanner.better(link, edge_scale=scale) for scale in (0.1, 1.0, 1000.0)]
    assert found[0] is None  # edge-only
    assert found[1] is not None
    assert found[2] is None  # cloud-only


def test_what_was_measured_at_the_present_cuts_counts_for_them(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    """A calibrated transform makes a payload small that the estimate takes for large."""
    link = Link(2 * MBIT, 2 * MBIT, 0.02)
    cuts = position_cuts(network.graph)[4:5]
    assert replanner_at(cuts).better(link) is not None
    assert replanner_at(cuts, known_nbytes={cuts[0].id: 100.0}).better(link) is None


def test_cuts_that_may_not_be_are_not_proposed(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    link = Link(8 * MBIT, 8 * MBIT, 0.02)
    wrong = position_cuts(network.graph)[4:5]
    free = replanner_at(wrong).better(link)
    assert free is not None
    least = min(cut.depth_of(network.graph.inputs) for cut in free.cuts) + 3
    private = replanner_at(wrong, constraints=Constraints(min_depth=least)).better(link)
    assert private is None or all(
        cut.depth_of(network.graph.inputs) >= least for cut in private.cuts
    )


def test_a_promise_must_hold_for_a_while_and_partitions_are_made_seldom() -> None:
    watch = Watch()
    watch, go = watch.look(0.0, better=True)
    assert not go
    watch, go = watch.look(HOLD_S - 1, better=True)
    assert not go
    watch, go = watch.look(HOLD_S, better=False)
    watch, go = watch.look(HOLD_S + 1, better=True)
    assert not go
    watch, go = watch.look(2 * HOLD_S + 1, better=True)
    assert go
    made_s = 2 * HOLD_S + 1
    now_s = made_s
    while now_s < made_s + EVERY_S:
        watch, go = watch.look(now_s, better=True)
        assert not go
        now_s += HOLD_S / 2
    watch, go = watch.look(now_s, better=True)
    assert go


def profile_of(part: Partition, *segments_s: float) -> Profile:
    return Profile(
        device=DEVICE,
        graph_digest=part.graph_digest,
        partition_digest=part.digest,
        segments=tuple(Stat(seconds, seconds, seconds, 1) for seconds in segments_s),
        codecs=(
            CodecCost("cloud-only", "raw", 10, 0.1, 0.1),
            CodecCost("gone", "raw", 1, 1, 1),
        ),
        replies_nbytes=tuple(4000 for _ in part.cuts),
    )


def test_times_of_segments_are_shared_out_among_their_nodes_and_add_up_again(
    network: Network,
) -> None:
    cuts = position_cuts(network.graph)
    old, new = partition(network, [cuts[4]]), partition(network, [cuts[2], cuts[5]])
    measured = profile_of(old, 0.3, 0.5)
    seconds = node_seconds(network.graph, old, measured)
    assert sum(seconds[:4]) == pytest.approx(0.3)
    assert sum(seconds[4:]) == pytest.approx(0.5)
    expected = estimated_profile(network.graph, old, new, measured)
    assert expected.partition_digest == new.digest
    assert expected.segments_s(0, 3) == pytest.approx(0.8)
    assert expected.segments_s(0, 1) == pytest.approx(sum(seconds[:2]))
    assert [cost.cut for cost in expected.codecs] == ["cloud-only"]
    assert expected.replies_nbytes == (4000, 4000, 4000, 0)


def test_an_edge_that_holds_and_measured_a_prefix_gives_times_for_the_rest_too(
    network: Network,
) -> None:
    cuts = position_cuts(network.graph)
    part = partition(network, [cuts[4]])
    static_s = static_profile(network.graph)
    seconds = node_seconds(network.graph, part, profile_of(part, 2 * sum(static_s[:4])))
    assert seconds == pytest.approx([2 * each for each in static_s])


def measured(part: Partition, memory: tuple[int, ...]) -> Profile:
    """A profile of `part` that says what its heads take of the edge's memory."""
    stats = tuple(Stat(0.01, 0.01, 0.01, 3) for _ in memory[1:])
    replies = tuple(4 for _ in part.cuts)
    return Profile(
        DEVICE, part.graph_digest, part.digest, stats, (), replies, memory_nbytes=memory
    )


def test_another_partition_takes_memory_by_the_weights_of_its_heads(network: Network) -> None:
    cuts = position_cuts(network.graph)
    old, new = partition(network, [cuts[2], cuts[4]]), partition(network, [cuts[4], cuts[6]])
    first, second, whole = (old.weight_nbytes(0, k) for k in (1, 2, 3))
    profile = measured(old, (0, 5 * first, 5 * second, 5 * whole))
    found = estimated_profile(network.graph, old, new, profile)
    assert found.memory_nbytes == (0, 5 * second, 5 * whole, 5 * whole)
    unknown = estimated_profile(network.graph, old, new, measured(old, ()))
    assert unknown.memory_nbytes == ()


def test_a_limit_of_memory_is_one_of_weights_as_the_profile_says(network: Network) -> None:
    cuts = position_cuts(network.graph)
    part = partition(network, [cuts[2], cuts[4]])
    first, second, whole = (part.weight_nbytes(0, k) for k in (1, 2, 3))
    profile = measured(part, (0, 3 * first, 3 * second, 3 * whole))
    assert most_weights(part, profile, 3 * second) == pytest.approx(second)
    assert first < most_weights(part, profile, 2 * second) < second
    assert most_weights(part, profile, first) == 0  # the smallest head takes three times that
    assert most_weights(part, profile, 3 * whole) == float("inf")
    assert most_weights(part, measured(part, ()), 12345) == 12345
    prefix = measured(part, (0, 3 * first))
    assert most_weights(part, prefix, 1e12) == first  # beyond that nothing was measured


def test_a_replanner_promises_no_head_beyond_the_memory(
    replanner_at: Callable[..., Replanner], network: Network
) -> None:
    cuts = position_cuts(network.graph)
    part = partition(network, [cuts[5]])
    heads = [part.weight_nbytes(0, k) for k in range(3)]
    limit = Constraints(max_edge_nbytes=heads[1])
    link = Link(5 * MBIT, 5 * MBIT, 0.02)
    free = replanner_at((cuts[5],), constraints=limit).better(link)
    assert free is not None
    assert free.cuts
    heavy = measured(part, (0, 1000 * heads[1], 1000 * heads[2]))
    assert replanner_at((cuts[5],), constraints=limit, edge=heavy).better(link) is None
