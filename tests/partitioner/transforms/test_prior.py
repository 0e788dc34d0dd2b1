"""Priors: what is packed comes back to half a step, in fewer bytes, and damage is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.transform import EXPANSION, expansion
from midstream_partitioner.profiling.codec_ladder import ladder_of
from midstream_partitioner.profiling.fit_transforms import fit_transforms
from midstream_partitioner.transforms.channel_axis import Layouts
from midstream_partitioner.transforms.construct import make_packing
from midstream_partitioner.transforms.context_model import ESCAPE, PASSES, Expectation
from midstream_partitioner.transforms.fit_prior import can_have_prior, fit_prior
from midstream_partitioner.transforms.noise_shaping import Metric, metric_of
from midstream_partitioner.transforms.prior import Prior, prior_of
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.codecs.rans import TOTAL
from midstream_wire.errors import CodecError, ModelError, TensorError, UsageError
from midstream_wire.tensors import Array, TensorSpec

CHANNELS = 4
SPEC = TensorSpec("a", "float32", ("n", CHANNELS, "h", "w"))
FIXED = TensorSpec("a", "float32", ("n", CHANNELS, 16, 16))


def smooth(count: int, *sides: int, seed: int = 0, signed: bool = False) -> Array:
    """Planes [count, 4, *sides] whose neighbours, and channels, are alike."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((count, 1, *(size + 4 for size in sides)))
    common = sum(
        white[:, :, a : a + sides[0], b : b + sides[1]] for a in range(5) for b in range(5)
    )
    own = rng.standard_normal((count, CHANNELS, *sides))
    made = np.asarray(common / 4 + 0.2 * own, np.float32)
    return made if signed else np.maximum(made, 0)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return fit_prior([smooth(64, 16, 16, seed=1)], 0.5)


@pytest.fixture(scope="module")
def signed() -> Prior:
    return fit_prior([smooth(64, 16, 16, seed=1, signed=True)], 0.5)


@settings(max_examples=60)
@given(
    count=st.integers(1, 3),
    sides=st.tuples(st.integers(4, 19), st.integers(4, 19)),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 60.0]),
    is_signed=st.booleans(),
)
def test_what_is_packed_comes_back_to_a_step(
    prior: Prior,
    signed: Prior,
    *,
    count: int,
    sides: tuple[int, int],
    seed: int,
    scale: float,
    is_signed: bool,
) -> None:
    used = signed if is_signed else prior
    array = np.float32(scale) * smooth(count, *sides, seed=seed, signed=is_signed)
    restored = used.unpack(used.pack(array, SPEC), SPEC)
    assert restored.shape == array.shape
    assert restored.dtype == array.dtype
    assert np.abs(restored - array).max() <= 1.001 * used.step


def test_the_sum_of_magnitudes_is_kept(prior: Prior) -> None:
    array = smooth(1, 16, 16, seed=5)
    restored = prior.unpack(prior.pack(array, FIXED), FIXED)
    assert restored.sum() == pytest.approx(array.sum(), rel=2e-3)


def test_a_prior_takes_fewer_bytes_than_context_coding(prior: Prior) -> None:
    array = smooth(1, 16, 16, seed=7)
    packed = encode_bytes(codec("raw"), prior.pack(array, FIXED))
    assert len(packed) < 0.7 * len(encode_bytes(codec("ctx:0.5"), array))


def test_fixed_sizes_are_not_sent(prior: Prior) -> None:
    array = smooth(2, 16, 16, seed=3)
    assert prior.pack(array, SPEC).size == prior.pack(array, FIXED).size + 8


def test_great_magnitudes_go_as_escapes(prior: Prior) -> None:
    array = smooth(1, 16, 16)
    array[0, :, 3, 5:9] = np.array([ESCAPE - 1, ESCAPE, 900, 60_000]) * prior.step
    restored = prior.unpack(prior.pack(array, SPEC), SPEC)
    assert np.abs(restored - array).max() <= 1.01 * prior.step


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_come_back_as_what_they_were(prior: Prior, dtype: str) -> None:
    spec = TensorSpec("a", dtype, SPEC.shape)
    array = smooth(1, 8, 8).astype(dtype)
    restored = prior.unpack(prior.pack(array, spec), spec)
    assert restored.dtype == dtype
    assert np.abs(restored - array).max() <= 1.01 * prior.step


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e9])
def test_what_was_never_seen_is_not_packed(prior: Prior, value: float) -> None:
    array = smooth(1, 8, 8)
    array[0, 0, 0, 0] = value
    with pytest.raises(TensorError, match="send it as it is"):
        prior.pack(array, SPEC)


