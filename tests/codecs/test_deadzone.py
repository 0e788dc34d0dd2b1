"""ec and ecc: their bytes, their bound, what they do with outliers, and what they refuse."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.codecs import (
    BLOCK_NBYTES,
    Codec,
    Decoder,
    codec,
    decode,
    encode,
    encode_bytes,
)
from midstream_wire.codecs.grid import _FINER
from midstream_wire.codecs.header import FRAME_NBYTES, Header, header_nbytes
from midstream_wire.codecs.static import EDGES, TABLES
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array, TensorSpec

Forge = Callable[..., bytes]
RoundTrip = Callable[[Codec, Array], Array]
Relu = Callable[[Sequence[int]], Array]

EC, ECC = 9, 10
TABLES_NBYTES, TABLES_DIGEST = 2826, "cee37d664251298b"


def sent(array: Array) -> TensorSpec:
    return TensorSpec("x", array.dtype.name, array.shape)


def pulses() -> Array:
    array = np.zeros(32, "<f4")
    array[[3, 30]] = 4, -4
    return array


def first_body(payload: bytes, ndim: int) -> bytes:
    front = header_nbytes(payload[: 12 + 8 * ndim])
    return payload[front + FRAME_NBYTES :]


# Per line: the fixed part; dims; parameters; the header's checksum; a frame; a body.
UNSIGNED = """
    8d 4d 01 09 00 00 02 01
    08 00 00 00 00 00 00 00
    07 00 00 00 00 00 80 3f 00 00 00
    25 e2 af 21 ca 13 d8 50
    03 00 00 00 20 00 00 00 e5 d8 7c 8a 89 36 ba db
    01 44 44
"""
ESCAPES = """
    8d 4d 01 09 00 00 02 01
    20 00 00 00 00 00 00 00
    07 00 00 00 00 00 80 3f 00 00 01
    85 2a 7d 2f 61 16 b9 a4
    0e 00 00 00 80 00 00 00 45 fd d0 d2 ae ee 8c 9c
    21 08 00 00 d5 55 55 55 55 55 55 75 04 05
"""
CHANNELS = """
    8d 4d 01 0a 00 00 03 03
    01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00
    09 00 00 00 00 00 00 41 00 00 00 18 00
    7b 5e 87 3f a4 93 ab e3
    05 00 00 00 80 00 00 00 7b f1 b7 08 75 08 08 3a
    01 44 44 44 44
