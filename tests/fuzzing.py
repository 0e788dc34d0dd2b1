"""Seeded mutations of payloads and frames, for tests and `benchmarks/fuzz.py`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np

from midstream_wire.codecs import codec, decode, encode_bytes
from midstream_wire.codecs.header import (
    DTYPE_CODES,
    FIXED_NBYTES,
    FRAME_NBYTES,
    Header,
    frame_of,
    header_checksum,
    header_nbytes,
    parse_header,
)
from midstream_wire.errors import CodecError, MidstreamError
from midstream_wire.frames import (
    Cancel,
    ClientFrame,
    CodecAnswer,
    CodecName,
    GoAway,
    Hello,
    More,
    Piece,
    Ping,
    Pong,
    Reply,
    Request,
    ServerFrame,
    ServerTimings,
    Status,
    Welcome,
)
from midstream_wire.messages import read_client, read_server, write_client, write_server
from midstream_wire.tensors import DTYPES, TensorSpec
from midstream_wire.transfers import Incoming

SEED = 20_260
NORMAL = np.random.default_rng(SEED).standard_normal((1, 4, 6, 6), np.float32)
FLOATS = np.maximum(NORMAL, 0)
PICTURE = np.random.default_rng(SEED).integers(0, 255, (1, 4, 5, 3), np.uint8)
SAMPLES = [
    ("raw", FLOATS), ("raw", FLOATS[:0]), ("lossless", FLOATS),
    ("lossless", NORMAL.astype(np.float64)), ("half", FLOATS), ("int8", FLOATS),
    ("int8c", NORMAL), ("ec", FLOATS), ("ec:0.05", NORMAL), ("ec@200B", NORMAL),
    ("ecc", NORMAL), ("ecc:0.02", FLOATS), ("ctx", FLOATS), ("ctx:0.02", NORMAL),
    ("png", PICTURE), ("jpeg:50", PICTURE), ("webp:50", PICTURE), ("avif:50", PICTURE),
]  # fmt: skip
PAYLOADS = [encode_bytes(codec(id), array) for id, array in SAMPLES]
FREE = ("n", "c", "h", "w")
ROOM_NBYTES = 1 << 16

Mutation = Callable[[Random, bytearray], None]


def cut_off(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def flip_bits(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def change_bytes(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def change_the_front(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        data[rng.randrange(min(len(data), 40))] = rng.randrange(256)


def insert(rng: Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 30)))


def leave_out(rng: Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 30))]


def repeat(rng: Random, data: bytearray) -> None:
    at, length = rng.randrange(len(data)), rng.choice((1, 8, 40, 400))
    data[at:at] = data[at : at + length]


def lie(rng: Random, honest: int, bits: int) -> int:
    near = honest + rng.choice((-1, 1, -8, 8))
    far = rng.choice((0, 1, honest * 2, honest << 16, 1 << bits - 1, (1 << bits) - 1))
    told = rng.choice((near, far, rng.getrandbits(bits), rng.getrandbits(12)))
    return told & ((1 << bits) - 1)


def lie_in_a_field(rng: Random, data: bytearray) -> None:
    """Every field of fixed width: of the header, its dimensions, its counts, its frames."""
    ndim, end = data[7], header_nbytes(data)
    fields = [*((at, 1) for at in range(FIXED_NBYTES))]
    fields += [(FIXED_NBYTES + 8 * axis, 8) for axis in range(ndim)]
    fields += [(FIXED_NBYTES + 8 * ndim, 4), (end - 8, 8)]
    if len(data) >= end + FRAME_NBYTES:
        fields += [(end, 4), (end + 4, 4), (end + 8, 8)] * 3
    at, width = rng.choice(fields)
    honest = int.from_bytes(data[at : at + width], "little")
    data[at : at + width] = lie(rng, honest, 8 * width).to_bytes(width, "little")


def change_a_parameter(rng: Random, data: bytearray) -> None:
    start, end = FIXED_NBYTES + 8 * data[7] + 4, header_nbytes(data) - 8
    if start == end:
        return flip_bits(rng, data)
    data[rng.randrange(start, end)] = rng.randrange(256)
    return None


ANYWHERE: list[Mutation] = [
    cut_off, flip_bits, change_bytes, change_the_front, insert, leave_out, repeat,
]  # fmt: skip
WITH_FIELDS: list[Mutation] = [*ANYWHERE, lie_in_a_field, lie_in_a_field, change_a_parameter]


def free(dtype: str) -> TensorSpec:
    return TensorSpec("x", dtype, FREE)


def parts_of(payload: bytes) -> tuple[Header, bytes, int]:
    """(header, body, decoded_nbytes); all samples are of one block at most."""
    end = header_nbytes(bytearray(payload))
    frame = payload[end : end + FRAME_NBYTES]
    due = struct.unpack_from("<I", frame, 4)[0] if frame else 0
    return parse_header(payload[:end]), payload[end + FRAME_NBYTES :], due


PARTS = [parts_of(payload) for payload in PAYLOADS]


def forged(rng: Random, number: int) -> tuple[bytes, Header]:
    """(a payload with right checksums around what has been changed, its header)"""
    header, honest, due = PARTS[number]
    body = bytearray(honest)
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.random()
        if kind < 0.2:
            header = lying(rng, header)
        elif kind < 0.3:
            # Another payload's block, under a checksum that fits here.
            _, other, due = rng.choice(PARTS)
            body = bytearray(other)
        elif kind < 0.35:
            due = lie(rng, due, 32)
        elif body:
            rng.choice(ANYWHERE)(rng, body)
    # What is due for another shape or dtype is told rightly, so that bodies are reached.
    right = DTYPES[header.dtype].itemsize * math.prod(header.shape)
    if header is not PARTS[number][0] and right <= ROOM_NBYTES and rng.random() < 0.7:
        due = right
    front = header.pack()
    frame = frame_of([bytes(body)], decoded_nbytes=due, seed=header_checksum(front)).pack()
    if rng.random() < 0.05:
        frame = lie(rng, len(body), 32).to_bytes(4, "little") + frame[4:]
    return front + (frame + body if honest else b""), header


def lying(rng: Random, header: Header) -> Header:
    kind = rng.randrange(6)
    if kind == 0:
        return replace(header, codec=rng.randrange(13))
    if kind == 1:
        return replace(header, quality=rng.choice((0, 1, 50, 100, 101, 255)))
    if kind == 2:
        return replace(header, dtype=rng.choice(list(DTYPE_CODES)))
    if kind == 3:
        return replace(header, fallback=not header.fallback)
    if kind == 4 and header.params:
        params = bytearray(header.params)
        rng.choice(ANYWHERE)(rng, params)
        return replace(header, params=bytes(params))
    shape = list(header.shape)
    axis = rng.randrange(len(shape))
    shape[axis] = lie(rng, shape[axis], 64)
    if rng.random() < 0.5:
        shape = rng.sample(list(header.shape), len(header.shape))
    return replace(header, shape=tuple(shape))


def damage(number: int, rng: Random) -> bool:
    """Decode a damaged payload of sample `number`; True if it was refused.

    Raises `AssertionError` where another tensor came of it, in silence.
    """
    payload, spec = PAYLOADS[number], free(PARTS[number][0].dtype)
    damaged = bytearray(payload)
    rng.choice(WITH_FIELDS)(rng, damaged)
    try:
        got = decode(bytes(damaged), spec, max_nbytes=ROOM_NBYTES)
    except CodecError:
        return True
    right = decode(payload, spec, max_nbytes=ROOM_NBYTES)
    assert got.tobytes() == right.tobytes()
    return False


def forge(number: int, rng: Random) -> bool:
    """Decode a forged payload of sample `number`; True if it was refused.

    Raises `AssertionError` where what came is not what it announced.
    """
    payload, header = forged(rng, number)
    try:
        got = decode(payload, free(header.dtype), max_nbytes=ROOM_NBYTES)
    except CodecError:
        return True
    assert (got.dtype, got.shape) == (DTYPES[header.dtype], header.shape)
    assert got.nbytes <= ROOM_NBYTES
    return False


_PIECES = (Piece(0, PAYLOADS[0]), Piece(1, PAYLOADS[5][:60]))
_NAMES = ("x", "skip")
_CLIENT: list[ClientFrame] = [
    Hello("resnet18", "0" * 64, "edge", (CodecName("bfp", "1"), CodecName("own", "2.0"))),
    Request(7, 3, _NAMES, _PIECES, 0.25, "klt:16"),
    Request(8, 0, ("x",), (Piece(0, PAYLOADS[1]),)),
    More(7, (Piece(1, PAYLOADS[5][60:]),)),
    Cancel(7),
    Ping(9, b"padding" * 20, 1000),
]
_SERVER: list[ServerFrame] = [
    Welcome("midstream", 1 << 28, 8, 20.0, (CodecAnswer("bfp"), CodecAnswer("own", "no"))),
    Reply(7, Status(), _NAMES, _PIECES, ServerTimings(1.0, 2.0, 0.1, 0.2, 0.3)),
    Reply(8, Status(8, "busy")),
    More(7, (Piece(0, PAYLOADS[1]),)),
    Pong(9, b"padding" * 20, 1.0, 2.0),
    GoAway(Status(14, "stopping")),
]
CLIENT_MESSAGES = [write_client(frame) for frame in _CLIENT]
SERVER_MESSAGES = [write_server(frame) for frame in _SERVER]


def garble(rng: Random) -> bool:
    """Read a mutated message of either side, and feed what it carries; True if refused."""
    client = rng.random() < 0.5
    message = bytearray(rng.choice(CLIENT_MESSAGES if client else SERVER_MESSAGES))
    for _ in range(rng.choice((1, 1, 2))):
        if message:
            rng.choice(ANYWHERE)(rng, message)
    try:
        frame = (read_client if client else read_server)(bytes(message))
        if isinstance(frame, Request | Reply):
            specs = [free("float32"), TensorSpec("skip", "float32", FREE)][
                : len(frame.tensors)
            ]
            incoming = Incoming(frame.tensors, specs, max_nbytes=ROOM_NBYTES)
            for piece in frame.pieces:
                incoming.feed(piece)
    except MidstreamError:
        return True
    return False