def test_zeros_have_a_byte_for_each_256() -> None:
    array = np.zeros((1, CHANNELS, 64, 64), np.float32)
    prior = fit_prior([np.where(np.arange(64) < 60, 0, smooth(2, 64, 64))], 0.5)
    packed = prior.pack(array, SPEC)
    assert packed.size == array.nbytes // EXPANSION
    assert not prior.unpack(packed, SPEC).any()
    travels = TensorSpec("a", "uint8", ("packed",))
    assert expansion(SPEC, travels) == EXPANSION


def test_a_prior_is_read_as_it_was_written(prior: Prior) -> None:
    again = prior_of(prior.to_bytes())
    array = smooth(1, 16, 16, seed=11)
    assert np.array_equal(again.pack(array, SPEC), prior.pack(array, SPEC))
    assert again.to_bytes() == prior.to_bytes()


#: One class, in which nearly everything is 0.
_FREQUENCIES = np.array([[TOTAL - 96, 64, *[1] * 2, *[2] * 10, 4, 6]], np.uint16)
_LITERAL = Prior(
    1,
    0.5,
    signed=True,
    passes=tuple(
        Expectation(
            np.zeros((1, len(around)), np.float32),
            np.zeros(1, np.int64),
            np.zeros(0, np.int64),
            _FREQUENCIES,
        )
        for _, around in PASSES
    ),
)


def test_packed_bytes_are_these_in_both_directions() -> None:
    spec = TensorSpec("a", "float32", ("n", 1, 4, 4))
    array = np.zeros((1, 1, 4, 4), np.float32)
    array[0, 0, 1, 2], array[0, 0, 3, 3], array[0, 0, 0, 0] = 0.5, -1.0, 8.5
    # Size, delta, state and one word of the symbols, 17 - ESCAPE + 1 as 011, signs as 001.
    literal = bytes.fromhex("01000000 00 fc5f960e 6080 60 20")
    assert _LITERAL.pack(array, spec).tobytes() == literal
    assert np.array_equal(_LITERAL.unpack(np.frombuffer(literal, np.uint8), spec), array)


def test_damaged_priors_are_refused(prior: Prior) -> None:
    data = prior.to_bytes()
    for end in [*range(200), *range(200, len(data), 97)]:
        with pytest.raises(ModelError, match="calibrate"):
            prior_of(data[:end])
    with pytest.raises(ModelError):
        prior_of(data + b"\0")
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            found = prior_of(bytes(damaged))
        except ModelError:
            continue
        array = smooth(1, 8, 8)
        if found.channels == CHANNELS:  # other weights: worse, but both sides have them
            assert np.isfinite(found.unpack(found.pack(array, SPEC), SPEC)).all()


def test_damaged_bytes_are_refused_or_give_the_right_shape(prior: Prior) -> None:
    packed = prior.pack(smooth(1, 16, 16), FIXED)
    chance = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = packed.copy()
        damaged[chance.randrange(damaged.size)] ^= 1 << chance.randrange(8)
        damaged = damaged[: chance.choice([damaged.size, chance.randrange(damaged.size)])]
        try:
            found = prior.unpack(damaged, FIXED)
        except CodecError:
            refused += 1
        else:
            assert found.shape[1:] == (CHANNELS, 16, 16)
    assert refused > 450


@pytest.mark.parametrize("sizes", [(1 << 20, 16, 16), (1, 4, 1 << 31), (1, 3, 16), (0, 8, 8)])
def test_sizes_that_the_bytes_do_not_warrant_are_refused(
    prior: Prior, sizes: tuple[int, int, int]
) -> None:
    packed = prior.pack(smooth(1, 16, 16), SPEC).copy()
    packed[:12] = np.array(sizes, "<u4").view(np.uint8)
    with pytest.raises(CodecError, match="a byte for each"):
        prior.unpack(packed, SPEC)


