"""The bytes on the wire, literally, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.codecs import Codec, codec, decode, encode_bytes
from midstream_wire.codecs.header import DTYPE_CODES, Header, header_nbytes, parse_header
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

# Per line: the fixed part; dims; parameters; the header's checksum; a frame; a body.
RAW = """
    8d 4d 01 01 00 00 02 01
    02 00 00 00 00 00 00 00
    00 00 00 00
    aa 77 64 93 72 79 c9 fb
    08 00 00 00 08 00 00 00 30 c6 23 93 4d c3 2e 2e
    00 00 80 3f 00 00 00 c0
"""
SCALAR = """
    8d 4d 01 01 00 00 09 00
    00 00 00 00
    99 d9 d9 c6 bc 3c 71 e8
    08 00 00 00 08 00 00 00 39 0d 8c 8f a6 73 58 f0
    07 00 00 00 00 00 00 00
"""
EMPTY = """
    8d 4d 01 01 00 00 0a 02
    00 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00
    00 00 00 00
    3f 63 b5 6d ed e1 3a a9
"""
LOSSLESS = """
    8d 4d 01 02 00 00 0b 01
    02 00 00 00 00 00 00 00
    00 00 00 00
    2e 52 42 d2 d7 09 17 be
    10 00 00 00 04 00 00 00 bf 03 73 96 4e be ff 75
    00 00 00 00 02 00 00 00 02 00 00 00 02 04 01 03
"""
HALF = """
    8d 4d 01 03 00 00 02 02
    01 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00
    00 00 00 00
    b3 29 af 22 c8 34 73 f7
    12 00 00 00 0c 00 00 00 af 38 63 c5 3b 25 58 87
    00 00 00 00 03 00 00 00 03 00 00 00 00 00 ff 3c
    b8 7b
"""
FALLBACK = """
    8d 4d 01 02 00 01 02 01
    01 00 00 00 00 00 00 00
    00 00 00 00
    94 ab 2f 6a d0 5a 85 37
    14 00 00 00 04 00 00 00 de ce 0a 5c 45 18 f9 f1
    00 00 00 00 02 00 00 00 01 00 00 00 01 00 00 00
    00 00 80 7f
"""
SPARSE = """
    8d 4d 01 02 00 00 0b 01
    09 00 00 00 00 00 00 00
    00 00 00 00
    ec 64 d8 ac 57 f9 cd 0c
    12 00 00 00 12 00 00 00 68 79 2d 3d a5 3f 39 05
    02 00 00 00 02 00 00 00 02 00 00 00 20 80 09 08
    00 00
"""
INT8 = """
    8d 4d 01 04 00 00 02 01
    03 00 00 00 00 00 00 00
    08 00 00 00 00 00 80 3f 00 00 00 00
    83 de e1 f3 ba c5 23 16
    0b 00 00 00 0c 00 00 00 de 04 35 b7 66 ca 58 8a
    01 00 00 00 02 00 00 00 60 7f fe
"""

LITERAL = [
    pytest.param("raw", np.array([1.0, -2.0], "<f4"), RAW, id="raw"),
    pytest.param("raw", np.array(7, "<i8"), SCALAR, id="raw-scalar"),
    pytest.param("raw", np.zeros((0, 3), np.uint8), EMPTY, id="raw-empty"),
    pytest.param("lossless", np.array([0x0102, 0x0304], "<u2"), LOSSLESS, id="lossless"),
    pytest.param("half", np.array([[1.0, -0.5, 65504.0]], "<f4"), HALF, id="half"),
    pytest.param("half", np.array([np.inf], "<f4"), FALLBACK, id="half-fallback"),
    pytest.param("int8", np.array([0.0, 127.0, 254.0], "<f4"), INT8, id="int8"),
    pytest.param("lossless", np.array([0, 0, 9, *[0] * 5, 8], "<u2"), SPARSE, id="sparse"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "array", "text"), LITERAL)
def test_these_arrays_are_these_bytes(
    name: str, array: Array, text: str, spec_for: Callable[[Array], TensorSpec]
) -> None:
    payload = bytes.fromhex(text)
    assert encode_bytes(codec(name), array).hex(" ") == payload.hex(" ")
    decoded = decode(payload, spec_for(array), max_nbytes=array.nbytes)
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


def test_codes_of_dtypes_are_these_for_ever() -> None:
    assert DTYPE_CODES == {
        "float16": 1, "float32": 2, "float64": 3, "bfloat16": 4, "bool": 5,
        "int8": 6, "int16": 7, "int32": 8, "int64": 9,
        "uint8": 10, "uint16": 11, "uint32": 12, "uint64": 13,
        "complex64": 14, "complex128": 15,
    }  # fmt: skip
    assert set(DTYPE_CODES) == set(DTYPES)


@pytest.mark.parametrize(
    ("family", "code"),
    [("raw", 1), ("lossless", 2), ("half", 3), ("int8", 4), ("int8c", 5), ("png", 6),
     ("jpeg", 7), ("webp", 8), ("ec", 9), ("ecc", 10), ("ctx", 11), ("avif", 12)],
)  # fmt: skip
def test_codes_of_codecs_are_these_for_ever(family: str, code: int) -> None:
    chosen: Codec = codec(family)
    assert chosen.code == code


headers = st.builds(
    Header,
    codec=st.integers(0, 255),
    quality=st.integers(0, 255),
    fallback=st.booleans(),
    dtype=st.sampled_from(sorted(DTYPE_CODES)),
    shape=st.lists(st.integers(0, 2**64 - 1), max_size=32).map(tuple),
    params=st.binary(max_size=64),
)


@given(headers)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    data = header.pack()
    assert header_nbytes(data) == len(data)
    assert parse_header(data) == header


@given(headers)
def test_the_length_of_a_header_is_known_in_three_steps(header: Header) -> None:
    data = header.pack()
    known = [8]
    while header_nbytes(data[: known[-1]]) > known[-1]:
        known.append(header_nbytes(data[: known[-1]]))
    assert known == [8, 12 + 8 * len(header.shape), len(data)]


SPEC = TensorSpec("x", "float32", ("n",))


@pytest.mark.parametrize(
    ("front", "sentence"),
    [
        (b"GET / HT", "must start with 8d4d"),
        (b"\x8dM\x02\x01\x00\x00\x02\x01", "must be of version 1 .not 2.: run the same"),
        (b"\x8dM\x01\x01\x00\x00\x02\x21", "at most 32 dimensions .not 33."),
        (b"\x8dM\x01\x01\x00\x00\x02\x01" + b"\x01" * 8 + b"\x01\x00\x10\x00", "parameters"),
    ],
)
def test_what_is_no_header_is_refused_as_soon_as_that_is_seen(
    front: bytes, sentence: str
) -> None:
    with pytest.raises(CodecError, match=sentence):
        decode(front, SPEC, max_nbytes=1 << 20)


def test_the_example_of_the_document_is_right() -> None:
    document = Path(__file__).parents[2] / "docs/reference/wire.md"
    example = document.read_text(encoding="utf-8").partition("### An example")[2]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )+) ", example, re.MULTILINE)
    assert bytes.fromhex("".join(lines)) == bytes.fromhex(INT8)
