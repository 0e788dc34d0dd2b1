"""Where networks can be cut, what crosses there, and what a cut is called."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_partitioner.graph.cuts import MAX_NODES, cut_of, head_of, position_cuts, runs_of
from midstream_partitioner.graph.veils import SEALED
from midstream_partitioner.intake.onnx_model import Network
from midstream_wire.errors import ModelError

MakeNetwork = Callable[..., Network]


def test_there_is_a_cut_at_every_position(branches: Network) -> None:
    cuts = position_cuts(branches.graph)
    assert [len(cut.head) for cut in cuts] == [0, 1, 2, 3, 4, 5, 6]
    assert cuts[0].is_cloud_only
    assert cuts[-1].is_edge_only
    assert [cut.tensors for cut in cuts] == [
        ("x",),
        ("x", "stem"),
        ("x", "stem", "left"),
        ("x", "left", "right"),
        ("x", "early"),
        ("skip",),
        (),
    ]


def test_a_position_is_the_cut_of_its_prefix(branches: Network) -> None:
    graph = branches.graph
    prefixes = [cut_of(graph, range(n)) for n in range(len(graph.nodes) + 1)]
    assert position_cuts(graph) == tuple(prefixes)


def test_cuts_know_their_size_label_and_depth(branches: Network) -> None:
    cuts = position_cuts(branches.graph)
    assert cuts[5].nbytes == 32
    assert cuts[5].label == "after Mul_4"
    assert cuts[5].depth_of("x") == 0  # the input shows through the skip
    assert cuts[0].label == "the input"
    assert cuts[6].label == "the output"
    assert cuts[6].depth_of("x") == SEALED
    assert cuts[2].label == "after MatMul_0 and Relu_1 (+1)"


def test_a_head_may_run_ahead_on_one_branch(branches: Network) -> None:
    cut = cut_of(branches.graph, {0, 2})
    assert cut.tensors == ("x", "stem", "right")
    assert cut.runs == (0, 1, 2, 3)
    assert cut.head == {0, 2}


def test_a_head_that_is_not_closed_is_refused(branches: Network) -> None:
    with pytest.raises(ModelError, match="must hold every node it depends on"):
        cut_of(branches.graph, {3})


def test_a_cut_that_a_sequence_would_cross_is_refused(make_network: MakeNetwork) -> None:
    network = make_network("""
        net (float[n, 4] x) => (float[m, 4] y) {
        s = SequenceConstruct(x, x) y = ConcatFromSequence <axis = 0> (s) }""")
    with pytest.raises(ModelError, match="only dense tensors can cross a cut; 's'"):
        cut_of(network.graph, {0})


def test_ids_are_stable_and_tell_heads_of_one_size_apart(branches: Network) -> None:
    graph = branches.graph
    left, right = cut_of(graph, {0, 1}), cut_of(graph, {0, 2})
    assert left.id == "c2-a7841e"  # sha256 of "0,2": both sides must compute it alike
    assert left.id != right.id
    assert (cut_of(graph, ()).id, cut_of(graph, range(6)).id) == ("cloud-only", "edge-only")


@given(st.frozensets(st.integers(0, 60)))
def test_runs_say_the_same_as_the_head(head: frozenset[int]) -> None:
    runs = runs_of(head)
    assert head_of(runs, node_count=61) == head
    assert list(runs) == sorted(set(runs))


@pytest.mark.parametrize(
    "runs", [(0,), (3, 1), (0, 2, 2, 3), (0, 2, 1, 3), (0, MAX_NODES + 1), (-1, 2), (0, 9)]
)
def test_runs_that_no_head_has_are_refused(runs: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="ascending pairs within 8 nodes"):
        head_of(runs, node_count=8)