@pytest.mark.parametrize(
    "samples",
    [[], [np.zeros((2, 4, 8, 8), np.float32)], [np.full((1, 4, 8, 8), np.nan, np.float32)]],
)
def test_what_says_nothing_is_not_fitted_to(samples: list[Array]) -> None:
    with pytest.raises(UsageError, match="calibrate with other data"):
        fit_prior(samples, 0.5)


def test_samples_that_are_not_finite_are_passed_over() -> None:
    good = [smooth(4, 8, 8)]
    bad = np.full((1, CHANNELS, 8, 8), np.inf, np.float32)
    assert fit_prior([*good, bad], 0.5).to_bytes() == fit_prior(good, 0.5).to_bytes()


def test_planes_of_few_channels_alone_can_have_one() -> None:
    assert can_have_prior(SPEC)
    assert not can_have_prior(TensorSpec("a", "float32", ("n", 129, 8, 8)))
    assert not can_have_prior(TensorSpec("a", "float32", ("n", "c", 8, 8)))
    assert not can_have_prior(TensorSpec("a", "float32", ("n", 8, 3, 8)))
    assert not can_have_prior(TensorSpec("a", "float32", ("n", 8, 8)))
    assert not can_have_prior(TensorSpec("a", "int32", ("n", 8, 8, 8)))


CONVOLUTIONS = """
net (float[n, 3, 8, 8] x) => (float[n, 8, 8, 6] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  b = Relu(a)
  c = Transpose <perm = [0, 2, 3, 1]> (b)
  d = Softmax(c)
  y = Tanh(d)
}"""


@pytest.fixture(scope="module")
def part(make_network: Callable[..., Network]) -> Partition:
    weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    network = make_network(CONVOLUTIONS, {"w": weights})
    return partition(network, position_cuts(network.graph))


