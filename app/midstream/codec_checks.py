"""The properties that sessions rely on in a codec, checked on arrays and on hostile bytes."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from midstream_wire.codecs import Codec, Decoder, decode, encode
from midstream_wire.codecs.base import PRIVATE, plain
from midstream_wire.codecs.header import (
    FRAME_NBYTES,
    Header,
    frame_of,
    header_checksum,
    header_nbytes,
    parse_frame,
    parse_header,
)
from midstream_wire.codecs.narrow import working_dtype
from midstream_wire.codecs.private import NO_PRIVATE_CODES, Guarded, PrivateCodes
from midstream_wire.codecs.registry import codec_of
from midstream_wire.errors import CodecError, UsageError
from midstream_wire.tensors import DTYPES, Array, TensorSpec, dtype_of

_SHAPES = (
    (), (0,), (3, 0, 2), (1,), (7,), (1, 1000), (2, 16, 5), (1, 4, 6, 6), (1, 8, 7, 9),
    (1, 12, 20, 3), (20, 12, 3),
)  # fmt: skip
#: More than a block of each dtype, which is 1 MiB.
_LARGE = (1, 3, 300, 301)
#: Payloads up to this are mutated.
_SMALL_NBYTES = 1 << 14
#: Mutations of each small payload.
_MUTATIONS = 12
#: What decoding may take: the tensor, copies of one block of it, tables of a fixed size.
_PEAK_NBYTES = 8 << 20


def check_codec(
    codec: Codec, *, decoder: Codec | None = None, cases: int = 300, seed: int = 0
) -> None:
    """Raise `AssertionError`, naming the first case, where a codec breaks its promises.

    Puts it through `cases` arrays of all dtypes: empty, scalar, of many shapes and magnitudes,
    with NaN and infinities, in other memory layouts, and of more than a block. Each must keep
    its dtype and shape and the bound that the codec states, every bit where that is lossless,
    encode alike twice, and decode from any pieces. Payloads are then mutated under right
    checksums: each must be refused with a `CodecError`, or decode to the declared shape,
    within memory of that order, without touching what lies around it.

    `decoder` is the codec with its default setting, by which the other side decodes; without
    it `codec` does.
    """
    try:
        ours = codec.code != PRIVATE
        codec = codec if ours else Guarded.of(codec)
        codes = NO_PRIVATE_CODES if ours else PrivateCodes((Guarded.of(decoder or codec),))
    except UsageError as error:
        raise AssertionError(str(error)) from None
    choose = random.Random(seed)
    for number, array in enumerate(_arrays(choose, cases)):
        told = f"{dtype_of(plain(array))} {list(array.shape)}, case {number} of seed {seed}"
        checked = _Case(codec, codes, array, told)
        payload = checked.check_round_trip()
        if len(payload) <= _SMALL_NBYTES and array.size:
            for _ in range(_MUTATIONS):
                checked.check_hostile(payload, choose)


@final
@dataclass(frozen=True, slots=True)
class _Case:
    """One array under one codec; `told` names it in what is raised."""

    codec: Codec
    codes: PrivateCodes
    array: Array
    told: str

    def require(self, holds: bool, what: str) -> None:
        """Raise `AssertionError` that names codec, case and what must hold."""
        if not holds:
            raise AssertionError(f"codec {self.codec.id} {what} ({self.told})")

    def check_round_trip(self) -> bytes:
        """Encode and decode the array; return its payload."""
        had = plain(self.array)
        before = self.array.tobytes()
        payload = self.encode()
        self.require(self.array.tobytes() == before, "must not change what it encodes")
        self.require(self.encode() == payload, "must encode alike twice")
        decoder = Decoder(self.spec, max_nbytes=had.nbytes, codes=self.codes)
        try:
            for start in range(0, len(payload), max(1, len(payload) // 5)):
                decoder.feed(payload[start : start + max(1, len(payload) // 5)])
            got = decoder.result()
        except CodecError as error:
            raise AssertionError(
                f"codec {self.codec.id} must decode what it has encoded ({self.told}): "
                f"{_whole(error)}"
            ) from error
        same = (got.dtype, got.shape) == (had.dtype, had.shape)
        self.require(same, f"must keep dtype and shape, and gave {got.dtype} {got.shape}")
        self._check_error(had, got, _parts_of(payload)[0])
        self._check_filled(payload, got)
        return payload

    def encode(self) -> bytes:
        try:
            return b"".join(encode(self.codec, self.array, codes=self.codes))
        except CodecError as error:
            raise AssertionError(
                f"codec {self.codec.id} must encode what it accepts, or begin with None "
                f"({self.told}): {_whole(error)}"
            ) from error

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec("x", dtype_of(plain(self.array)), self.array.shape)

    def _check_error(self, had: Array, got: Array, header: Header) -> None:
        alike = got.tobytes() == had.tobytes()
        if header.fallback or self.used(header).lossless:
            self.require(alike, "must keep every bit")
            return
        whole = had.astype(np.complex128) if had.dtype.kind == "c" else had.astype(np.float64)
        finite = bool(np.isfinite(whole).all())
        self.require(finite or alike, "must leave NaN and infinities to lossless")
        bound = self.codec.error_bound(self.array)
        if bound is None or alike:
            return
        error = float(np.abs(got.astype(whole.dtype) - whole).max(initial=0.0))
        self.require(
            error <= bound, f"must keep its error within {bound:g}, and it is {error:g}"
        )

    def _check_filled(self, payload: bytes, got: Array) -> None:
        """Require that decoding fills all of every block, and nothing around it."""
        header, blocks = _parts_of(payload)
        dtype = DTYPES[working_dtype(self.used(header), header.dtype)]
        start = 0
        for body, decoded_nbytes in blocks:
            size = decoded_nbytes // got.itemsize
            for canary in (0x5A, 0xA5):
                room = np.full((size + 32) * dtype.itemsize, canary, np.uint8)
                out = room.view(dtype)[16 : 16 + size]
                self._decode_block(header, body, out, start)
                around = np.concatenate((room.view(dtype)[:16], room.view(dtype)[16 + size :]))
                untouched = bool((around.view(np.uint8) == canary).all())
                self.require(untouched, "must write nothing but its block")
                due = got.reshape(-1)[start : start + size]
                if dtype == got.dtype:  # else what was decoded is rounded at the end
                    self.require(out.tobytes() == due.tobytes(), "must fill all its block")
            start += size

    def used(self, header: Header) -> Codec:
        """Return the codec that a payload was made with after all."""
        return codec_of(header.codec, header.quality, self.codes)

    def _decode_block(self, header: Header, body: bytes, out: Array, start: int) -> None:
        """Decode a block unguarded, from a body with other bytes around it."""
        used = self.used(header)
        bare = used.own if isinstance(used, Guarded) else used
        dtype = working_dtype(used, header.dtype)
        room = memoryview(b"\xff" * 8 + body + b"\xff" * 8)[8 : 8 + len(body)]
        bare.resume(dtype, header.shape, header.params)(room, out, start)

    def check_hostile(self, payload: bytes, choose: random.Random) -> None:
        """Decode the payload with parameters or bodies changed, under right checksums."""
        hostile, header = _forged(payload, choose)
        most = self.array.nbytes
        tracemalloc.start()
        try:
            got = decode(hostile, self.spec, max_nbytes=most, codes=self.codes)
        except CodecError:
            return
        except Exception as error:
            raise AssertionError(
                f"codec {self.codec.id} must refuse hostile bytes with a CodecError "
                f"({self.told}, {hostile[:64].hex()}...): {type(error).__name__}: {error}"
            ) from error
        finally:
            peak_nbytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.require(
                peak_nbytes <= _PEAK_NBYTES + 16 * most,
                f"must decode {most} bytes in little more, and took {peak_nbytes}",
            )
        declared = (DTYPES[header.dtype], header.shape)
        self.require((got.dtype, got.shape) == declared, "must decode to what was declared")


def _whole(error: CodecError) -> str:
    """Return what is wrong, with what the codec itself has raised."""
    cause = error.__cause__
    return str(error) if cause is None else f"{error} ({cause})"


def _parts_of(payload: bytes) -> tuple[Header, list[tuple[bytes, int]]]:
    """Return the header, and of each block its body and how many bytes it decodes to."""
    at = header_nbytes(payload)
    header, blocks = parse_header(payload[:at]), []
    while at < len(payload):
        frame = parse_frame(payload[at : at + FRAME_NBYTES])
        at += FRAME_NBYTES + frame.encoded_nbytes
        blocks.append((payload[at - frame.encoded_nbytes : at], frame.decoded_nbytes))
    return header, blocks


def _forged(payload: bytes, choose: random.Random) -> tuple[bytes, Header]:
    """Return a payload with right checksums around what was changed, and its header."""
    header, blocks = _parts_of(payload)
    if header.params and choose.random() < 0.4:
        header = replace(header, params=_mutated(header.params, choose))
    else:
        at = choose.randrange(len(blocks))
        blocks[at] = _mutated(blocks[at][0], choose) or b"\0", blocks[at][1]
    parts = [header.pack()]
    checksum = header_checksum(parts[0])
    for body, decoded_nbytes in blocks:
        frame = frame_of([body], decoded_nbytes=decoded_nbytes, seed=checksum)
        checksum = frame.checksum
        parts += (frame.pack(), body)
    return b"".join(parts), header


def _mutated(data: bytes, choose: random.Random) -> bytes:
    """Return `data` with some bytes changed, left out, put in, or cut off."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 8))):
        at = choose.randrange(len(changed) + 1)
        kind = choose.randrange(4)
        if kind == 0:
            changed[at : at + 1] = choose.choice(
                (b"\0", b"\x7f", b"\xff", choose.randbytes(1))
            )
        elif kind == 1:
            del changed[at : at + choose.choice((1, 4, 30))]
        elif kind == 2:
            changed[at:at] = choose.randbytes(choose.choice((1, 4, 30)))
        else:
            del changed[at:]
    return bytes(changed)


