"""Transforms: the identity when nothing is dropped, exactly the dropped energy otherwise."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_partitioner.codec_spec import full_id, is_lossless
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.execution.transform_runner import Compiled
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.transform import Transform, expansion, transformable
from midstream_partitioner.transforms.construct import make_transform
from midstream_partitioner.transforms.klt import components_for, fit_klt, klt, spectrum_of
from midstream_partitioner.transforms.nonnegative import is_nonnegative
from midstream_wire.errors import ModelError, TensorError, UsageError
from midstream_wire.tensors import Array, TensorSpec

MakeNetwork = Callable[..., Network]

#: [n, 6, 8, 8] as convolved (a) and rectified (b), which then crosses beside its shape (s).
CONVOLUTIONS = """
net (float[n, 3, 8, 8] x) => (float[n, 6] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  b = Relu(a)
  s = Shape(b)
  c = GlobalAveragePool(b)
  d = Flatten(c)
  f = Cast <to = 1> (s)
  g = ReduceMax <keepdims = 0> (f)
  y = Div(d, g)
}"""

#: Features of tokens.
TOKENS = """
net (float[n, t, 5] x) => (float[n, t, 5] y) {
  h = MatMul(x, w)
  y = Tanh(h)
}"""


def correlated(*shape: int, seed: int = 0, rank: int = 3) -> Array:
    """Activations whose channels (axis 1) mix `rank` sources and a little noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((shape[1], rank))
    sources = rng.standard_normal((shape[0], rank, *shape[2:]))
    noise = 0.01 * rng.standard_normal(shape)
    return np.asarray(np.einsum("cr,nr...->nc...", mixing, sources) + noise + 0.5, np.float32)


@pytest.fixture(scope="module")
def part(make_network: MakeNetwork) -> Partition:
    weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    network = make_network(CONVOLUTIONS, {"w": weights})
    return partition(network, position_cuts(network.graph))


@pytest.fixture(scope="module")
def tokens(make_network: MakeNetwork) -> Partition:
    weights = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)
    network = make_network(TOKENS, {"w": weights})
    return partition(network, position_cuts(network.graph))


def relative(wanted: Array, found: Array) -> float:
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted))


def through(transform: Transform, array: Array, part: Partition) -> Array:
    """`array` as it comes out of a transform at cut 1 of `part`, and back."""
    adapter = Chain(with_transforms(part, [transform])).transform(1, transform.name)
    return adapter.decode(adapter.encode({transform.tensor: array}))[transform.tensor]


@pytest.mark.parametrize("seed", range(3))
def test_with_all_components_a_klt_over_channels_is_the_identity(
    part: Partition, seed: int
) -> None:
    array = correlated(4, 6, 8, 8, seed=seed)
    transform = klt(part, 1, "a", *fit_klt([array], 6))
    assert relative(array, through(transform, array, part)) < 1e-4


def test_with_all_components_a_klt_over_features_is_the_identity(tokens: Partition) -> None:
    array = np.random.default_rng(1).standard_normal((2, 7, 5)).astype(np.float32)
    transform = klt(tokens, 1, "h", *fit_klt([array], 5))
    assert transform.spec == TensorSpec("h", "float32", ("n", "t", 5))
    assert relative(array, through(transform, array, tokens)) < 1e-4


@pytest.mark.parametrize("components", [1, 2, 3, 5])
def test_what_truncation_costs_is_the_energy_it_drops(
    part: Partition, tokens: Partition, components: int
) -> None:
    for place, name, array in (
        (part, "a", correlated(4, 6, 8, 8)),
        (tokens, "h", np.ascontiguousarray(np.moveaxis(correlated(4, 5, 9), 1, 2))),
    ):
        spectrum = spectrum_of([array])
        channels = len(spectrum.mean)
        kept = min(components, channels)
        transform = klt(place, 1, name, *spectrum.keep(kept))
        error = (array - through(transform, array, place)).astype(np.float64)
        dropped = float(spectrum.energies[kept:].sum())
        measured = float((error**2).sum()) * channels / array.size
        assert measured == pytest.approx(dropped, rel=1e-3, abs=1e-9)


