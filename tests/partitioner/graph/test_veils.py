"""What lies between an input and all that crosses a cut: joint, and per input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from midstream_partitioner.graph.veils import SEALED, secret_inputs
from midstream_partitioner.intake.onnx_model import Network
from midstream_wire.errors import UsageError

MakeNetwork = Callable[..., Network]

EYE = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
NARROW = np.ones((2, 3, 1, 1), np.float32)


def depths(network: Network, *names: str) -> tuple[int, ...]:
    return network.graph.veils.depths(names)


def test_a_skip_past_a_layer_shows_what_the_layer_hides(branches: Network) -> None:
    assert depths(branches, "x") == depths(branches, "stem") == (0,)
    assert depths(branches, "left") == (1,)
    assert depths(branches, "right") == (0,)  # two products, one to one
    assert depths(branches, "left", "right") == depths(branches, "early") == (0,)
    assert depths(branches, "skip") == (0,)  # the input itself is multiplied in
    assert depths(branches) == (SEALED,)


def test_a_colour_conversion_hides_nothing_and_a_narrower_layer_does(
    make_network: MakeNetwork,
) -> None:
    network = make_network(
        """net (float[1, 3, 8, 8] x) => (float[1, 2, 8, 8] y) {
        c = Conv(x, a) s = Sigmoid(c) d = Conv(s, w) y = Neg(d) }""",
        {"a": EYE, "w": NARROW},
    )
    assert [depths(network, name)[0] for name in "xcsdy"] == [0, 0, 0, 1, 1]


def test_two_rectifiers_that_keep_what_each_loses_hide_nothing(
    make_network: MakeNetwork,
) -> None:
    network = make_network(
        """net (float[1, 3, 8, 8] x) => (float[1, 6, 8, 8] y) {
        c = Conv(x, a) p = Relu(c) n = Neg(c) q = Relu(n) y = Concat <axis = 1> (p, q) }""",
        {"a": EYE},
    )
    assert depths(network, "p") == depths(network, "q") == (1,)
    assert depths(network, "p", "q") == depths(network, "y") == (0,)


def test_two_narrow_layers_side_by_side_are_as_wide_as_their_sum(
    make_network: MakeNetwork,
) -> None:
    network = make_network(
        """net (float[1, 3, 8, 8] x) => (float[1, 2, 8, 8] p, float[1, 2, 8, 8] q) {
        p = Conv(x, a) q = Conv(x, b) }""",
        {"a": NARROW, "b": 2 * NARROW},
    )
    assert depths(network, "p") == depths(network, "q") == (1,)
    assert depths(network, "p", "q") == (0,)


def test_parts_of_one_veiled_tensor_stay_veiled_together(make_network: MakeNetwork) -> None:
    network = make_network(
        """net (float[1, 4] x) => (float[1, 2] p, float[1, 2] q) {
        c = MatMul(x, w) r = Relu(c) p, q = Split <axis = 1, num_outputs = 2> (r) }""",
        {"w": np.eye(4, dtype=np.float32)},
    )
    assert depths(network, "p", "q") == depths(network, "r", "q") == (1,)


def test_an_average_of_a_wide_layer_is_linear_and_hides_nothing(
    make_network: MakeNetwork,
) -> None:
    network = make_network(
        """net (float[1, 3, 8, 8] x) => (float[1, 12, 4, 4] y) { c = Conv(x, a)
        y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (c) }""",
        {"a": np.ones((12, 3, 1, 1), np.float32)},
    )
    assert depths(network, "y") == (0,)


def test_a_shape_says_nothing_of_the_input(make_network: MakeNetwork) -> None:
    network = make_network("""
        net (float[n, 4] x) => (int64[2] y) { s = Shape(x) two = Constant <value_int = 2> ()
        y = Mul(s, two) }""")
    assert depths(network, "s") == depths(network, "y") == (SEALED,)


def test_every_input_has_a_depth_of_its_own(make_network: MakeNetwork) -> None:
    network = make_network(
        """net (float[1, 4] x, float[1, 4] mask) => (float[1, 4] y) {
        c = MatMul(x, w) r = Relu(c) y = Mul(r, mask) }""",
        {"w": np.eye(4, dtype=np.float32)},
    )
    assert depths(network, "r", "mask") == depths(network, "y") == (1, 0)
    assert depths(network, "r") == (1, SEALED)


def test_a_table_of_weights_is_no_veil_and_a_normalisation_behind_it_is(
    make_network: MakeNetwork,
) -> None:
    """Behind an embedding a token has as many elements as a row of the table."""
    network = make_network(
        """net (int64[1, 2] ids) => (float[1, 2, 8] y) {
        e = Gather(t, ids) h = MatMul(e, w)
        m = ReduceMean <axes = [-1]> (h) y = Sub(h, m) }""",
        {"t": np.ones((9, 8), np.float32), "w": np.eye(8, dtype=np.float32)},
    )
    assert [depths(network, name)[0] for name in ("ids", "e", "h", "y")] == [0, 0, 0, 1]
    assert depths(network, "y", "m") == (0,)


def test_a_sum_with_a_skip_is_a_layer_like_any_other(make_network: MakeNetwork) -> None:
    network = make_network(
        """net (float[1, 4] x) => (float[1, 8] y) {
        c = MatMul(x, w) s = Add(x, c) r = Relu(s) y = Concat <axis = 1> (r, x) }""",
        {"w": np.eye(4, dtype=np.float32)},
    )
    assert [depths(network, name)[0] for name in "csry"] == [0, 0, 1, 0]


def test_public_names_must_be_inputs() -> None:
    assert secret_inputs(["ids", "mask"], ["mask"]) == ("ids",)
    with pytest.raises(UsageError, match=r"which are ids, mask \(not maks\)"):
        secret_inputs(["ids", "mask"], ["maks"])
