"""Two hundred thousand damaged and forged payloads and frames, and a million odd tensors.

All of it is seeded: a failure names the seed and the number of the case.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator
from itertools import compress, product
from random import Random

import numpy as np
import pytest
from tests.fuzzing import (
    CLIENT_MESSAGES,
    PARTS,
    PAYLOADS,
    ROOM_NBYTES,
    SAMPLES,
    SEED,
    SERVER_MESSAGES,
    WITH_FIELDS,
    forged,
    free,
    garble,
)

from midstream_wire.codecs import CODECS, Codec, codec, decode, encode_bytes
from midstream_wire.codecs.header import (
    FIXED_NBYTES,
    FRAME_NBYTES,
    header_nbytes,
)
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

DAMAGED, FORGED = 3600, 5000  # per sample
GARBLED = 60_000
# What decoding may take: the tensor, copies of one block of it, tables of a fixed size.
PEAK_NBYTES = 4 << 20
MOST_S = 1.0


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_whatever_is_damaged_is_refused_or_harmless(number: int) -> None:
    payload, spec = PAYLOADS[number], free(PARTS[number][0].dtype)
    right = decode(payload, spec, max_nbytes=ROOM_NBYTES).tobytes()
    rng = Random(SEED + number)
    done = refused = 0
    for case in range(DAMAGED):
        damaged = bytearray(payload)
        mutation = rng.choice(WITH_FIELDS)
        mutation(rng, damaged)
        try:
            got = decode(bytes(damaged), spec, max_nbytes=ROOM_NBYTES).tobytes()
        except CodecError:
            refused += 1
        except Exception as error:
            error.add_note(f"seed {SEED + number}, case {case}, {mutation.__name__}")
            raise
        else:
            assert got == right, (SEED + number, case, mutation.__name__)
        done += 1
    assert done == DAMAGED
    # A byte may be replaced by itself, and be repeated behind its like.
    assert refused > 0.8 * done


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_whatever_is_forged_is_refused_or_a_tensor_as_announced(number: int) -> None:
    rng = Random(-SEED - number)
    done = refused = 0
    for case in range(FORGED):
        payload, header = forged(rng, number)
        traced = case % 20 == 0
        if traced:
            tracemalloc.start()
        started_s = time.thread_time()
        try:
            got = decode(payload, free(header.dtype), max_nbytes=ROOM_NBYTES)
        except CodecError:
            refused += 1
        except Exception as error:
            error.add_note(f"seed {-SEED - number}, case {case}, {header}")
            raise
        else:
            assert (got.dtype, got.shape) == (DTYPES[header.dtype], header.shape)
            assert got.nbytes <= ROOM_NBYTES
        finally:
            peak_nbytes = tracemalloc.get_traced_memory()[1] if traced else 0
            tracemalloc.stop()
        assert peak_nbytes < PEAK_NBYTES, (-SEED - number, case, header)
        assert time.thread_time() - started_s < MOST_S, (-SEED - number, case, header)
        done += 1
    assert done == FORGED
    assert 0 < refused < done


def blocks_of(payload: bytes) -> list[bytes]:
    """The header, then each block with its frame."""
    end = FIXED_NBYTES
    while (further := header_nbytes(bytearray(payload[:end]))) > end:
        end = further
    parts = [payload[:end]]
    while end < len(payload):
        start, length = end, struct.unpack_from("<I", payload, end)[0]
        end += FRAME_NBYTES + length
        parts.append(payload[start:end])
    return parts


def test_no_block_passes_behind_another_payloads_header() -> None:
    for number, payload in enumerate(PAYLOADS):
        header = blocks_of(payload)[0]
        for other in PAYLOADS:
            front, *blocks = blocks_of(other)
            if blocks and front != header:
                with pytest.raises(CodecError):
                    decode(
                        b"".join((header, *blocks)),
                        free(PARTS[number][0].dtype),
                        max_nbytes=ROOM_NBYTES,
                    )


@pytest.mark.parametrize("id", ["raw", "lossless", "half", "int8", "ec:0.3", "ecc", "ctx:0.2"])
def test_no_block_passes_among_those_of_a_payload_of_the_same_header(id: str) -> None:
    """Of two payloads of three blocks each, nothing but these payloads can be put together."""
    one = np.random.default_rng(SEED).choice(np.array([-2, 2], np.float32), (3, 4, 300, 200))
    other = one[:, :, ::-1].copy()
    parts = [blocks_of(encode_bytes(codec(id), array)) for array in (one, other)]
    assert parts[0][0] == parts[1][0]
    passed = []
    for choice in product((0, 1), (1, 2, 3), repeat=3):
        picked = list(zip(choice[::2], choice[1::2], strict=True))
        spliced = b"".join((parts[0][0], *(parts[which][at] for which, at in picked)))
        try:
            decode(spliced, free("float32"), max_nbytes=one.nbytes)
        except CodecError:
            continue
        passed.append(picked)
    assert passed == [[(which, at) for at in (1, 2, 3)] for which in (0, 1)]


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_garbled_is_refused_or_a_frame(part: int) -> None:
    rng = Random(SEED + 1000 * part)
    refused = sum(garble(rng) for _ in range(GARBLED // 4))
    assert refused > 0.5 * (GARBLED // 4)


def test_two_hundred_thousand_payloads_and_frames_are_mutated() -> None:
    assert len(SAMPLES) * (DAMAGED + FORGED) + GARBLED >= 200_000
    assert len(CLIENT_MESSAGES) + len(SERVER_MESSAGES) == 12
    assert {codec(id).family for id, _ in SAMPLES} == set(CODECS)
    assert {header.codec for header, _, _ in PARTS} == {codec(id).code for id in CODECS}


IDS = [
    "raw", "lossless", "half", "int8", "int8c", "ec", "ec:0.01", "ec@1KB", "ecc:0.125",
    "ecc:2", "ctx", "ctx:0.02", "png", "jpeg", "webp",
    "avif",
]  # fmt: skip
CHUNK = 1000
SHAPES: list[tuple[int, ...]] = [
    (), (0,), (1,), (7,), (97,), (256,), (3, 0, 2), (1, 1), (5, 9), (16, 16), (1, 3, 4, 4),
    (2, 4, 6, 5), (1, 2, 8, 8), (1, 16, 2, 3), (1, 5, 6, 3), (4, 5, 3), (2, 1, 3, 1, 4),
]  # fmt: skip
POOL = 4096


def floats_of(rng: np.random.Generator, dtype: np.dtype[np.floating]) -> list[Array]:
    """Pools of numbers to cut tensors from, each of another nature."""
    info = np.finfo(dtype)
    normal = rng.standard_normal(POOL)
    magnitudes = 2.0 ** rng.uniform(info.minexp, info.maxexp - 1, POOL)
    signs = np.where(normal < 0, -1.0, 1.0)
    pools = [
        normal,
        np.maximum(normal, 0) * 10.0 ** rng.uniform(-6, 6),
        normal * 2.0 ** rng.uniform(-125, 120),
        normal + 10.0 ** rng.uniform(0, 6),
        np.full(POOL, normal[0]),
        np.round(normal * 3) * signs,
        signs * magnitudes,
        signs * np.where(rng.random(POOL) < 0.99, 0.0, float(info.max)),
        rng.integers(-99, 99, POOL) * float(info.smallest_subnormal),
        rng.standard_cauchy(POOL),
        rng.choice(np.array([0.0, -0.0, 1.0, -1.5, 65504.0, 65520.0, 1e-30]), POOL),
    ]
    poisoned = normal.copy()
    poisoned[rng.integers(0, POOL, 40)] = rng.choice(np.array([np.nan, np.inf, -np.inf]), 40)
    return [pool.astype(dtype) for pool in (*pools, poisoned)]


def pools_of(rng: np.random.Generator) -> list[Array]:
    """Half of them of floats, the others of any dtype, of any bits."""
    pools = [pool for name in ("float32", "float64") for pool in floats_of(rng, DTYPES[name])]
    for name, dtype in DTYPES.items():
        bits = rng.integers(0, 256, POOL * dtype.itemsize, np.uint8)
        pools.append((bits & 1 if name == "bool" else bits).view(dtype))
    return [*pools, *(rng.integers(0, 256, POOL, np.uint8) for _ in range(3))]


def tensors(seed: int) -> Iterator[Array]:
    """CHUNK tensors, contiguous or not."""
    rng = np.random.default_rng(seed)
    pools = pools_of(rng)
    draws = rng.integers(0, 1 << 31, (CHUNK, 4)).tolist()
    for which, at, form, way in draws:
        pool, shape = pools[which % len(pools)], SHAPES[form % len(SHAPES)]
        size = int(np.prod(shape))
        start = at % (POOL - 2 * size)
        array = pool[start : start + size].reshape(shape)
        if way % 8 == 1:
            array = array.T
        elif way % 8 == 2 and shape:
            array = array[::-1]
        elif way % 8 == 3 and shape:
            array = pool[start : start + 2 * size : 2].reshape(shape)[..., ::-1]
        elif way % 8 == 4:
            array = np.broadcast_to(pool[at % POOL], shape)
        elif way % 8 == 5 and array.dtype.name != "bfloat16":
            array = array.astype(array.dtype.newbyteorder(">"))
        elif way % 8 == 6:
            array = np.asfortranarray(array)
        yield array


CHOSEN = [codec(id) for id in IDS]


def check(chosen: Codec, array: Array) -> None:
    """Round-trip `array`: every bit is kept, or the bound for every element."""
    dtype = DTYPES[array.dtype.name]
    spec = TensorSpec("x", dtype.name, array.shape)
    bound = chosen.error_bound(array)
    got = decode(encode_bytes(chosen, array), spec, max_nbytes=array.nbytes)
    assert (got.dtype, got.shape) == (dtype, array.shape)
    if bound == 0.0:
        assert got.tobytes() == array.astype(dtype).tobytes()
    elif bound is not None:
        errors = np.abs(got.astype(np.float64) - array.astype(np.float64))
        assert errors.max(initial=0.0) <= bound
    else:
        assert chosen.family in ("jpeg", "webp", "avif")


def of_use(number: int, array: Array) -> list[Codec]:
    """The codecs that take such arrays, and in turn one of those that leave it to another."""
    dtype, shape = array.dtype.name, array.shape
    takes = [
        each.accepts(dtype, shape) and each.suited_to(dtype, shape) is each for each in CHOSEN
    ]
    others = [each for each, taken in zip(CHOSEN, takes, strict=True) if not taken]
    return [*compress(CHOSEN, takes), others[number % len(others)]]


def check_chunk(seed: int, *, every: bool) -> int:
    """Round-trip a chunk of tensors through three codecs each, or all of use; how many."""
    tried = 0
    for number, array in enumerate(tensors(seed)):
        if every:
            chosen = of_use(number, array)
        else:
            chosen = [CHOSEN[(3 * number + turn) % len(CHOSEN)] for turn in range(3)]
        for each in chosen:
            try:
                check(each, array)
            except Exception as error:
                error.add_note(f"seed {seed}, tensor {number}, {each.id}: {array!r}")
                raise
        tried += 1
    return tried


def test_tensors_of_every_kind_keep_what_codecs_promise() -> None:
    assert {codec(id).family for id in IDS} == set(CODECS)
    tried = sum(check_chunk(SEED + chunk, every=False) for chunk in range(20))
    assert tried == 20_000


@pytest.mark.slow
def test_a_million_tensors_keep_what_every_codec_promises() -> None:
    tried = 0
    for chunk in range(1000):
        tried += check_chunk(SEED + chunk, every=True)
        print(f"seed {SEED + chunk} done: {tried} tensors", flush=True)
    assert tried == 1_000_000
