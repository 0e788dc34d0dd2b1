"""ctx: planes in passes, codes rebuilt from two bytes, words read by pointer jumping."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midstream_wire.codecs import Decoder, codec, decode, encode, encode_bytes
from midstream_wire.codecs.bits import BitReader, gamma_words, write_bits
from midstream_wire.codecs.header import Header
from midstream_wire.codecs.interlace import (
    MAX_MAGNITUDE,
    _numbers_of,
    pack_planes,
    unpack_planes,
)
from midstream_wire.codecs.prefix import MAX_BITS, code_of
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array, TensorSpec

Forge = Callable[..., bytes]

# float32 [1, 1, 4, 4] under ctx:1 with a step of 1, theta and delta 0.
TINY = np.array([[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 9, 0], [0, 0, 0, 0]], np.int32)
PARAMS = struct.pack("<fBbB", 1.0, 0, 0, 0)


def smooth(shape: tuple[int, ...], *, relu: bool = True) -> Array:
    """Seeded planes in which neighbours resemble each other, as after a convolution."""
    noise = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    for axis in (2, 3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return np.maximum(noise, 0) if relu else noise


def planes_of(draw: st.DrawFn) -> Array:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)))
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    mean = draw(st.sampled_from([0.002, 0.1, 0.6, 3.0, 40.0, 9000.0]))
    return np.minimum(random.exponential(mean, shape), MAX_MAGNITUDE).astype(np.int32)


@given(st.composite(planes_of)())
@example(np.full((1, 4, 4), MAX_MAGNITUDE, np.int32))
@example(np.eye(700, dtype=np.int32)[None])
def test_planes_come_back(planes: Array) -> None:
    body = b"".join(pack_planes(planes, None))
    found, rest = unpack_planes(memoryview(body), planes.shape)
    assert np.array_equal(found, planes)
    assert not len(rest)


@pytest.mark.parametrize("mean", [0.001, 0.02, 0.3, 2.0, 20.0])
def test_large_planes_come_back(mean: float) -> None:
    planes = np.random.default_rng(1).exponential(mean, (30, 64, 65)).astype(np.int32)
    body = b"".join(pack_planes(planes, None))
    assert np.array_equal(unpack_planes(memoryview(body), planes.shape)[0], planes)


def test_signs_come_back() -> None:
    array = smooth((2, 3, 7, 9), relu=False)
    got = decode(
        encode_bytes(codec("ctx:0.2"), array),
        TensorSpec("x", "float32", array.shape),
        max_nbytes=array.nbytes,
    )
    assert ((got == 0) | (np.sign(got) == np.sign(array))).all()
    assert np.abs(got - array).max() <= 0.2 * array.std()


def test_neighbours_save_bytes_where_they_resemble_each_other() -> None:
    array = smooth((1, 32, 16, 16))
    for endpoint in ("0.5", "1", "2"):
        flat = len(encode_bytes(codec(f"ec:{endpoint}"), array))
        assert len(encode_bytes(codec(f"ctx:{endpoint}"), array)) < 0.9 * flat


def test_ctx_decodes_to_what_ec_decodes_to() -> None:
    array = smooth((2, 8, 12, 10))
    spec = TensorSpec("x", "float32", array.shape)
    got, flat = (
        decode(encode_bytes(codec(id), array), spec, max_nbytes=array.nbytes)
        for id in ("ctx:0.5", "ec:0.5")
    )
    assert np.abs(got - flat).max() <= 1e-5


@pytest.mark.parametrize(
    "shape", [(5,), (16, 16), (3, 16, 16), (1, 2, 3, 8), (1, 1, 4, 1 << 17)]
)
def test_what_has_no_planes_goes_as_ec(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    assert encode_bytes(codec("ctx:0.25"), array) == encode_bytes(codec("ec:0.25"), array)
    assert codec("ctx:0.25").error_bound(array) == codec("ec:0.25").error_bound(array)


def test_blocks_are_of_whole_planes() -> None:
    array = smooth((3, 100, 33, 35))
    pieces = [bytes(piece) for piece in encode(codec("ctx:0.5"), array)]
    assert len(pieces) == 2
    decoder = Decoder(TensorSpec("x", "float32", array.shape), max_nbytes=array.nbytes)
    for piece in pieces:
        decoder.feed(piece)
    bound = codec("ctx:0.5").error_bound(array)
    assert bound is not None
    assert np.abs(decoder.result() - array).max() <= bound


def test_a_peak_beyond_all_words_goes_losslessly() -> None:
    array = np.zeros((1, 128, 64, 64), np.float32)
    array[0, 0, 9, 9] = 1e3
    decoder = Decoder(TensorSpec("x", "float32", array.shape), max_nbytes=array.nbytes)
    decoder.feed(encode_bytes(codec("ctx:0.01"), array))
    assert decoder.codec_id == "lossless"
    assert codec("ctx:0.01").error_bound(array) == 0.0


@given(zero=st.integers(0, 255), shape=st.integers(0, 255))
def test_every_two_bytes_are_a_complete_prefix_code(zero: int, shape: int) -> None:
    code = code_of(zero, shape)
    assert 1 <= code.lengths.min() <= code.lengths.max() <= MAX_BITS
    assert sum(1 << MAX_BITS - int(length) for length in code.lengths) == 1 << MAX_BITS
    assert code.lookup.size == 1 << MAX_BITS


def test_codes_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for zero in range(0, 256, 15):
        for shape in range(0, 256, 7):
            digest.update(code_of(zero, shape).lookup.astype("<u2").tobytes())
    assert (
        digest.hexdigest()
        == "8b1b490e099195adf4cbba9613f55655fcc93f5d9848b75f172bda81fddc6bc8"
    )


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=300))
def test_gamma_codes_come_back(numbers: list[int]) -> None:
    data = write_bits(*gamma_words(np.array(numbers)))
    assert BitReader(memoryview(data)).gammas(len(numbers)).tolist() == numbers


@given(zero=st.integers(0, 255), gaps=st.lists(st.integers(0, 600), max_size=50))
def test_runs_come_back(zero: int, gaps: list[int]) -> None:
    code = code_of(zero, 192)
    planes = np.zeros(sum(gaps) + len(gaps) + 5, np.int32)
    places = np.cumsum(np.array(gaps, int) + 1) - 1
    planes[places] = 1
    numbers = _numbers_of(planes, code)
    data = write_bits([code.words[numbers]], [code.lengths[numbers]])
    assert BitReader(memoryview(data)).runs(code, planes.size).tolist() == places.tolist()


BODY = "01 00 00 ba 77 ba b0 5a 8d 30"


def test_a_tiny_tensor_is_these_bytes(forge: Forge) -> None:
    assert b"".join(pack_planes(TINY[None], None)).hex(" ") == BODY
    header = Header(11, 0, False, "float32", (1, 1, 4, 4), PARAMS)
    payload = forge(header, (bytes.fromhex(BODY), 64))
    got = decode(payload, TensorSpec("x", "float32", (1, 1, 4, 4)), max_nbytes=64)
    assert np.array_equal(got[0, 0], TINY)


def refusal(forge: Forge, body: bytes, *, signed: int = 0, side: int = 4) -> str:
    params = struct.pack("<fBbB", 1.0, 0, 0, signed)
    header = Header(11, 0, False, "float32", (1, 1, side, side), params)
    nbytes = 4 * side**2
    spec = TensorSpec("x", "float32", (1, 1, side, side))
    with pytest.raises(CodecError) as caught:
        decode(forge(header, (body, nbytes)), spec, max_nbytes=nbytes)
    return str(caught.value)


RUNS = bytes((255, 192))  # long runs: RUN itself is the shortest word
ONES = bytes((0, 192))  # short runs


@pytest.mark.parametrize(
    ("body", "signed", "sentence"),
    [
        (b"\0\0", 0, "0 signs must be 0 bytes"),
        (b"\x02\0\0", 0, "must begin with 0, or with 1 and edges"),
        (b"\x01\0", 0, "must begin with 0, or with 1 and edges"),
        (b"\x01\0\x08" + bytes(40), 0, "must have 11 edges"),
        (b"\x01\0\0" + bytes(3), 0, "must tell 7 bytes of codes"),
        (b"\x01\xff\x07" + bytes(25), 0, "must tell 29 bytes of codes"),
        (b"\x01\0\0" + bytes(4), 0, "codewords must be complete"),
        (bytes.fromhex(BODY)[:-1], 0, "codewords must be complete"),
        (bytes.fromhex(BODY) + b"\0", 0, "0 signs must be 0 bytes behind"),
        (bytes.fromhex(BODY), 1, "4 signs must be 1 bytes behind"),
        (bytes.fromhex(BODY) + b"\0\0", 1, "4 signs must be 1 bytes behind"),
        (b"\x01\0\0" + ONES * 2 + bytes(40), 0, "at most 15 zeros"),
        (b"\x01\0\0" + RUNS * 2 + b"\xff" * 40, 0, "a run must end within its class of 4"),
    ],
)
def test_bodies_that_lie_are_refused(
    body: bytes, signed: int, sentence: str, forge: Forge
) -> None:
    assert sentence in refusal(forge, body, signed=signed)


@given(
    front=st.binary(min_size=4, max_size=12),
    body=st.binary(max_size=400),
    sides=st.tuples(st.integers(4, 40), st.integers(4, 40)),
)
def test_any_body_decodes_or_is_refused(
    front: bytes, body: bytes, sides: tuple[int, int], forge: Forge
) -> None:
    shape = (1, 1, *sides)
    header = Header(11, 0, False, "float32", shape, struct.pack("<fBbB", 2.0**90, 51, -128, 1))
    payload = forge(header, (b"\x01\x05\0" + front + body, 4 * sides[0] * sides[1]))
    try:
        got = decode(payload, TensorSpec("x", "float32", shape), max_nbytes=1 << 20)
    except CodecError:
        return
    assert np.isfinite(got).all()


def test_the_worst_block_takes_little_time_and_memory() -> None:
    random = np.random.default_rng(4)
    shapes = bytes(random.integers(0, 256, 26, np.uint8).tolist())
    body = b"\x01\xff\x07" + shapes + random.bytes(2 << 20)
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with contextlib.suppress(CodecError):
            unpack_planes(memoryview(body), (256, 32, 32))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        assert time.perf_counter() - begin < 10
    finally:
        tracemalloc.stop()
