"""What every codec promises, for any array: its error bound, or every bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from midstream_wire.codecs import CODECS, Codec, Decoder, codec, encode_bytes
from midstream_wire.codecs.narrow import FLOATS
from midstream_wire.errors import TensorError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

RoundTrip = Callable[[Codec, Array], Array]

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


def floats_of(dtype: str) -> st.SearchStrategy[Array]:
    """Finite arrays of all magnitudes, of one magnitude with an offset, and of few values."""
    width: Literal[32, 64] = 32 if dtype == "float32" else 64
    anything = st.floats(width=width, allow_nan=False, allow_infinity=False)
    near = st.floats(-8, 8, width=width)
    around = st.sampled_from([0.0, 1e-30, 1e4, -1e4, 1e30]).map(np.dtype(dtype).type)
    numbers = [anything, near, st.sampled_from([0.0, -0.0, 1.0, -3.5]), st.just(1e-42)]
    arrays = st.one_of(*(hnp.arrays(dtype, SHAPES, elements=each) for each in numbers))
    shifted = st.builds(np.add, hnp.arrays(dtype, SHAPES, elements=near), around)
    return st.one_of(arrays, shifted.map(lambda made: np.asarray(made, dtype)))


@st.composite
def halves(draw: st.DrawFn) -> Array:
    """Finite numbers of both half precisions: any bits, and those near to zero."""
    dtype = DTYPES[draw(st.sampled_from(["float16", "bfloat16"]))]
    if draw(st.booleans()):
        return draw(floats_of("float32")).clip(-8, 8).astype(dtype)
    bits = draw(hnp.arrays(np.uint16, SHAPES)).view(dtype)
    return np.where(np.isfinite(bits), bits, dtype.type(0)).astype(dtype)


def error_of(had: Array, got: Array) -> float:
    difference = np.abs(had.astype(np.float64) - got.astype(np.float64))
    return float(difference.max()) if had.size else 0.0


@pytest.mark.parametrize(
    "id",
    [
        "half",
        "int8",
        "int8c",
        "ec:0.01",
        "ec:0.5",
        "ec:16",
        "ecc:0.125",
        "ecc:2",
        "ctx:0.1",
        "ctx:2",
    ],
)
@given(array=floats_of("float32") | floats_of("float64") | halves())
@example(array=np.array([65504.0, -65504.0, 6e-8, 1.0] * 64, np.float16))
@example(array=np.array([3.3e38, -3.3e38, 1e-40, 1.0], ml_dtypes.bfloat16))
@example(array=np.full((2, 3), 0.1, np.float32))
@example(array=np.array([0.0, 3e38, -3e38], np.float32))
@example(array=np.array([65504.0, 65519.0, 2.0**-25], np.float32))
@example(array=np.array([1e6, 1e6 + 1e-6], np.float64))
@example(array=np.linspace(-1.0, 7.0, 1000, dtype=np.float32))
@example(array=np.linspace(-1e-3, 1e3, 1000, dtype=np.float32))
def test_lossy_codecs_keep_the_bound_they_state(
    id: str, array: Array, round_trip: RoundTrip
) -> None:
    bound = codec(id).error_bound(array)
    assert bound is not None
    decoded = round_trip(codec(id), array)
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert error_of(array, decoded) <= bound
    if bound == 0.0:
        assert decoded.tobytes() == array.tobytes()


@pytest.mark.parametrize("id", CODECS)
@given(data=st.data(), dtype=st.sampled_from(sorted(set(DTYPES) - set(FLOATS))))
def test_all_that_a_codec_does_not_accept_keeps_every_bit(
    id: str, data: st.DataObject, dtype: str, round_trip: RoundTrip
) -> None:
    shape = data.draw(SHAPES)
    raw = data.draw(hnp.arrays(np.uint8, int(np.prod(shape)) * DTYPES[dtype].itemsize))
    array = (raw & 1 if dtype == "bool" else raw).view(DTYPES[dtype]).reshape(shape)
    chosen = codec(id)
    if chosen.accepts(dtype, shape) and not chosen.lossless:
        assert chosen.error_bound(array) is None
        return
    assert chosen.error_bound(array) == 0.0
    assert round_trip(chosen, array).tobytes() == array.tobytes()


@pytest.mark.parametrize("id", ["raw", "lossless"])
@given(
    array=hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32))
    | hnp.arrays(np.float64, SHAPES, elements=st.floats())
)
def test_exact_codecs_keep_every_bit_of_any_float(
    id: str, array: Array, round_trip: RoundTrip
) -> None:
    assert round_trip(codec(id), array).tobytes() == array.tobytes()


@pytest.mark.parametrize("id", ["half", "int8", "int8c", "ec", "ecc", "ec@1KB", "ctx"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
def test_what_lossy_codecs_cannot_hold_falls_back_and_says_so(
    id: str, dtype: str, poison: float, relu: Callable[..., Array]
) -> None:
    array = relu((1, 4, 8, 8)).astype(DTYPES[dtype])
    with np.errstate(over="ignore"):  # beyond float16's greatest lies its infinity
        array[0, 2, 3, 4] = poison
    if id == "half" and dtype in ("float16", "bfloat16"):
        assert not codec(id).accepts(dtype, array.shape)
    decoder = Decoder(TensorSpec("x", dtype, (1, 4, 8, 8)), max_nbytes=array.nbytes)
    decoder.feed(encode_bytes(codec(id), array))
    assert decoder.done
    assert decoder.fallback
    assert decoder.codec_id == "lossless"
    assert decoder.result().tobytes() == array.tobytes()
    assert codec(id).error_bound(array) == 0.0


def test_half_stops_where_float16_does() -> None:
    assert codec("half").error_bound(np.array([65504.0], np.float32)) == 65504.0 / 2048
    assert codec("half").error_bound(np.array([65504.01], np.float64)) == 0.0


@given(
    hnp.arrays(np.uint32, 64).map(lambda bits: bits.view(np.float32)).filter(
        lambda values: bool((np.abs(values) <= 65504).all())
    )
    | hnp.arrays(np.float32, 64, elements=st.floats(-(2.0**-13), 2.0**-13, width=32))
    | hnp.arrays(np.float32, 64, elements=st.floats(-65504, 65504, width=32))
)  # fmt: skip
def test_half_rounds_as_numpy_does(values: Array) -> None:
    from midstream_wire.codecs.half import _to_half

    assert _to_half(values.view(np.uint32)).tobytes() == values.astype(np.float16).tobytes()


def test_half_restores_every_float16(round_trip: RoundTrip) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float32)
    assert round_trip(codec("half"), every).tobytes() == every.tobytes()


@pytest.mark.parametrize("id", ["int8", "int8c", "ec:0.1", "ecc:1", "ctx:0.1"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(low=st.floats(-100, -1e-3), high=st.floats(1e-3, 100), seed=st.integers(0, 99))
def test_zero_stays_zero(
    id: str, dtype: str, low: float, high: float, seed: int, round_trip: RoundTrip
) -> None:
    array = np.random.default_rng(seed).uniform(low, high, (1, 2, 6, 6)).astype(dtype)
    array[..., ::2] = 0.0
    assert not round_trip(codec(id), array)[..., ::2].any()


def test_constants_survive_eight_bits_exactly(round_trip: RoundTrip) -> None:
    for value in (0.0, -0.1, 3e-39, 1e30):
        array = np.full((1, 4, 5, 5), value, np.float32)
        for id in ("int8", "int8c"):
            assert np.array_equal(round_trip(codec(id), array), array)


def test_scales_per_channel_are_finer_where_channels_differ(
    relu: Callable[..., Array],
) -> None:
    array = relu((1, 8, 16, 16)) * 10.0 ** np.arange(8, dtype=np.float32)[:, None, None]
    per_tensor = np.abs(_delivered("int8", array) - array).max(axis=(0, 2, 3))
    per_channel = np.abs(_delivered("int8c", array) - array).max(axis=(0, 2, 3))
    assert (per_channel[:4] < per_tensor[:4] / 100).all()


def test_a_channel_too_small_for_its_parameters_shares_those_of_the_tensor() -> None:
    array = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)
    assert len(encode_bytes(codec("int8c"), array)) == len(encode_bytes(codec("int8"), array))


def _delivered(id: str, array: Array) -> Array:
    decoder = Decoder(TensorSpec("x", array.dtype.name, array.shape), max_nbytes=array.nbytes)
    decoder.feed(encode_bytes(codec(id), array))
    return decoder.result()


AWKWARD = [
    pytest.param(np.arange(24, dtype=np.float32).reshape(4, 6).T, id="transposed"),
    pytest.param(np.arange(24, dtype=np.float32)[::-3], id="backwards"),
    pytest.param(np.arange(24, dtype=">f4").reshape(2, 3, 4), id="big-endian"),
    pytest.param(np.arange(24, dtype=">i8"), id="big-endian integers"),
    pytest.param(np.broadcast_to(np.float32(3), (2, 16, 5)), id="broadcast"),
    pytest.param(np.array(3.5, np.float32), id="scalar"),
    pytest.param(np.empty((0,), np.float32), id="empty"),
    pytest.param(np.empty((3, 0, 2), np.float64), id="empty in the middle"),
    pytest.param(np.array([True, False, True]), id="booleans"),
    pytest.param(np.arange(5).astype(ml_dtypes.bfloat16), id="bfloat16"),
    pytest.param(np.asfortranarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), id="F"),
]  # fmt: skip


@pytest.mark.parametrize("id", CODECS)
@pytest.mark.parametrize("array", AWKWARD)
def test_awkward_arrays_go_through_every_codec(
    id: str, array: Array, round_trip: RoundTrip
) -> None:
    before = array.tobytes()
    decoded = round_trip(codec(id), array)
    bound = codec(id).error_bound(array)
    assert decoded.shape == array.shape
    assert decoded.dtype == DTYPES[array.dtype.name]
    assert bound is None or error_of(array, decoded) <= bound
    assert array.tobytes() == before


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, "M8[s]")])
def test_dtypes_that_cannot_cross_are_refused_with_those_that_can(array: Array) -> None:
    with pytest.raises(TensorError, match=r"must be of one of the dtypes float16, .*convert"):
        encode_bytes(codec("raw"), array)
