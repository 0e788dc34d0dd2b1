"""Encoding and decoding piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.codecs import (
    BLOCK_NBYTES,
    CODECS,
    JOIN_NBYTES,
    Decoder,
    codec,
    decode,
    decode_small,
    encode,
    encode_bytes,
    encode_small,
)
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

Relu = Callable[[Sequence[int]], Array]
TENSOR_CODECS = (
    "raw",
    "lossless",
    "half",
    "int8",
    "int8c",
    "ec:1",
    "ecc:0.25",
    "ec@10KB",
    "ctx:0.3",
)


def sent(array: Array) -> TensorSpec:
    return TensorSpec("x", array.dtype.name, array.shape)


@pytest.mark.parametrize("id", TENSOR_CODECS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_any_division_into_pieces_gives_the_same_array(
    id: str, cuts: list[int], relu: Relu
) -> None:
    array = relu((1, 16, 12, 12))
    payload = encode_bytes(codec(id), array)
    whole = decode(payload, sent(array), max_nbytes=array.nbytes)
    decoder = Decoder(sent(array), max_nbytes=array.nbytes)
    edges = [0, *sorted(cut % len(payload) for cut in cuts), len(payload)]
    for start, end in zip(edges, edges[1:], strict=False):
        assert not decoder.done
        decoder.feed(memoryview(payload)[start:end])
    assert decoder.done
    assert decoder.result().tobytes() == whole.tobytes()


@pytest.mark.parametrize("id", CODECS)
def test_one_byte_at_a_time_is_enough(id: str, picture: Callable[[int, int], Array]) -> None:
    array = picture(20, 30)
    payload = encode_bytes(codec(id), array)
    decoder = Decoder(sent(array), max_nbytes=array.nbytes)
    for position in range(len(payload)):
        assert not decoder.done
        decoder.feed(payload[position : position + 1])
    assert decoder.done
    whole = decode(payload, sent(array), max_nbytes=array.nbytes)
    assert np.array_equal(decoder.result(), whole)


@pytest.mark.parametrize("id", TENSOR_CODECS)
def test_a_small_tensor_is_one_piece(id: str, relu: Relu) -> None:
    for shape in ((), (0, 4), (1, 7), (1, 64, 16, 16)):
        array = relu(shape)
        assert array.nbytes <= JOIN_NBYTES
        assert len(list(encode(codec(id), array))) == 1


@pytest.mark.parametrize("id", TENSOR_CODECS)
@pytest.mark.parametrize(("extra", "blocks"), [(-1, 2), (0, 2), (1, 3)])
def test_blocks_cover_a_mebibyte_each(id: str, extra: int, blocks: int, relu: Relu) -> None:
    array = relu((2 * BLOCK_NBYTES // 4 + extra,))
    # Two blocks of raw are too large to be copied behind their frames.
    apart = 2 if id == "raw" else 0
    assert len(list(encode(codec(id), array))) == blocks + apart
    delivered = decode(encode_bytes(codec(id), array), sent(array), max_nbytes=array.nbytes)
    bound = codec(id).error_bound(array)
    assert bound is not None
    assert np.abs(delivered - array).max() <= bound


def test_raw_pieces_alias_the_array() -> None:
    array = np.arange(BLOCK_NBYTES // 2, dtype=np.float32)
    bodies = [piece for piece in encode(codec("raw"), array) if isinstance(piece, memoryview)]
    assert [body.nbytes for body in bodies] == [BLOCK_NBYTES] * 2
    assert all(np.shares_memory(np.frombuffer(body, np.uint8), array) for body in bodies)


@pytest.mark.parametrize("id", ["lossless", "half", "int8", "int8c"])
def test_a_block_is_encoded_when_it_is_asked_for(id: str, relu: Relu) -> None:
    array = relu((1, 4, 2 * BLOCK_NBYTES // 16))
    array[..., -1] = 0.0
    pieces = encode(codec(id), array)
    first = next(pieces)
    array[..., -1] = 1.0
    decoder = Decoder(sent(array), max_nbytes=array.nbytes)
    for piece in (first, *pieces):
        decoder.feed(piece)
    in_the_first_block, in_the_second = decoder.result()[0, [1, 3], -1]
    assert in_the_first_block == 0.0
    assert abs(in_the_second - 1.0) < 0.02


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 1000, 300),  # a channel is longer than a block
        (2, 3, 700, 100),  # blocks end within rows
        (1, 5, 512, 512),  # blocks end with rows
        (3, 40_000, 4),  # several rows per element of the last axis
    ],
)
def test_channels_find_their_parameters_wherever_blocks_end(
    shape: tuple[int, ...], relu: Relu
) -> None:
    scales = 10.0 ** (np.arange(shape[1]) % 5).astype(np.float32)
    array = relu(shape) * scales.reshape(1, -1, *[1] * (len(shape) - 2))
    delivered = decode(
        encode_bytes(codec("int8c"), array), sent(array), max_nbytes=array.nbytes
    )
    per_channel = (
        np.moveaxis(np.abs(delivered - array), 1, 0).reshape(shape[1], -1).max(axis=1)
    )
    tops = np.moveaxis(array, 1, 0).reshape(shape[1], -1).max(axis=1)
    if array.size // shape[1] >= 16:
        assert (per_channel <= tops * 0.51 / 254).all()
    bound = codec("int8c").error_bound(array)
    assert bound is not None
    assert per_channel.max() <= bound


def test_incompressible_planes_stay_as_they_are() -> None:
    noise = np.random.default_rng(1).integers(0, 2**32, 1 << 18, dtype=np.uint32)
    payload = encode_bytes(codec("lossless"), noise)
    assert len(payload) == noise.nbytes + 12 + 8 + 8 + 16 + 4 * 5


def test_what_a_decoder_has_to_say_before_and_after(relu: Relu) -> None:
    array = relu((3, 3))
    decoder = Decoder(sent(array), max_nbytes=array.nbytes)
    assert (decoder.codec_id, decoder.done, decoder.fallback) == ("", False, False)
    with pytest.raises(CodecError, match="must be complete"):
        decoder.result()
    decoder.feed(encode_bytes(codec("half"), array))
    assert (decoder.codec_id, decoder.done, decoder.fallback) == ("half", True, False)


def test_a_symbolic_dimension_takes_what_comes(relu: Relu) -> None:
    spec = TensorSpec("x", "float32", ("batch", 3))
    for batch in (0, 1, 5):
        array = relu((batch, 3))
        payload = encode_bytes(codec("raw"), array)
        assert decode(payload, spec, max_nbytes=60).shape == (batch, 3)


def test_many_threads_encode_and_decode_at_once(relu: Relu) -> None:
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        array = np.roll(relu((1, 16, 40, 40)), seed)
        start.wait(timeout=30)
        for id in ("lossless", "half", "int8", "int8c", "ec", "ecc:0.1", "ec@9KB") * 3:
            payload = encode_bytes(codec(id), array)
            delivered = decode(payload, sent(array), max_nbytes=array.nbytes)
            bound = codec(id).error_bound(array)
            if bound is None or np.abs(delivered - array).max() > bound:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_payloads_encoded_in_turns_on_one_thread_do_not_mix(relu: Relu) -> None:
    arrays = [np.roll(relu((1, 8, 300, 300)), seed) for seed in range(3)]
    streams = [encode(codec("int8"), array) for array in arrays]
    decoders = [Decoder(sent(array), max_nbytes=array.nbytes) for array in arrays]
    while not all(decoder.done for decoder in decoders):
        for stream, decoder in zip(streams, decoders, strict=True):
            decoder.feed(next(stream))
    for array, decoder in zip(arrays, decoders, strict=True):
        assert np.abs(decoder.result() - array).max() < 0.02


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_borrowed_raw_arrays_are_views_of_what_was_fed_at_any_alignment(offset: int) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    payload = encode_bytes(codec("raw"), array)
    fed = np.frombuffer(bytes(offset) + payload, np.uint8)[offset:]
    decoder = Decoder(sent(array), max_nbytes=array.nbytes, borrow=True)
    decoder.feed(fed.data)
    result = decoder.result()
    np.testing.assert_array_equal(result, array)
    assert np.shares_memory(result, fed)
    assert not result.flags.writeable


@pytest.mark.parametrize("id", TENSOR_CODECS)
def test_borrowing_changes_no_value(id: str) -> None:
    array = np.random.default_rng(0).random((3, BLOCK_NBYTES // 8), np.float32)  # 2 blocks
    for sample in (array, array[:, :100].copy(), array[:, :0].copy()):
        payload = encode_bytes(codec(id), sample)
        decoder = Decoder(sent(sample), max_nbytes=sample.nbytes, borrow=True)
        for start in range(0, len(payload), 100_000):
            decoder.feed(payload[start : start + 100_000])
        np.testing.assert_array_equal(
            decoder.result(), decode(payload, sent(sample), max_nbytes=sample.nbytes)
        )


def test_borrowed_booleans_are_checked() -> None:
    array = np.array([2, 0], np.uint8)
    payload = encode_bytes(codec("raw"), array.view(bool))
    decoder = Decoder(sent(array.view(bool)), max_nbytes=2, borrow=True)
    with pytest.raises(CodecError, match="booleans"):
        decoder.feed(payload)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_short_way_of_small_arrays_is_raw(dtype: str) -> None:
    for shape in ((), (3,), (1, 64, 1, 1), (0, 2), (2,) * 12):
        array = np.ones(shape, DTYPES[dtype])
        payload = encode_small(array)
        assert payload == encode_bytes(codec("raw"), array)
        decoded = decode_small(payload, sent(array), max_nbytes=array.nbytes)
        if dtype == "bool" or not array.size:
            assert decoded is None  # left to a Decoder
            continue
        assert decoded is not None
        np.testing.assert_array_equal(decoded, array)
        assert decoded.flags.writeable
        assert decode_small(payload, sent(array), max_nbytes=array.nbytes - 1) is None
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert encode_small(strided) == encode_bytes(codec("raw"), strided)


def test_the_short_way_takes_nothing_else() -> None:
    array = np.arange(5, dtype=np.float32)
    payload = encode_small(array)
    spec = sent(array)
    for at in range(len(payload)):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[at] ^= 1 << bit
            assert decode_small(bytes(damaged), spec, max_nbytes=1000) is None
        assert decode_small(payload[:at], spec, max_nbytes=1000) is None
    assert decode_small(payload + b"x", spec, max_nbytes=1000) is None
    assert decode_small(encode_bytes(codec("half"), array), spec, max_nbytes=1000) is None
    assert decode_small(payload, sent(array[:4]), max_nbytes=1000) is None


@pytest.mark.parametrize("id", TENSOR_CODECS)
def test_deferred_blocks_are_decoded_when_asked_for_and_alike(id: str) -> None:
    array = np.random.default_rng(0).random((3, BLOCK_NBYTES // 8), np.float32)  # 2 blocks
    payload = encode_bytes(codec(id), array)
    decoder = Decoder(sent(array), max_nbytes=array.nbytes, borrow=True, defer=True)
    for start in range(0, len(payload), 100_000):
        decoder.feed(payload[start : start + 100_000])
        if start == 500_000:
            decoder.advance()  # what is there, while the rest is under way
    assert decoder.done
    assert decoder.nbytes == array.nbytes
    np.testing.assert_array_equal(
        decoder.result(), decode(payload, sent(array), max_nbytes=array.nbytes)
    )


def test_a_deferred_block_that_is_damaged_is_refused_when_it_is_decoded() -> None:
    array = np.ones(1000, np.float32)
    payload = bytearray(encode_bytes(codec("lossless"), array))
    payload[-1] ^= 1
    decoder = Decoder(sent(array), max_nbytes=array.nbytes, defer=True)
    decoder.feed(bytes(payload))
    assert decoder.done
    for _ in range(2):
        with pytest.raises(CodecError, match="damaged"):
            decoder.result()


def test_a_deferred_block_keeps_no_message_alive_that_it_is_little_of() -> None:
    array = np.ones(1000, np.float32)
    message = np.zeros(100_000, np.uint8)
    payload = np.frombuffer(encode_bytes(codec("raw"), array), np.uint8)
    message[: payload.size] = payload
    decoder = Decoder(sent(array), max_nbytes=array.nbytes, borrow=True, defer=True)
    decoder.feed(message.data[: payload.size])
    assert not np.shares_memory(decoder.result(), message)