"""
LITERAL = [
    pytest.param("ec:2", np.array([0, 1] * 4, "<f4"), UNSIGNED, id="unsigned"),
    pytest.param("ec:1", pulses(), ESCAPES, id="escapes"),
    pytest.param(
        "ecc:2", np.array([[[0, 1] * 4, [0, 8] * 4]], "<f8"), CHANNELS, id="channels"
    ),
]


@pytest.mark.parametrize(("id", "array", "text"), LITERAL)
def test_these_arrays_are_these_bytes(id: str, array: Array, text: str) -> None:
    payload = bytes.fromhex(text)
    assert encode_bytes(codec(id), array).hex(" ") == payload.hex(" ")
    decoded = decode(payload, sent(array), max_nbytes=array.nbytes)
    assert decoded.dtype == array.dtype
    assert decoded.tobytes() == array.tobytes()


def test_static_tables_and_steps_are_these_for_ever() -> None:
    assert sorted(EDGES) == sorted(TABLES) == [(1, False), (1, True), (2, False), (2, True)]
    tables = b"".join(table for key in sorted(TABLES) for table in TABLES[key])
    assert len(tables) == TABLES_NBYTES
    assert xxhash.xxh3_64_hexdigest(tables) == TABLES_DIGEST
    assert np.array_equal(_FINER, np.exp2(-np.arange(256) / 8).astype(np.float32))


def activations(random: np.random.Generator) -> Array:
    """An array of some shape, sparsity, sign, scale and offset, with or without outliers."""
    shape = tuple(random.integers(1, 24, size=random.integers(1, 5)))
    noise = random.laplace(size=shape) if random.random() < 0.5 else random.normal(size=shape)
    if random.random() < 0.5:
        noise = np.maximum(noise + random.uniform(-1.5, 1), 0)
    if random.random() < 0.3:
        noise = noise + random.uniform(-30, 30)
    if random.random() < 0.4:
        outliers = random.random(shape) < 0.01
        noise = np.where(outliers, noise * 10.0 ** random.uniform(1, 6), noise)
    scaled = noise * 10.0 ** random.uniform(-12, 12)
    return np.asarray(scaled, np.float32 if random.random() < 0.7 else np.float64)


@pytest.mark.parametrize("seed", range(8))
def test_no_element_is_further_off_than_is_promised(seed: int, round_trip: RoundTrip) -> None:
    random = np.random.default_rng(seed)
    for _ in range(60):
        array = activations(random)
        family = "ecc" if random.random() < 0.5 else "ec"
        chosen = codec(f"{family}:{2 ** random.uniform(-6, 4):.4f}")
        bound = chosen.error_bound(array)
        assert bound is not None
        decoded = round_trip(chosen, array)
        error = np.abs(decoded.astype(np.float64) - array.astype(np.float64)).max()
        assert error <= bound
        assert not decoded[array == 0].any()
        assert not np.signbit(decoded[array == 0]).any() or bound == 0.0


@pytest.mark.parametrize("endpoint", ["0.125", "0.5", "1", "2"])
def test_the_promise_is_about_a_step_where_nothing_is_far_from_the_rest(
    endpoint: str, relu: Relu
) -> None:
    array = relu((1, 16, 20, 20))
    bound = codec(f"ec:{endpoint}").error_bound(array)
    assert bound is not None
    assert bound <= 0.71 * float(endpoint) * array.std()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("id", "outlier", "width"), [("ec:0.5", 30.0, 1), ("ec:0.05", 1e4, 2), ("ec:0.01", 1e4, 3)]
)
def test_outliers_are_as_near_as_the_rest(
    sign: int, id: str, outlier: float, width: int, round_trip: RoundTrip
) -> None:
    array = np.random.default_rng(1).normal(size=1 << 20).astype(np.float32)
    array = array if sign < 0 else np.abs(array)
    array[777] = sign * outlier
    chosen = codec(id)
    body = first_body(encode_bytes(chosen, array), 1)
    assert body[0] >> 5 & 3 == width
    bound = chosen.error_bound(array)
    assert bound is not None
    assert abs(float(round_trip(chosen, array)[777]) - array[777]) <= bound


def test_numbers_are_packed_as_narrow_as_they_allow(relu: Relu) -> None:
    array = relu((1, 64, 30, 30))
    packings = {
        endpoint: first_body(encode_bytes(codec(f"ec:{endpoint}"), array), 4)[0] & 3
        for endpoint in ("0.02", "0.25", "1")
    }
    assert packings == {"0.02": 3, "0.25": 2, "1": 1}


@pytest.mark.parametrize("family", ["ec", "ecc"])
def test_coarser_steps_make_shorter_payloads(family: str, relu: Relu) -> None:
    array = relu((1, 32, 24, 24))
    dials = ("0.05", "0.125", "0.25", "0.5", "1", "2", "4")
    sizes = [len(encode_bytes(codec(f"{family}:{endpoint}"), array)) for endpoint in dials]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < 2.4 * array.size / 8


def test_a_small_tensor_brings_no_table_of_its_own(relu: Relu) -> None:
    array = relu((1, 16, 8, 8))
    body = first_body(encode_bytes(codec("ec:0.5"), array), 4)
    assert body[0] >> 2 & 7 >= 2
    # Within a fifth of the entropy of the numbers, which a table of 40 bytes would exceed.
    numbers = np.floor(array / (0.5 * array.std()) + 0.3)
    shares = np.unique(numbers, return_counts=True)[1] / array.size
    assert 8 * len(body) <= 1.2 * -(shares @ np.log2(shares)) * array.size


def test_channels_have_steps_of_their_own(relu: Relu, round_trip: RoundTrip) -> None:
    array = relu((2, 8, 16, 16)) * 10.0 ** -np.arange(8, dtype=np.float32)[:, None, None]
    error = np.abs(round_trip(codec("ecc:0.25"), array) - array).max(axis=(0, 2, 3))
    assert (error <= 0.19 * array.std(axis=(0, 2, 3))).all()


def test_a_channel_of_zeros_and_one_of_ones_among_others(
    relu: Relu, round_trip: RoundTrip
) -> None:
    array = relu((1, 4, 9, 9))
    array[:, 1], array[:, 2] = 0, 1
    decoded = round_trip(codec("ecc:0.5"), array)
    assert not decoded[:, 1].any()
    assert np.abs(decoded[:, 2] - 1).max() < 1e-5


@pytest.mark.parametrize("shape", [(3, 5, 300, 301), (1, 700_000), (2, 40_000, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("id", ["ec:0.3", "ecc:0.3"])
def test_blocks_end_wherever_they_do(
    id: str, dtype: str, shape: tuple[int, ...], relu: Relu, round_trip: RoundTrip
) -> None:
    array = relu(shape).astype(dtype)
    bound = codec(id).error_bound(array)
    assert bound is not None
    assert np.abs(round_trip(codec(id), array) - array).max() <= bound


@pytest.mark.parametrize("id", ["ec:1", "ecc:1", "ec@90KB"])
def test_a_block_is_encoded_when_it_is_asked_for(id: str, relu: Relu) -> None:
    array = relu((1, 4, 2 * BLOCK_NBYTES // 16))
    array[..., -1] = 0.0
    pieces = encode(codec(id), array)
    first = next(pieces)
    array[..., -1] = 3.0
    decoder = Decoder(sent(array), max_nbytes=array.nbytes)
    for piece in (first, *pieces):
        decoder.feed(piece)
    in_the_first_block, in_the_second = decoder.result()[0, [1, 3], -1]
    assert in_the_first_block == 0.0
    assert abs(in_the_second - 3.0) < 1.0


def test_a_block_of_zeros_is_one_byte() -> None:
    array = np.zeros(BLOCK_NBYTES // 2, np.float32)
    array[5] = 1.0
    pieces = list(encode(codec("ec"), array))
    assert len(pieces[1]) == FRAME_NBYTES + 1
    assert bytes(pieces[1])[-1] == 0


@pytest.mark.parametrize("id", ["ec", "ecc", "ec@1KB"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, -0.1, 1e30, 1e-42])
def test_what_does_not_vary_goes_losslessly(
    id: str, dtype: str, value: float, relu: Relu
) -> None:
    for shape in ((), (1,), (2, 9, 5)):
        array = np.full(shape, value, dtype)
        decoder = Decoder(sent(array), max_nbytes=array.nbytes)
        decoder.feed(encode_bytes(codec(id), array))
        assert decoder.codec_id == "lossless"
        assert decoder.result().tobytes() == array.tobytes()


def test_a_payload_is_named_by_its_family_as_the_step_is_what_it_has(relu: Relu) -> None:
    array = relu((4, 40))
    for id, name in (("ec:0.3", "ec"), ("ecc:2", "ecc"), ("ec@1KB", "ec")):
        decoder = Decoder(sent(array), max_nbytes=array.nbytes)
        decoder.feed(encode_bytes(codec(id), array))
        assert decoder.codec_id == name


@pytest.mark.parametrize("shape", [(1, 64, 8, 8), (1, 64, 56, 56), (1, 32, 100, 128)])
@pytest.mark.parametrize("sparse", [True, False])
def test_a_payload_has_the_size_that_was_asked_for(
    shape: tuple[int, ...], sparse: bool, relu: Relu
) -> None:
    array = relu(shape) if sparse else np.random.default_rng(5).normal(size=shape)
    array = array.astype(np.float32)
    for bits in (0.5, 1.0, 2.0, 4.0):
        asked = round(bits * array.size / 8)
        made = len(encode_bytes(codec(f"ec@{asked}"), array))
        assert made <= asked
        assert made >= 0.85 * asked or asked < 400


def test_a_size_that_cannot_be_met_gets_the_coarsest_step(relu: Relu) -> None:
    array = relu((1, 64, 20, 20))
    least = encode_bytes(codec("ec:16"), array)
    assert encode_bytes(codec("ec@10B"), array) == least
    assert len(encode_bytes(codec("ec@10MB"), array)) == len(
        encode_bytes(codec("ec:0.01"), array)
    )


def params(step: float, theta: int = 51, delta: int = 0, signed: int = 0) -> bytes:
    return struct.pack("<fBbB", step, theta, delta, signed)


@pytest.mark.parametrize(
    "step", [np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0, 1e-20, 1e-42, 3e38]
)
@pytest.mark.parametrize("code", [EC, ECC])
def test_steps_that_are_none_are_refused(code: int, step: float, forge: Forge) -> None:
    header = Header(code, 0, False, "float32", (8,), params(step))
    with pytest.raises(CodecError, match=r"a step from 2\*\*-60 to 2\*\*90"):
        decode(forge(header, (b"\1\0\0", 32)), TensorSpec("x", "float32", (8,)), max_nbytes=32)


@pytest.mark.parametrize(
    ("code", "shape", "bytes_of", "sentence"),
    [
        (EC, (8,), b"", r"7 bytes of parameters .* 0 channels \(not 0\)"),
        (EC, (8,), params(1.0)[:-1], r"not 6"),
        (EC, (8,), params(1.0) + b"\0", r"not 8"),
        (ECC, (1, 4, 16), params(1.0), r"each of 4 channels \(not 7\)"),
        (ECC, (1, 4, 16), params(1.0) + bytes(5), r"each of 4 channels \(not 12\)"),
        (ECC, (1, 4, 4), params(1.0) + bytes(4), r"each of 0 channels \(not 11\)"),
        (EC, (8,), params(1.0, theta=129), "a theta of at most 128"),
        (EC, (8,), params(1.0, signed=2), "a sign of 0 or 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    code: int, shape: tuple[int, ...], bytes_of: bytes, sentence: str, forge: Forge
) -> None:
    header = Header(code, 0, False, "float32", shape, bytes_of)
    with pytest.raises(CodecError, match=sentence):
        decode(forge(header), TensorSpec("x", "float32", shape), max_nbytes=1000)


def test_no_integers_no_quality_no_fallback(forge: Forge) -> None:
    for header, sentence in (
        (Header(EC, 0, False, "int32", (8,), params(1.0)), "must not be used for int32"),
        (
            Header(EC, 50, False, "float32", (8,), params(1.0)),
            "ec must not be used with",
        ),
        (Header(EC, 0, True, "float32", (8,), params(1.0)), "only lossless must take"),
    ):
        with pytest.raises(CodecError, match=sentence):
            decode(forge(header), TensorSpec("x", header.dtype, (8,)), max_nbytes=1000)


def bare(data: bytes) -> bytes:
    """A zstd frame of up to 255 bytes without its header."""
    frame = zstandard.ZstdCompressor(level=1).compress(data)
    assert frame[4] == 0x20
    return frame[6:]


PLAIN, MAPPED = 1, 1 | 1 << 2  # 2 bits: stored, zstd
ESCAPED = PLAIN | 1 << 5  # with escapes of a byte


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\0\0", "a block of zeros must be a single 0"),
        (b"\x04", "a block of zeros must be a single 0"),
        (bytes((PLAIN | 6 << 2,)) + bytes(50), "of a known kind"),
        (bytes((3 | 2 << 2,)) + bytes(50), "of a known kind"),
        (bytes((PLAIN,)), "packed symbols must be 50 bytes .not 0."),
        (bytes((PLAIN,)) + bytes(49), "packed symbols must be 50 bytes .not 49."),
        (bytes((PLAIN,)) + bytes(51), "packed symbols must be 50 bytes .not 51."),
        (bytes((PLAIN | 0x80,)) + bytes(50), "of a known kind"),
        (bytes((MAPPED,)) + b"junk", "one whole zstd frame"),
        (bytes((MAPPED,)) + bare(bytes(50))[:-1], "one whole zstd frame"),
        (bytes((MAPPED,)) + bare(bytes(50)) + b"\0", "one whole zstd frame"),
        (bytes((MAPPED,)) + bare(bytes(49)), "one whole zstd frame"),
        (bytes((MAPPED,)) + bare(bytes(51)), "one whole zstd frame"),
        (bytes((PLAIN | 2 << 2,)) + b"junk", "one whole zstd frame"),
        (bytes((ESCAPED,)), "of symbols must fit|packed symbols must be"),
        (bytes((ESCAPED,)) + b"\x33\0\0" + bytes(50), "51 bytes of symbols must fit into 54"),
        (bytes((ESCAPED,)) + b"\xff\xff\xff" + bytes(50), "of symbols must fit"),
        (bytes((ESCAPED,)) + b"\x32\0\0" + bytes(50), "only if it has escapes"),
        (bytes((ESCAPED,)) + b"\x32\0\0" + bytes(50) + b"\1", "only if it has escapes"),
        (bytes((ESCAPED,)) + b"\x32\0\0\3" + bytes(49), "1 escapes must be 1 bytes .not 0."),
        (bytes((ESCAPED,)) + b"\x32\0\0\3" + bytes(49) + b"\1\1", "1 escapes must be 1 bytes"),
        (bytes((ESCAPED | 0x80,)) + b"\x32\0\0\3" + bytes(49) + b"\1", "one whole zstd frame"),
    ],
)
def test_bodies_that_lie_are_refused(body: bytes, sentence: str, forge: Forge) -> None:
    header = Header(EC, 0, False, "float32", (200,), params(1.0))
    with pytest.raises(CodecError, match=sentence):
        decode(forge(header, (body, 800)), TensorSpec("x", "float32", (200,)), max_nbytes=800)


def test_a_frame_that_would_become_large_does_not(forge: Forge) -> None:
    huge = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 26))
    header = Header(EC, 0, False, "float32", (200,), params(1.0))
    for kind in (1 | 1 << 2, 2 | 1 << 2, 3 | 1 << 2, 1 | 3 << 2):
        for start in (5, 6, 9):
            payload = forge(header, (bytes((kind,)) + huge[start:][:1200], 800))
            tracemalloc.start()
            try:
                with pytest.raises(CodecError, match="one whole zstd frame"):
                    decode(payload, TensorSpec("x", "float32", (200,)), max_nbytes=800)
                assert tracemalloc.get_traced_memory()[1] < 200_000
            finally:
                tracemalloc.stop()


@given(
    kind=st.integers(0, 255),
    rest=st.binary(max_size=60),
    dtype=st.sampled_from(["float32", "float64"]),
    code=st.sampled_from([EC, ECC]),
    signed=st.integers(0, 1),
    step=st.sampled_from([2.0**-60, 1.0, 2.0**90]),
)
def test_any_body_with_the_right_checksum_decodes_to_finite_numbers_or_is_refused(
    kind: int, rest: bytes, dtype: str, code: int, signed: int, step: float, forge: Forge
) -> None:
    finer = b"\x08\xff" if code == ECC else b""
    header = Header(code, 0, False, dtype, (1, 2, 10), params(step, 0, -128, signed) + finer)
    nbytes = 20 * np.dtype(dtype).itemsize
    spec = TensorSpec("x", dtype, (1, 2, 10))
    try:
        got = decode(forge(header, (bytes((kind,)) + rest, nbytes)), spec, max_nbytes=nbytes)
    except CodecError:
        return
    assert np.isfinite(got).all()


@pytest.mark.parametrize("id", ["ec:1", "ec:0.1", "ecc:0.5"])
def test_changed_bodies_decode_to_their_size_or_are_refused(
    id: str, relu: Relu, forge: Forge
) -> None:
    array = relu((1, 8, 12, 12)) - (0.5 if id == "ec:0.1" else 0)
    payload = encode_bytes(codec(id), array)
    body = first_body(payload, 4)
    front = payload[: len(payload) - len(body) - FRAME_NBYTES]
    count = struct.unpack_from("<I", front, 40)[0]
    header = Header(codec(id).code, 0, False, "float32", array.shape, front[44 : 44 + count])
    random = np.random.default_rng(3)
    for _ in range(1500):
        changed = bytearray(body)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(len(changed))] ^= 1 << int(random.integers(8))
        if random.random() < 0.2:
            del changed[random.integers(1, len(changed)) :]
        try:
            forged = forge(header, (bytes(changed), array.nbytes))
            got = decode(forged, sent(array), max_nbytes=array.nbytes)
        except CodecError:
            continue
        assert np.isfinite(got).all()