def _arrays(choose: random.Random, count: int) -> Iterator[Array]:
    """Yield arrays of every dtype and shape in turn, then two of more than a block."""
    noise = np.random.default_rng(choose.randrange(1 << 32))
    pairs = [(dtype, shape) for dtype in DTYPES for shape in _SHAPES]
    choose.shuffle(pairs)
    for number in range(count):
        dtype, shape = pairs[number % len(pairs)]
        yield _laid_out(_filled(dtype, shape, choose, noise), choose)
    for dtype in ("float32", "uint8"):
        scale = 4 if dtype == "uint8" else 1
        yield _filled(dtype, (*_LARGE[:-1], scale * _LARGE[-1]), random.Random(0), noise)


def _filled(
    dtype: str, shape: tuple[int, ...], choose: random.Random, noise: np.random.Generator
) -> Array:
    kind, made = DTYPES[dtype].kind, noise.standard_normal(shape)
    if kind == "b":
        return np.asarray(made > 0)
    if kind in "iu":
        info = np.iinfo(DTYPES[dtype])
        wide = choose.random() < 0.5
        low, high = (info.min, info.max) if wide else (max(info.min, -3), 100)
        return noise.integers(low, high, shape, DTYPES[dtype], endpoint=True)
    with np.errstate(all="ignore"):  # beyond a narrow dtype's greatest lies its infinity
        reals = np.asarray(_reals(choose.randrange(9), made, choose))
        return reals.astype(DTYPES[dtype])


