"""The central claim: whatever the cut, tail(head(x)) is what the whole network answers.

By default every network is cut at a seeded dozen of its positions, and at a dozen closed sets
that no position gives; in the slow suite at every position, and at a hundred closed sets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from midstream_partitioner.compare import EXACT, argmax_equal, relative_error
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.graph.cuts import Cut, cut_of, position_cuts
from midstream_partitioner.graph.graph import INPUT, Graph
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.tensors import Array

#: Session threads, as in conftest.
THREADS = 2
DOZEN = 12


def random_order(graph: Graph, dice: random.Random) -> list[int]:
    """An execution order other than the model's: any node whose inputs are there is next."""
    missing = {
        node.index: len({graph.producer[name] for name in node.inputs} - {INPUT})
        for node in graph.nodes
    }
    ready = [index for index, count in missing.items() if count == 0]
    order = []
    while ready:
        index = ready.pop(dice.randrange(len(ready)))
        order.append(index)
        users = {user for name in graph.nodes[index].outputs for user in graph.consumers[name]}
        for user in users:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return order


def closed_sets(graph: Graph, dice: random.Random, count: int) -> list[Cut]:
    """`count` closed sets at most, nested: prefixes of one random order."""
    order = random_order(graph, dice)
    assert len(order) == len(graph.nodes)
    sizes = dice.sample(range(1, len(order)), min(count, len(order) - 1))
    return [cut_of(graph, order[:size]) for size in sorted(sizes)]


def is_path(graph: Graph) -> bool:
    """Whether nodes can only run one after the other, so that positions are all there is."""
    return all(
        before.index in {graph.producer[name] for name in after.inputs}
        for before, after in zip(graph.nodes, graph.nodes[1:], strict=False)
    )


def check(network: Network, inputs: State, expected: State, cuts: Sequence[Cut]) -> None:
    """Cut at all of `cuts`: every placement answers as the whole, all with the same bits."""
    part = partition(network, cuts)
    chain = Chain(part, threads=THREADS)
    last = len(part.segments)
    state: dict[str, Array] = dict(inputs)
    bits = set()
    for k, cut in enumerate(part.cuts):
        if k:
            state = chain.run(state, k - 1, k)
        crossed = {spec.name: state[spec.name] for spec in part.crossing(k)}
        reply = chain.run(crossed, k, last)
        replied = {spec.name: reply[spec.name] for spec in part.outputs_from(k)}
        answer = {spec.name: (state | replied)[spec.name] for spec in part.outputs}
        error = relative_error(expected, answer)
        assert error <= EXACT, f"{cut.id}, {cut.label}: {error}"
        assert argmax_equal(expected, answer), f"{cut.id}, {cut.label}"
        bits.add(tuple(array.tobytes() for array in answer.values()))
    assert len(bits) == 1


def test_a_fault_would_show_in_the_answer(subject: Any) -> None:
    """Outputs are finite, and another input changes them by ten times what may differ."""
    for name, array in subject.expected.items():
        assert np.isfinite(array).all()
        assert relative_error({name: array}, subject.otherwise) > 10 * EXACT


def test_every_placement_of_a_chain_cut_at_a_dozen_positions(subject: Any) -> None:
    positions = position_cuts(subject.network.graph)[1:-1]
    cuts = random.Random(1).sample(positions, min(DOZEN, len(positions)))
    check(subject.network, subject.inputs, subject.expected, cuts)


def test_every_placement_of_a_chain_cut_at_a_dozen_closed_sets(subject: Any) -> None:
    graph = subject.network.graph
    if is_path(graph):
        pytest.skip("its nodes form a path, where every closed set is a position")
    cuts = closed_sets(graph, random.Random(2), DOZEN)
    check(subject.network, subject.inputs, subject.expected, cuts)


@pytest.mark.slow
def test_every_position_on_its_own(subject: Any) -> None:
    for cut in position_cuts(subject.network.graph):
        check(subject.network, subject.inputs, subject.expected, [cut])


@pytest.mark.slow
def test_a_hundred_closed_sets_on_their_own(subject: Any) -> None:
    dice = random.Random(3)
    for _ in range(100):
        cuts = closed_sets(subject.network.graph, dice, 1)
        check(subject.network, subject.inputs, subject.expected, cuts)


def test_stored_outputs_of_onnx_come_out_of_both_halves(light: tuple[Network, Array]) -> None:
    """onnx's own tests feed a ramp from 0 to 1 (`generate_dummy_data` in
    onnx.backend.test.runner), and so does this. The weights are constants, so it says that the
    networks run as onnx means them, and little about values.
    """
    network, stored = light
    graph = network.graph
    (name,), (output,) = graph.inputs, graph.outputs
    shape = graph.tensors[name].nominal
    ramp = np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)
    inputs = {name: ramp.astype(np.float32)}
    middle = position_cuts(graph)[len(graph.nodes) // 2]
    check(network, inputs, {output: stored}, [middle])
