"""Payloads that were damaged, and payloads that someone made on purpose."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.codecs import BLOCK_NBYTES, Decoder, codec, decode, encode_bytes
from midstream_wire.codecs.header import FRAME_NBYTES, Header
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array, TensorSpec

Forge = Callable[..., bytes]

FLOATS = np.maximum(np.random.default_rng(3).standard_normal((1, 4, 6, 6), np.float32), 0)
PICTURE = np.random.default_rng(3).integers(0, 255, (1, 4, 5, 3), np.uint8)
SAMPLES = [
    ("raw", FLOATS), ("lossless", FLOATS), ("lossless", FLOATS > 0), ("half", FLOATS),
    ("int8", FLOATS), ("int8c", FLOATS), ("ec", FLOATS), ("ec:0.05", FLOATS - 0.3),
    ("ecc", FLOATS), ("ctx", FLOATS), ("ctx:0.05", FLOATS - 0.3),
    ("raw", FLOATS[:0]), ("int8", FLOATS * np.nan),
    ("png", PICTURE), ("jpeg:50", PICTURE), ("webp:50", PICTURE), ("avif:50", PICTURE),
]  # fmt: skip
# Symbolic dimensions admit the most, so that it is not the spec alone that refuses.
FREE = ("n", "c", "h", "w")
ROOM_NBYTES = 1 << 20


def free(array: Array) -> TensorSpec:
    return TensorSpec("x", array.dtype.name, FREE)


@pytest.mark.parametrize(("id", "array"), SAMPLES)
def test_no_flipped_bit_ever_passes_as_another_array(id: str, array: Array) -> None:
    payload = encode_bytes(codec(id), array)
    right = decode(payload, free(array), max_nbytes=ROOM_NBYTES).tobytes()
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            got = decode(bytes(damaged), free(array), max_nbytes=ROOM_NBYTES)
        except CodecError:
            continue
        assert got.tobytes() == right, f"bit {bit} of {len(payload)} bytes"


@pytest.mark.parametrize(("id", "array"), SAMPLES)
def test_every_truncation_is_noticed(id: str, array: Array) -> None:
    payload = encode_bytes(codec(id), array)
    for length in range(len(payload)):
        with pytest.raises(CodecError, match=r"must be complete .*cut off"):
            decode(payload[:length], free(array), max_nbytes=ROOM_NBYTES)


@pytest.mark.parametrize(("id", "array"), SAMPLES)
def test_bytes_behind_the_end_are_noticed(id: str, array: Array) -> None:
    payload = encode_bytes(codec(id), array)
    with pytest.raises(CodecError, match=r"must end with its last block .*1 bytes more"):
        decode(payload + b"\0", free(array), max_nbytes=ROOM_NBYTES)
    decoder = Decoder(free(array), max_nbytes=ROOM_NBYTES)
    decoder.feed(payload)
    decoder.feed(b"")
    assert decoder.done
    with pytest.raises(CodecError, match="1 bytes more"):
        decoder.feed(b"\0")


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for start in (b"", b"\x8dM\x01"):
        with pytest.raises(CodecError):
            decode(start + noise, free(FLOATS), max_nbytes=ROOM_NBYTES)


def test_a_decoder_that_has_failed_stays_failed() -> None:
    payload = bytearray(encode_bytes(codec("raw"), FLOATS))
    payload[-1] ^= 1
    decoder = Decoder(free(FLOATS), max_nbytes=ROOM_NBYTES)
    with pytest.raises(CodecError, match=r"block 0 .*checksum"):
        decoder.feed(bytes(payload))
    with pytest.raises(CodecError, match=r"block 0 .*checksum"):
        decoder.feed(b"more")
    with pytest.raises(CodecError, match=r"block 0 .*checksum"):
        decoder.result()
    assert not decoder.done


def test_blocks_cannot_change_places() -> None:
    array = np.arange(2 * BLOCK_NBYTES // 4, dtype=np.float32)
    payload = encode_bytes(codec("raw"), array)
    block = FRAME_NBYTES + BLOCK_NBYTES
    front = len(payload) - 2 * block
    swapped = payload[:front] + payload[front + block :] + payload[front : front + block]
    with pytest.raises(CodecError, match=r"block 0 .*checksum"):
        decode(swapped, TensorSpec("x", "float32", array.shape), max_nbytes=array.nbytes)


@pytest.mark.parametrize(
    ("spec", "max_nbytes", "sentence"),
    [
        (TensorSpec("x", "float32", (1, 4, 6, 7)), 1000, r"must be float32 \[1, 4, 6, 7\]"),
        (TensorSpec("x", "float32", (144,)), 1000, r"must be float32 \[144\]"),
        (TensorSpec("x", "int32", (1, 4, 6, 6)), 1000, "must be int32"),
        (TensorSpec("x", "float32", FREE), 575, r"at most 575 bytes .*is 576"),
    ],
)
def test_a_tensor_that_is_not_expected_is_refused(
    spec: TensorSpec, max_nbytes: int, sentence: str
) -> None:
    with pytest.raises(CodecError, match=sentence):
        decode(encode_bytes(codec("raw"), FLOATS), spec, max_nbytes=max_nbytes)


@pytest.mark.parametrize("id", ["raw", "lossless", "half", "int8", "int8c"])
@pytest.mark.parametrize(
    "shape", [(2**63, 2, 2, 2), (1, 2**31, 2**31, 4), (2**20, 2**20, 1, 1)]
)
def test_nothing_is_allocated_for_what_is_too_large(
    id: str, shape: tuple[int, ...], forge: Forge
) -> None:
    header = Header(codec(id).code, 0, False, "float32", shape, b"\0\0\x80\x3f\0\0\0\0")
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="must be at most 1048576 bytes"):
            decode(forge(header), free(FLOATS), max_nbytes=ROOM_NBYTES)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_empty_tensor_of_impossible_dimensions_is_refused(forge: Forge) -> None:
    header = Header(1, 0, False, "float32", (0, 2**40, 2**40, 1))
    with pytest.raises(CodecError, match=r"below 2\*\*63"):
        decode(forge(header), free(FLOATS), max_nbytes=ROOM_NBYTES)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (Header(0, 0, False, "float32", (1, 4, 6, 6)), "a known codec .not number 0."),
        (Header(99, 0, False, "float32", (1, 4, 6, 6)), "a known codec .not number 99."),
        (Header(1, 9, False, "float32", (1, 4, 6, 6)), "raw must not be used with quality 9"),
        (Header(7, 0, False, "uint8", (1, 4, 6, 3)), "jpeg must not be used with quality 0"),
        (Header(7, 90, False, "uint8", (1, 4, 6, 4)), r"jpeg:90 must not be used for uint8"),
        (Header(6, 0, False, "uint8", (1, 0, 6, 3)), "png must not be used for uint8"),
        (Header(3, 0, False, "int32", (1, 4, 6, 6)), "half must not be used for int32"),
        (Header(1, 0, True, "float32", (1, 4, 6, 6)), "only lossless must take"),
        (Header(1, 0, False, "float32", (1, 4, 6, 6), b"??"), "raw must have no parameters"),
        (
            Header(4, 0, False, "float32", (1, 4, 6, 6)),
            "int8 must have 1 scales .*not 0 bytes",
        ),
        (Header(5, 0, False, "float32", (1, 4, 6, 6), b"?" * 8), "int8c must have 4 scales"),
        (
            Header(4, 0, False, "float32", (1, 4, 6, 6), struct.pack("<ff", 1, np.inf)),
            "finite",
        ),
        (Header(4, 0, False, "float32", (1, 4, 6, 6), struct.pack("<ff", 3e38, 0)), "finite"),
        (
            Header(4, 0, False, "float32", (1, 4, 6, 6), struct.pack("<ff", np.nan, 0)),
            "finite",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    header: Header, sentence: str, forge: Forge
) -> None:
    with pytest.raises(CodecError, match=sentence):
        decode(forge(header), TensorSpec("x", header.dtype, FREE), max_nbytes=ROOM_NBYTES)


def test_flags_and_dtypes_of_the_future_are_refused() -> None:
    import xxhash

    good = Header(1, 0, False, "float32", (1,)).pack()
    for place, value, sentence in ((5, 0x02, "no flags but"), (6, 99, "a known dtype code")):
        front = bytearray(good[:-8])
        front[place] = value
        payload = bytes(front) + xxhash.xxh3_64_digest(bytes(front))[::-1]
        with pytest.raises(CodecError, match=sentence):
            decode(payload, TensorSpec("x", "float32", (1,)), max_nbytes=4)


PLAIN = Header(2, 0, False, "uint8", (1000,))


def refusal(payload: bytes, shape: tuple[int, ...] = (1000,), dtype: str = "uint8") -> str:
    with pytest.raises(CodecError) as caught:
        decode(payload, TensorSpec("x", dtype, shape), max_nbytes=ROOM_NBYTES)
    return str(caught.value)


def sections(*parts: bytes) -> bytes:
    return struct.pack(f"<{len(parts)}I", *map(len, parts)) + b"".join(parts)


@pytest.mark.parametrize("decoded_nbytes", [0, 1, 999, 1001, 2**32 - 1])
def test_a_block_must_cover_just_what_is_due(decoded_nbytes: int, forge: Forge) -> None:
    payload = forge(PLAIN, (sections(b"", bytes(1000)), decoded_nbytes))
    assert "block 0 of tensor 'x' must decode to 1000 bytes" in refusal(payload)


@pytest.mark.parametrize("encoded_nbytes", [0, 6097, 2**32 - 1])
def test_a_block_is_not_awaited_beyond_reason(encoded_nbytes: int) -> None:
    frame = struct.pack("<IIQ", encoded_nbytes, 1000, 0)
    assert "must be 1 to 6096 bytes long" in refusal(PLAIN.pack() + frame)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\x01\0", "the sizes of 2 sections"),
        (sections(b"", bytes(1000))[:-1], "sections must fill it"),
        (sections(b"", bytes(1000)) + b"\0", "sections must fill it"),
        (b"\0\0\0\0\xff\xff\xff\xff" + bytes(1000), "sections must fill it"),
        (b"\xff\xff\xff\xff\0\0\0\0" + bytes(1000), "sections must fill it"),
        (sections(b"", bytes(1001)), "at most 1000 bytes"),
        (sections(b"", b""), "one whole zstd frame"),
        (sections(b"", b"junk"), "one whole zstd frame"),
        (sections(b"junk", bytes(1000)), "one whole zstd frame"),
        (sections(b"\xff" * 124, bytes(1000)), "one whole zstd frame"),
        (sections(b"\xff" * 126, bytes(1000)), "at most 125 bytes"),
        (sections(b"\xff" * 125, bytes(999)), "one whole zstd frame"),
        (sections(bytes(125), b"\x01"), "at most 0 bytes"),
        (sections(b"\x80" + bytes(124), b""), "one whole zstd frame"),
    ],
)
def test_sections_must_fill_their_block(body: bytes, sentence: str, forge: Forge) -> None:
    assert sentence in refusal(forge(PLAIN, (body, 1000)))


def compressed(data: bytes, *, declared: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=declared).compress(data)


def test_frames_that_are_not_the_plane_are_refused(forge: Forge) -> None:
    plane = compressed(bytes(1000))
    streamed = zstandard.ZstdCompressor(level=1).compressobj()
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0four"
    frames = {
        "more than declared": compressed(bytes(1001)),
        "a gibibyte": compressed(bytes(1 << 26)),
        "less": compressed(bytes(999)),
        "nothing declared": compressed(bytes(1000), declared=False),
        "nothing declared, a gibibyte": streamed.compress(bytes(1 << 26)) + streamed.flush(),
        "cut off": plane[:-1],
        "two frames": plane + plane,
        "something behind": plane + b"\0",
        "skippable first": skippable + plane,
        "skippable behind": plane + skippable,
    }
    for name, frame in frames.items():
        if len(frame) >= 1000:
            frame = frame[:900]
        payload = forge(PLAIN, (sections(b"", frame), 1000))
        assert "plane must" in refusal(payload), name


def test_a_frame_that_lies_about_its_size_is_refused(forge: Forge) -> None:
    # Single-segment frames of 256..65791 bytes: descriptor 0x60, then the size less 256.
    lying = bytearray(compressed(bytes(60_000)))
    assert lying[4] == 0x60
    lying[5:7] = struct.pack("<H", 1000 - 256)
    tracemalloc.start()
    try:
        body = sections(b"", bytes(lying))
        assert "one whole zstd frame" in refusal(forge(PLAIN, (body, 1000)))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_large_window_is_refused(forge: Forge) -> None:
    # Descriptor 0x40: a window of its own (here 2 GiB), the content's size in two bytes.
    frame = b"\x28\xb5\x2f\xfd\x40\xa8" + struct.pack("<H", 1000 - 256) + b"\x43\x1f\x00\x00"
    body = sections(b"", frame)
    assert "a window of 2147483648" in refusal(forge(PLAIN, (body, 1000)))


def test_booleans_other_than_0_and_1_are_refused(forge: Forge) -> None:
    header = Header(1, 0, False, "bool", (2,))
    assert "booleans of 0 and 1" in refusal(forge(header, (b"\x01\x02", 2)), (2,), "bool")


def test_raw_blocks_are_as_long_as_what_they_hold(forge: Forge) -> None:
    header = Header(1, 0, False, "uint8", (10,))
    for length in (1, 9, 11):
        assert "a raw block must be 10 bytes" in refusal(
            forge(header, (bytes(length), 10)), (10,)
        )


def saved(array: Array, kind: str, **settings: object) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **settings)
    return file.getvalue()


STRIP = np.random.default_rng(5).integers(0, 255, (16, 16, 3), np.uint8)
CODES = {"PNG": (6, 0), "JPEG": (7, 90), "WEBP": (8, 80)}


def test_pictures_of_another_size_or_structure_are_refused(forge: Forge) -> None:
    huge = np.zeros((4000, 4000, 3), np.uint8)
    good = {kind: saved(STRIP, kind) for kind in CODES}
    jpeg = good["JPEG"]
    scan = jpeg.index(b"\xff\xda")
    files = [
        ("PNG", saved(huge, "PNG")),
        ("JPEG", saved(huge, "JPEG")),
        ("WEBP", saved(huge, "WEBP")),
        ("PNG", saved(STRIP[:, :15], "PNG")),
        ("PNG", saved(STRIP[..., 0], "PNG")),
        ("JPEG", saved(STRIP[..., 0], "JPEG")),
        ("PNG", saved(STRIP, "PNG", icc_profile=b"profile")),
        ("JPEG", saved(STRIP, "JPEG", progressive=True)),
        ("JPEG", saved(STRIP, "JPEG", comment=b"hello")),
        ("JPEG", saved(STRIP, "JPEG", exif=b"Exif\0\0MM\0*")),
        ("JPEG", jpeg[:-2] + jpeg[scan:]),
        ("JPEG", jpeg[:-2] + jpeg[2:]),
        ("WEBP", saved(STRIP, "WEBP", lossless=True)),
        ("WEBP", saved(STRIP, "WEBP", icc_profile=b"profile")),
        ("WEBP", saved(STRIP, "WEBP", save_all=True, append_images=[])[:-1]),
        *((kind, good[other]) for kind in CODES for other in CODES if kind != other),
        *((kind, b"junk") for kind in CODES),
        *((kind, good[kind] + b"more") for kind in ("PNG", "WEBP")),
        *((kind, good[kind][: len(good[kind]) // 2]) for kind in CODES),
    ]
    for number, (kind, file) in enumerate(files):
        header = Header(*CODES[kind], False, "uint8", (16, 16, 3))
        sentence = refusal(forge(header, (file[:4000], 768)), (16, 16, 3))
        assert "block must be" in sentence, (number, kind)


@given(
    kind=st.sampled_from(sorted(CODES)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
def test_changed_pictures_decode_to_their_size_or_are_refused(
    kind: str, changes: list[tuple[int, int]], forge: Forge
) -> None:
    file = bytearray(saved(STRIP, kind))
    for place, value in changes:
        file[place % len(file)] = value
    header = Header(*CODES[kind], False, "uint8", (16, 16, 3))
    try:
        got = decode(
            forge(header, (bytes(file), 768)),
            TensorSpec("x", "uint8", (16, 16, 3)),
            max_nbytes=768,
        )
    except CodecError:
        return
    assert got.shape == (16, 16, 3)


@given(
    body=st.binary(max_size=120),
    dtype=st.sampled_from(["float32", "uint8", "int64"]),
    code=st.sampled_from([1, 2, 3, 4]),
    size=st.integers(1, 40),
)
def test_any_body_with_the_right_checksum_decodes_or_is_refused(
    body: bytes, dtype: str, code: int, size: int, forge: Forge
) -> None:
    params = struct.pack("<ff", 0.5, -1) if code == 4 else b""
    header = Header(code, 0, False, dtype, (size,), params)
    nbytes = size * np.dtype(dtype).itemsize
    spec = TensorSpec("x", dtype, (size,))
    try:
        got = decode(forge(header, (body, nbytes)), spec, max_nbytes=nbytes)
    except CodecError:
        return
    assert got.shape == (size,)
