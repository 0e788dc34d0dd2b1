"""AVIF: a frame without its file, where Pillow has AVIF, and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features
from tests.codecs.conftest import Forge

from midstream_wire.codecs import codec, decode, encode_bytes, usable
from midstream_wire.codecs.avif import encode, open_frame, size_of
from midstream_wire.codecs.header import Header
from midstream_wire.codecs.registry import codec_of, unread_by
from midstream_wire.errors import CodecError, UsageError
from midstream_wire.tensors import Array, TensorSpec

STRIP = np.random.default_rng(5).integers(0, 255, (16, 16, 3), np.uint8)
FRAME = encode(Image.fromarray(STRIP), 80)
SEQUENCE_NBYTES = 2 + FRAME[1]


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (300, 7), (7, 300), (1001, 336), (4500, 16)])
def test_a_frame_decodes_as_the_file_that_it_was_cut_from(size: tuple[int, int]) -> None:
    picture = Image.fromarray(STRIP).resize(size)
    file = io.BytesIO()
    picture.save(file, "AVIF", quality=70, speed=9, max_threads=1, autotiling=False)
    frame = encode(picture, 70)
    assert size_of(frame) == size
    assert len(frame) < len(file.getvalue()) - 200
    assert np.array_equal(np.asarray(open_frame(frame)), np.asarray(Image.open(file)))


def with_bits(frame: bytes, at: int, count: int, value: int) -> bytes:
    """`frame` with other bits in its sequence header, from bit `at` of its content on."""
    head = int.from_bytes(frame[2:SEQUENCE_NBYTES], "big")
    shift = 8 * (SEQUENCE_NBYTES - 2) - at - count
    head = head & ~(((1 << count) - 1) << shift) | value << shift
    return frame[:2] + head.to_bytes(SEQUENCE_NBYTES - 2, "big") + frame[SEQUENCE_NBYTES:]


def saved(array: Array, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "AVIF", **settings)
    return file.getvalue()


def refused() -> list[bytes]:
    sequence, frame = FRAME[:SEQUENCE_NBYTES], FRAME[SEQUENCE_NBYTES:]
    return [
        encode(Image.new("RGB", (4000, 4000)), 1),
        encode(Image.new("RGB", (16, 15)), 80),
        saved(STRIP),  # a whole file
        saved(STRIP, save_all=True, append_images=[Image.fromarray(255 - STRIP)]),
        sequence,
        frame,
        sequence + frame + frame,  # each further frame would cost a decoding
        sequence + sequence + frame,
        b"\x12\x00" + FRAME,
        FRAME + b"\x12\x00",
        FRAME + b"\x00",
        FRAME[:-1],
        b"\x0a\xff\xff\xff\xff\xff\xff",
        b"\x0a\x00\x32\x00",
        b"junk",
        with_bits(FRAME, 0, 3, 1),  # 4:4:4
        with_bits(FRAME, 3, 1, 0),  # a film
        with_bits(FRAME, 4, 1, 0),  # frames with sizes of their own
        with_bits(FRAME, 10, 4, 15),  # more bits of width
    ]


@pytest.mark.parametrize("number", range(len(refused())))
def test_all_but_one_frame_of_the_strips_size_is_refused_unread(
    number: int, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(stream: bytes) -> None:
        raise AssertionError("the picture library must not see it")

    monkeypatch.setattr("midstream_wire.codecs.avif.open_frame", read)
    body = refused()[number][:4000]
    payload = forge(Header(12, 80, False, "uint8", (16, 16, 3)), (body, 768))
    with pytest.raises(CodecError, match="the avif block must be a plain picture of 16 x 16"):
        decode(payload, TensorSpec("x", "uint8", (16, 16, 3)), max_nbytes=768)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6))
def test_changed_frames_decode_to_their_size_or_are_refused(
    forge: Forge, changes: list[tuple[int, int]]
) -> None:
    frame = bytearray(FRAME)
    for place, value in changes:
        frame[place % len(frame)] = value
    payload = forge(Header(12, 80, False, "uint8", (16, 16, 3)), (bytes(frame), 768))
    try:
        got = decode(payload, TensorSpec("x", "uint8", (16, 16, 3)), max_nbytes=768)
    except CodecError:
        return
    assert got.shape == (16, 16, 3)


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")


def test_a_pillow_without_avif_refuses_it_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = encode_bytes(codec("avif:60"), STRIP)
    assert "avif" in usable()
    without(monkeypatch)
    assert usable()[-1] == "webp"
    with pytest.raises(UsageError, match="the codec avif needs a Pillow with AVIF"):
        codec("avif:60")
    with pytest.raises(CodecError, match="the codec avif needs a Pillow with AVIF"):
        decode(sent, TensorSpec("x", "uint8", STRIP.shape), max_nbytes=STRIP.nbytes)
    with pytest.raises(CodecError, match="the codec avif needs"):
        codec_of(12, 60)


def test_an_edge_knows_that_a_server_reads_no_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = usable()
    assert unread_by(everything) == ()
    ((family, why),) = unread_by(everything[:-1])
    assert family == "avif"
    assert why.startswith("the codec avif must be one that the server reads, and is not")
    without(monkeypatch)
    assert unread_by(everything[:-1]) == ()