def test_only_the_components_travel(part: Partition) -> None:
    array = correlated(2, 6, 8, 8)
    transform = klt(part, 1, "a", *fit_klt([array], 2))
    assert transform.name == "klt:2"
    assert transform.spec == TensorSpec("a", "float32", ("n", 2, 8, 8))
    chain = Chain(with_transforms(part, [transform]))
    assert chain.transform(1, "klt:2").encode({"a": array})["a"].shape == (2, 2, 8, 8)
    assert expansion(part.specs["a"], transform.spec) == 3.0


def test_a_rectified_tensor_comes_back_without_negative_numbers(part: Partition) -> None:
    array = np.maximum(correlated(4, 6, 8, 8), 0)
    mean, basis = fit_klt([array], 2)
    part_at_b = with_transforms(part, [klt(part, 2, "b", mean, basis, nonnegative=True)])
    adapter = Chain(part_at_b).transform(2, "klt:2")
    clipped = adapter.decode(adapter.encode({"b": array}))["b"]
    free = through(klt(part, 1, "a", mean, basis), array, part)
    assert free.min() < 0
    assert np.array_equal(clipped, np.maximum(free, 0))


# Fitting.


@given(
    st.integers(1, 6),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_a_fit_does_not_depend_on_how_samples_are_batched(
    channels: int, batches: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = [(rng.standard_normal((n, channels, 2, 2)) + 100).astype("f4") for n in batches]
    parts, whole = spectrum_of(samples), spectrum_of([np.concatenate(samples)])
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(parts.energies, whole.energies, rtol=1e-6, atol=1e-9)


def test_a_fit_is_that_of_the_covariance() -> None:
    array = correlated(3, 6, 4, 4)
    spectrum = spectrum_of([array])
    flat = np.moveaxis(array, 1, -1).reshape(-1, 6).astype(np.float64)
    np.testing.assert_allclose(spectrum.mean, flat.mean(axis=0), rtol=1e-9)
    covariance = np.cov(flat, rowvar=False, bias=True)
    rebuilt = spectrum.basis.T @ np.diag(spectrum.energies) @ spectrum.basis
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-9)
    assert np.all(np.diff(spectrum.energies) <= 0)


def test_the_signs_of_a_basis_are_settled() -> None:
    array = correlated(3, 6, 4, 4)
    basis = spectrum_of([array]).basis
    np.testing.assert_allclose(spectrum_of([array.copy()]).basis, basis)
    assert all(row[np.abs(row).argmax()] > 0 for row in basis)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 6, 3, 3), np.float32),
        np.zeros((1, 6, 1, 1), np.float32),
        correlated(1, 6, 1, 2),
        np.concatenate([correlated(2, 3, 4, 4)] * 2, axis=1),
        np.float32(1e30) * correlated(2, 6, 4, 4),
        correlated(2, 6, 4, 4).astype(np.float16),
        np.asfortranarray(correlated(2, 6, 4, 4)),
    ],
    ids=["constant", "one place", "few places", "rank 3 of 6", "huge", "half", "strided"],
)
def test_fitting_takes_what_is_degenerate(array: Array) -> None:
    spectrum = spectrum_of([array])
    np.testing.assert_allclose(spectrum.basis @ spectrum.basis.T, np.eye(6), atol=1e-9)
    assert spectrum.energies.min() >= 0
    assert 1 <= components_for(spectrum.energies) <= 6