def _reals(kind: int, normal: Array, choose: random.Random) -> Array:
    """Return real numbers of one of nine kinds, made of normal ones."""
    if kind == 0:
        return np.maximum(normal, 0)  # as after a rectifier
    if kind == 1:
        return np.full(normal.shape, choose.choice((0.0, -0.0, 0.1, -3.5, 1e-42)))
    if kind == 2:
        return normal * 10.0 ** choose.choice((-45, -38, -20, 4, 20, 37))
    if kind == 3:
        return normal + choose.choice((1e-6, 1e4, -1e4))
    if kind == 4:
        return np.asarray(np.sign(normal) * np.exp(4 * normal))  # of all magnitudes
    if kind in (5, 6) and normal.size:
        poisoned = normal.reshape(-1).copy()
        poison = choose.choice((math.nan, math.inf, -math.inf, 3.4e38, -3.4e38))
        poisoned[choose.randrange(poisoned.size)] = poison
        return poisoned.reshape(normal.shape)
    return normal


def _laid_out(array: Array, choose: random.Random) -> Array:
    """Return the same numbers, perhaps in another layout of memory."""
    kind = choose.randrange(5)
    if kind == 0:
        return np.asarray(array.T.copy()).T
    if kind == 1 and array.ndim:
        return array[::-1].copy()[::-1]
    if kind == 2 and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == 3 and array.dtype.kind in "iuf" and array.dtype.itemsize > 1:
        return array.astype(array.dtype.newbyteorder(">"))
    return array