def samples(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_channels_are_looked_for_where_convolutions_have_them(part: Partition) -> None:
    layouts = Layouts(part)
    found = {name: layouts.are_channels_first(name) for name in "abcd"}
    assert found == {"a": True, "b": True, "c": False, "d": False}


def test_fitting_leaves_tensors_alone_whose_channels_are_elsewhere(part: Partition) -> None:
    fitted = fit_transforms(Chain(part), samples(40), [0.9], dials=[0.5, 1.0])
    priors = {(each.tensor, each.name) for each in fitted.transforms if each.packs}
    assert priors == {(t, n) for t in "ab" for n in ("prior:50", "prior:100")}
    assert {each.tensor for each in fitted.transforms} == {"a", "b"}
    behind = [name for name in ladder_of(fitted) if name.startswith("prior")]
    assert sorted(behind) == ["prior:100+raw", "prior:50+raw"]


def test_shaped_numbers_move_the_next_layer_less(make_network: Callable[..., Network]) -> None:
    rng = np.random.default_rng(0)
    first, second = (
        rng.standard_normal((6, size, 3, 3)).astype(np.float32) for size in (3, 6)
    )
    text = """
    net (float[n, 3, 16, 16] x) => (float[n, 6, 8, 8] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w)
      b = Relu(a)
      y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, v)
    }"""
    network = make_network(text, {"w": first, "v": second})
    place = partition(network, position_cuts(network.graph))
    inputs = [
        {"x": each} for each in rng.standard_normal((48, 1, 3, 16, 16)).astype(np.float32)
    ]
    chain = Chain(fit_transforms(Chain(place), inputs[:40], dials=[1.0], shaped=[1.0, 0.5]))
    names = {each.name for each in chain.partition.transforms if each.tensor == "b"}
    assert names == {"prior:100", "shaped:100", "shaped:50"}
    off = dict.fromkeys(names, 0.0)
    for sample in inputs[40:]:
        state = chain.run(sample, 0, 2)
        wanted = chain.run(state, 2, 3)["y"]
        for name in names:
            came = decode_crossing(chain, 2, encode_crossing(chain, 2, f"{name}+raw", state))
            off[name] += float(((chain.run(came, 2, 3)["y"] - wanted) ** 2).sum())
    assert off["shaped:50"] < off["shaped:100"] < 0.7 * off["prior:100"]


def test_rows_beyond_the_last_patch_are_rounded_plainly() -> None:
    matrix = np.full((8, 8), 0.4) + 0.6 * np.eye(8)
    scaled = np.random.default_rng(0).uniform(0, 4, (2, 3, 5, 7)).astype(np.float32)
    shaped = Metric(2, matrix.astype(np.float32)).shape(scaled, signed=False)
    assert np.array_equal(shaped, np.rint(shaped))
    assert np.array_equal(shaped[:, :, 4:], np.rint(scaled[:, :, 4:]))
    assert np.array_equal(shaped[:, :, :, 6:], np.rint(scaled[:, :, :, 6:]))
    assert not np.array_equal(shaped, np.rint(scaled))


def test_a_metric_of_nothing_but_itself_rounds_plainly() -> None:
    metric = Metric(1, np.eye(CHANNELS, dtype=np.float32))
    scaled = 3 * smooth(2, 8, 8, signed=True).swapaxes(0, 1)
    assert np.array_equal(metric.shape(scaled, signed=True), np.rint(scaled))
    assert metric.shape(scaled, signed=False).min() == 0


def test_damaged_metrics_are_refused() -> None:
    data = Metric(1, np.eye(CHANNELS, dtype=np.float32)).to_bytes()
    assert metric_of(memoryview(data), CHANNELS).to_bytes() == data
    for end in range(len(data)):
        with pytest.raises(ModelError):
            metric_of(memoryview(data[:end]), CHANNELS)
    with pytest.raises(ModelError):
        metric_of(memoryview(data), CHANNELS + 1)
    with pytest.raises(ModelError, match="diagonal"):
        metric_of(memoryview(data[:-2] + bytes(2)), CHANNELS)


@pytest.mark.parametrize("endpoint", [0.0, -1.0, 0.005, 17.0, float("nan")])
def test_steps_of_no_hundredths_are_refused(part: Partition, endpoint: float) -> None:
    with pytest.raises(UsageError, match="hundredths"):
        fit_transforms(Chain(part), samples(4), dials=[endpoint])


def test_a_partition_keeps_its_priors(part: Partition, tmp_path: Path) -> None:
    fitted = fit_transforms(Chain(part), samples(40), dials=[0.5])
    save_partition(fitted, tmp_path / "net")
    loaded = load_partition(tmp_path / "net")
    assert loaded.digest == fitted.digest != part.digest
    chain = Chain(loaded)
    state = chain.run(samples(1)[0], 0, 2)
    sent = encode_crossing(chain, 2, "prior:50+raw", state)
    assert sent.codec == "prior:50+raw"
    restored = decode_crossing(chain, 2, sent)["b"]
    assert np.abs(restored - state["b"]).max() < 0.5 * state["b"].std()
    file = tmp_path / "net/transforms/1.dec.prior"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError):
        Chain(load_partition(tmp_path / "net")).transform(2, "prior:50").compile_decoders()


def test_what_a_prior_does_not_take_crosses_as_it_is(part: Partition) -> None:
    prior = fit_prior([np.maximum(smooth(8, 8, 8)[:, [0, 1, 2, 3, 0, 1]], 0)], 0.5)
    place = with_transforms(part, [make_packing(part.cuts[2].id, 0.5, "b", prior)])
    array = np.full((1, 6, 8, 8), np.nan, np.float32)
    sent = encode_crossing(Chain(place), 2, "prior:50+raw", {"b": array})
    assert sent.codec == "raw"


def test_a_prior_of_something_else_is_refused(part: Partition) -> None:
    prior = fit_prior([smooth(8, 8, 8)], 0.5)
    packing = make_packing(part.cuts[2].id, 0.5, "b", prior)
    chain = Chain(with_transforms(part, [packing]))
    with pytest.raises(TensorError, match="6 channels"):
        chain.transform(2, "prior:50").encode({"b": smooth(1, 8, 8)[:, [0, 1, 2, 3, 0, 1]]})