def test_places_that_are_not_finite_are_passed_over() -> None:
    array = correlated(2, 6, 4, 4)
    broken = array.copy()
    broken[1, 2, 3, 3], broken[0, 5, 0, 0] = np.nan, np.inf
    keep = np.ones((2, 4, 4), bool)
    keep[1, 3, 3] = keep[0, 0, 0] = False
    kept = np.moveaxis(array, 1, -1)[keep].T[None, :, :, None]
    np.testing.assert_allclose(spectrum_of([broken]).mean, spectrum_of([kept]).mean)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "needs samples with finite numbers"),
        ([np.full((1, 3, 2, 2), np.nan, np.float32)], "needs samples with finite numbers"),
        ([np.full((1, 3, 2, 2), 1e300) * [[[[1, -1], [1, -1]]]]], "finite numbers"),
        ([np.zeros((0, 3, 2, 2), np.float32)], "needs samples with finite numbers"),
        ([np.zeros((2, 3), np.float32)], r"must be arrays \[N, C, \.\.\.\]"),
        ([np.zeros((1, 0, 2, 2), np.float32)], "of 1 to 4096 channels"),
        ([np.zeros((1, 3, 2, 2)), np.zeros((1, 4, 2, 2))], "all of 3 channels"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow|invalid")
def test_what_cannot_be_fitted_to_is_refused(samples: list[Array], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        spectrum_of(samples)


@pytest.mark.parametrize(
    ("energies", "share", "components"),
    [
        ([9.0, 0.9, 0.1], 0.999, 3),
        ([9.0, 0.9, 0.1], 0.99, 2),
        ([9.0, 0.9, 0.1], 0.9, 1),
        ([9.0, 1.0, 0.0, 0.0], 1.0, 2),
        ([1.0, 1.0, 1.0, 1.0], 0.5, 2),
        ([0.0, 0.0], 0.999, 1),
        ([7.0], 0.999, 1),
    ],
)
def test_components_are_the_fewest_that_hold_the_share(
    energies: list[float], share: float, components: int
) -> None:
    assert components_for(energies, share) == components


@pytest.mark.parametrize(("energies", "share"), [([1.0], 0.0), ([1.0], 1.1), ([], 0.9)])
def test_a_share_that_is_none_is_refused(energies: list[float], share: float) -> None:
    with pytest.raises(UsageError, match="share of the energy must be"):
        components_for(energies, share)


@pytest.mark.parametrize("components", [0, 7, -1])
def test_more_components_than_channels_are_refused(components: int) -> None:
    with pytest.raises(UsageError, match="1 to 6 components"):
        fit_klt([correlated(1, 6, 4, 4)], components)


# Signs.


def test_what_rectifiers_make_is_known_not_to_be_negative(make_network: MakeNetwork) -> None:
    network = make_network("""
        net (float[2, 4, 8, 8] x) => (
          float[2, 4, 4, 4] p, float[2, 8, 8, 8] j, float[2, 4, 8, 8] q
        ) {
          a = Relu(x)
          lo = Constant <value = float {0.0}> ()
          low = Constant <value = float {-1.0}> ()
          one = Constant <value = float[1] {0.0}> ()
          b = Clip(x, lo)
          q = Clip(x, one)
          c = Clip(x, low)
          d = Add(a, b)
          e = Add(a, c)
          m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
          f = Mul(x, x)
          n = Neg(d)
          g = Add(e, f)
          h = Add(g, n)
          j = Concat <axis = 1> (d, h)
          p = Identity(m)
        }""")
    part = partition(network, position_cuts(network.graph))
    known = {name: is_nonnegative(part, name) for name in "abcdefgmnpqx"}
    never = {name for name, is_so in known.items() if is_so}
    assert never == {"a", "b", "d", "m", "p", "q"}


# Partitions with transforms.


def fitted(part: Partition, components: int, *, k: int = 1, tensor: str = "a") -> Transform:
    return klt(part, k, tensor, *fit_klt([correlated(4, 6, 8, 8)], components))


def test_transforms_enter_the_digest_and_nothing_else_changes_it(part: Partition) -> None:
    assert with_transforms(part, []) == part
    small, large = fitted(part, 2), fitted(part, 4)
    digests = {
        with_transforms(part, given).digest
        for given in ([], [small], [large], [small, large], [large, small])
    }
    assert len(digests) == 4
    both = with_transforms(part, [large, small])
    assert with_transforms(both, []).digest == part.digest
    assert both.segments == part.segments
    other = klt(part, 1, "a", *fit_klt([correlated(4, 6, 8, 8, seed=5)], 2))
    assert with_transforms(part, [other]).digest not in digests


def test_what_a_partition_had_before_there_were_transforms_is_its_digest_still(
    branches: Network,
) -> None:
    part = partition(branches, position_cuts(branches.graph)[2:5])
    content = {
        "segments": [segment.digest for segment in part.segments],
        "cuts": [[cut.id, *cut.tensors] for cut in part.cuts],
        "inputs": ["x"],
        "outputs": [spec.name for spec in part.outputs],
        "specs": {name: [s.dtype, *s.shape] for name, s in sorted(part.specs.items())},
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert part.digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_specs_that_travel_are_the_transforms(part: Partition) -> None:
    held = with_transforms(part, [fitted(part, 2), fitted(part, 4)])
    assert list(held.transforms_at(1)) == ["klt:2", "klt:4"]
    assert held.transforms_at(2) == {}
    assert held.travelling(1) == held.crossing(1)
    assert held.travelling(1, "klt:4") == (TensorSpec("a", "float32", ("n", 4, 8, 8)),)
    with pytest.raises(UsageError, match=r"must be one of klt:2, klt:4 \(not 'klt:3'\)"):
        held.travelling(1, "klt:3")
    with pytest.raises(UsageError, match=r"for it has none \(not 'klt:2'\)"):
        held.travelling(2, "klt:2")


def test_tensors_without_a_transform_cross_as_they_are(part: Partition) -> None:
    k = 3
    assert part.cuts[k].tensors == ("b", "s")
    transform = fitted(part, 2, k=k, tensor="b")
    chain = Chain(with_transforms(part, [transform]))
    state = chain.run({"x": correlated(2, 3, 8, 8)}, 0, k)
    sent = encode_crossing(chain, k, "klt:2+raw", state)
    assert list(sent.payloads) == list(part.cuts[k].tensors)
    back = decode_crossing(chain, k, sent)
    assert np.array_equal(back["s"], state["s"])
    assert back["b"].shape == state["b"].shape


@pytest.mark.parametrize("size", [0, 1, 3])
def test_any_batch_goes_through(part: Partition, size: int) -> None:
    array = correlated(size, 6, 8, 8) if size else np.zeros((0, 6, 8, 8), np.float32)
    assert through(fitted(part, 6), array, part).shape == array.shape


def test_doubles_and_halves_come_back_as_what_they_were(make_network: MakeNetwork) -> None:
    for name, dtype in (("float16", np.float16), ("double", np.float64)):
        network = make_network(
            f"net ({name}[n, 6, 4, 4] x) => ({name}[n, 6, 4, 4] y)"
            "{ h = Identity(x)\n y = Identity(h) }"
        )
        part = partition(network, position_cuts(network.graph))
        array = correlated(2, 6, 4, 4).astype(dtype)
        back = through(klt(part, 1, "h", *fit_klt([array], 6)), array, part)
        assert back.dtype == dtype
        assert relative(array.astype(np.float64), back.astype(np.float64)) < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_transformed(part: Partition, value: float) -> None:
    array = correlated(2, 6, 8, 8)
    array[1, 2, 3, 4] = value
    chain = Chain(with_transforms(part, [fitted(part, 2)]))
    with pytest.raises(TensorError, match="'a' must be finite to go through klt:2"):
        chain.transform(1, "klt:2").encode({"a": array})
    assert chain.transform(1, "").encode({"a": array})["a"] is array
    sent = encode_crossing(chain, 1, "klt:2+half", {"a": array})
    assert sent.codec == "half"
    assert np.array_equal(decode_crossing(chain, 1, sent)["a"], array, equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cut": "c9-123456"}, "must be of one of the cuts"),
        ({"cut": "edge-only"}, "must be of one of no tensors"),
        ({"tensor": "b"}, "must be of one of a "),
        ({"name": "klt+half"}, "must be letters"),
        ({"name": "../klt"}, "must be letters"),
        ({"name": ""}, "must be letters"),
        ({"name": "k" * 65}, "must be letters"),
        ({"spec": TensorSpec("a", "float32", ("n", 2, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "float32", ("m", 2, 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "float32", (1, 2, 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "float32", ("n", "c", 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "float32", ("n", 0, 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "float32", ("n", -2, 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("a", "int64", ("n", 2, 8, 8))}, "keep its name, rank"),
        ({"spec": TensorSpec("x", "float32", ("n", 2, 8, 8))}, "keep its name, rank"),
    ],
)
def test_a_transform_of_something_else_is_refused(
    part: Partition, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        with_transforms(part, [replace(fitted(part, 2), **changes)])


def test_two_transforms_of_one_name_and_tensor_are_refused(part: Partition) -> None:
    with pytest.raises(UsageError, match="one transform of a name"):
        with_transforms(part, [fitted(part, 2), fitted(part, 2)])
    with pytest.raises(UsageError, match="at most 4096 transforms"):
        with_transforms(part, [fitted(part, 2)] * 4097)


def test_integers_and_vectors_are_left_as_they_are(part: Partition) -> None:
    assert not transformable(TensorSpec("t", "int64", (1, 2, 3, 4)))
    assert not transformable(TensorSpec("t", "float32", (1, 2)))
    assert transformable(TensorSpec("t", "float16", (1, 2, 3)))
    mean, basis = np.zeros(6, np.float32), np.eye(6, dtype=np.float32)
    with pytest.raises(UsageError, match=r"with a fixed number of channels: .*not 's'"):
        klt(part, 1, "s", mean, basis)
    with pytest.raises(UsageError, match="must have 6 columns"):
        klt(part, 1, "a", mean[:3], basis[:, :3])
    with pytest.raises(UsageError, match="must have 6 columns"):
        klt(part, 1, "a", mean, basis[:0])


# At work.


def test_a_transform_is_compiled_once_however_many_threads_ask(
    part: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    get = Compiled.get

    def count(self: Compiled, digest: str, load: Callable[[], bytes]) -> Any:
        def loaded() -> bytes:
            made.append(1)
            return load()

        return get(self, digest, loaded)

    monkeypatch.setattr(Compiled, "get", count)
    chain = Chain(with_transforms(part, [fitted(part, 2)]))
    array, found = correlated(2, 6, 8, 8), []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(10)
        adapter = chain.at_speed(1.5).transform(1, "klt:2")
        found.append(adapter.decode(adapter.encode({"a": array}))["a"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert all(np.array_equal(each, found[0]) for each in found)
    assert sum(made) == 2


def test_a_model_of_two_tensors_is_no_transform(part: Partition) -> None:
    good = fitted(part, 2)
    model = onnx.load_model_from_string(good.encoder)
    model.graph.output.append(model.graph.output[0])
    model.graph.output[1].name = "bias"
    bad = make_transform("x", "klt:2", good.spec, encoder=model, decoder=model)
    chain = Chain(with_transforms(part, [replace(bad, cut=good.cut)]))
    with pytest.raises(ModelError, match="must make one tensor of one"):
        chain.transform(1, "klt:2").compile_encoders()


def test_the_same_fit_gives_the_same_bytes(part: Partition) -> None:
    first, second = fitted(part, 3), fitted(part, 3)
    assert (first.encoder, first.decoder) == (second.encoder, second.decoder)
    assert first == second


@pytest.mark.parametrize(
    ("text", "id", "lossless"),
    [
        ("raw", "raw", True),
        ("half", "half", False),
        ("jpeg", "jpeg:90", False),
        ("klt:2+raw", "klt:2+raw", False),
        ("klt:2+ec", "klt:2+ec:0.5", False),
        ("klt:2+ec@16KB", "klt:2+ec@16KB", False),
        ("klt:2+jpeg", "klt:2+jpeg:90", False),
    ],
)
def test_a_plans_codec_is_a_transform_and_a_codec(text: str, id: str, lossless: bool) -> None:
    assert full_id(text) == id
    assert is_lossless(text) == lossless


@pytest.mark.parametrize("codec", ["raw", "lossless", "half", "int8", "ec:0.01"])
def test_what_crosses_comes_back_through_transform_and_codec(
    part: Partition, codec: str
) -> None:
    chain = Chain(with_transforms(part, [fitted(part, 6)]))
    state = {"a": correlated(2, 6, 8, 8)}
    sent = encode_crossing(chain, 1, f"klt:6+{codec}", state)
    assert sent.codec == f"klt:6+{codec}"
    back = decode_crossing(chain, 1, sent)
    assert list(back) == ["a"]
    assert relative(state["a"], back["a"]) < (0.02 if codec[-1] in "81" else 1e-3)
    with pytest.raises(UsageError, match="must be one of klt:6"):
        encode_crossing(chain, 1, "klt:5+raw", state)
