"""Tensors survive being split into frames, whatever their sizes; wrong frames are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream_wire.codecs import codec, encode, encode_bytes
from midstream_wire.codecs.header import Header
from midstream_wire.errors import CodecError, MidstreamError, ProtocolError
from midstream_wire.frames import More, Piece, Reply, Request, ServerTimings
from midstream_wire.limits import (
    MAX_MESSAGE_NBYTES,
    MAX_PIECE_NBYTES,
    MESSAGE_NBYTES,
    MIB,
)
from midstream_wire.messages import write_client
from midstream_wire.tensors import Array, TensorSpec
from midstream_wire.transfers import Incoming, reply_frames, request_frames

_LIMIT = 64 * MIB


def _specs(arrays: dict[str, Array]) -> list[TensorSpec]:
    return [TensorSpec(name, a.dtype.name, a.shape) for name, a in arrays.items()]


def _frames(arrays: dict[str, Array], id: str = "raw") -> list[Request | More]:
    payloads = {name: encode(codec(id), array) for name, array in arrays.items()}
    return list(request_frames(1, 0, payloads))


def _assemble(arrays: dict[str, Array], frames: list[Request | More]) -> Incoming:
    opening = frames[0]
    assert isinstance(opening, Request)
    incoming = Incoming(opening.tensors, _specs(arrays), max_nbytes=_LIMIT)
    for frame in frames:
        for piece in frame.pieces:
            assert not incoming.done
            incoming.feed(piece)
    return incoming


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 600_000) | st.integers(0, 10), min_size=1, max_size=4),
    st.sampled_from(["raw", "lossless"]),
    st.integers(0, 2**32 - 1),
)
def test_tensors_arrive_as_they_left(sizes: list[int], id: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        f"t{index}": rng.standard_normal(size, dtype=np.float32)
        for index, size in enumerate(sizes)
    }
    frames = _frames(arrays, id)
    incoming = _assemble(arrays, frames)
    assert incoming.done
    result = incoming.result()
    assert list(result) == list(arrays)
    assert all(np.array_equal(result[name], arrays[name]) for name in arrays)
    assert all(len(write_client(f)) <= MAX_MESSAGE_NBYTES for f in frames)
    # Only the last message may be small, whatever the mixture of sizes.
    for frame in frames[:-1]:
        assert sum(len(piece.data) for piece in frame.pieces) >= MESSAGE_NBYTES


def test_small_tensors_share_the_message_that_opens_the_request() -> None:
    arrays: dict[str, Array] = {f"t{n}": np.ones((3, n), np.float32) for n in range(20)}
    assert len(_frames(arrays)) == 1


def test_a_tensor_of_800_kb_rides_in_the_message_that_opens_the_request() -> None:
    assert len(_frames({"t": np.ones(200_000, np.float32)})) == 1


def test_a_payload_is_encoded_while_it_is_sent() -> None:
    encoded: list[int] = []

    def payload() -> Iterator[bytes]:
        for index in range(4):
            encoded.append(index)
            yield bytes(MIB)

    frames = request_frames(1, 0, {"t": payload()})
    assert encoded == []
    for count in range(1, 5):
        next(frames)
        assert encoded == list(range(count))


def test_a_piece_that_is_too_large_is_split() -> None:
    picture = np.random.default_rng(0).integers(0, 256, MAX_PIECE_NBYTES * 2 + 5, np.uint8)
    frames = list(reply_frames(4, {"t": [picture.data]}, ServerTimings(tail_s=1.0)))
    assert isinstance(frames[0], Reply)
    assert frames[0].timings.tail_s == 1.0
    sizes = [len(piece.data) for frame in frames for piece in frame.pieces]
    assert sizes == [MAX_PIECE_NBYTES, MAX_PIECE_NBYTES, 5]
    joined = b"".join(piece.data for frame in frames for piece in frame.pieces)
    assert joined == picture.tobytes()


def test_a_request_without_tensors_is_complete_at_once() -> None:
    (frame,) = request_frames(1, 0, {})
    assert frame.pieces == ()
    assert Incoming((), (), max_nbytes=0).done


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c"), ("a", "a"), ("a", "x" * 999)])
def test_the_names_must_be_those_that_cross(names: tuple[str, ...]) -> None:
    specs = [TensorSpec(name, "float32", (2,)) for name in ("a", "b")]
    with pytest.raises(ProtocolError, match="the tensors must be 'a', 'b'") as caught:
        Incoming(names, specs, max_nbytes=_LIMIT)
    assert len(str(caught.value)) < 300


def test_pieces_out_of_order_are_refused() -> None:
    arrays: dict[str, Array] = {n: np.ones(3, np.float32) for n in ("a", "b")}
    incoming = Incoming(("a", "b"), _specs(arrays), max_nbytes=_LIMIT)
    with pytest.raises(ProtocolError, match="a piece of tensor 0 is due"):
        incoming.feed(Piece(1, encode_bytes(codec("raw"), arrays["b"])))


@pytest.mark.parametrize("tensor", [0, 1, 2**32 - 1])
def test_pieces_after_the_end_are_refused(tensor: int) -> None:
    array = np.ones(3, np.float32)
    incoming = Incoming(("a",), _specs({"a": array}), max_nbytes=_LIMIT)
    incoming.feed(Piece(0, encode_bytes(codec("raw"), array)))
    with pytest.raises(ProtocolError, match="no piece is due"):
        incoming.feed(Piece(tensor, b"more"))


def test_the_size_of_all_tensors_together_is_bounded() -> None:
    arrays: dict[str, Array] = {n: np.ones(1000, np.float32) for n in ("a", "b")}
    specs = [TensorSpec(n, "float32", ("n",)) for n in arrays]
    payloads = [encode_bytes(codec("raw"), array) for array in arrays.values()]

    enough = Incoming(("a", "b"), specs, max_nbytes=8000)
    for index, payload in enumerate(payloads):
        enough.feed(Piece(index, payload))
    assert enough.done

    short = Incoming(("a", "b"), specs, max_nbytes=7999)
    short.feed(Piece(0, payloads[0]))
    with pytest.raises(CodecError):
        short.feed(Piece(1, payloads[1]))


def test_a_declared_size_is_refused_before_it_is_allocated() -> None:
    raw = encode_bytes(codec("raw"), np.ones(4, np.uint8))
    shape = Header(raw[3], 0, False, "uint8", (1 << 40,)).pack()
    incoming = Incoming(("a",), [TensorSpec("a", "uint8", ("n",))], max_nbytes=_LIMIT)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=f"at most {_LIMIT} bytes"):
            incoming.feed(Piece(0, shape))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_garbage_is_never_taken_for_a_tensor(garbage: bytes, keep: int) -> None:
    """Whether it is garbage from the start, or a good payload that ends in garbage."""
    good = encode_bytes(codec("lossless"), np.arange(100, dtype=np.float32))
    incoming = Incoming(("a",), [TensorSpec("a", "float32", (100,))], max_nbytes=_LIMIT)
    try:
        incoming.feed(Piece(0, good[:keep] + garbage))
        incoming.result()
    except MidstreamError:
        return
    assert good[:keep] + garbage == good
