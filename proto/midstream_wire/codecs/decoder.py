"""From pieces of bytes to an array, block by block as they arrive."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock
from midstream_wire.codecs.exact import Raw, view_block
from midstream_wire.codecs.header import (
    BLOCK_NBYTES,
    FIXED_NBYTES,
    FRAME_NBYTES,
    Frame,
    Header,
    checksum_of,
    header_checksum,
    header_nbytes,
    most_encoded,
    parse_frame,
    parse_header,
)
from midstream_wire.codecs.narrow import narrowing, working_dtype
from midstream_wire.codecs.private import NO_PRIVATE_CODES, PrivateCodes
from midstream_wire.codecs.registry import RAW, codec_of
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

#: A header without parameters, of as many dimensions as there may be, is no longer.
_SMALL_HEADER_NBYTES = 512


@final
class Decoder:
    """Decodes one payload while it arrives. Not thread-safe; decoders are independent.

    Takes only what `spec` admits, of at most `max_nbytes` decoded bytes, and allocates nothing
    for a payload before it has checked that. Memory: the array, plus at most one block.

    With `borrow`, the array of a raw payload of one block is a view of the bytes that were
    fed: it cannot be written to, may be unaligned, and keeps those bytes alive.

    With `defer`, `feed` only finds the blocks and keeps their bytes, which is quick whatever
    the codec; `advance` and `result` decode them, on another thread if need be. Then an array
    is allocated no earlier than that.

    `codes` says what private codes stand for; by default there are none.
    """

    def __init__(
        self,
        spec: TensorSpec,
        *,
        max_nbytes: int,
        borrow: bool = False,
        defer: bool = False,
        codes: PrivateCodes = NO_PRIVATE_CODES,
    ) -> None:
        self._spec = spec
        self._codes = codes
        self._max_nbytes = max_nbytes
        self._borrow = borrow
        self._defer = defer
        self._codec: Codec | None = None
        self._fallback = False
        self._failure: str | None = None
        # The next `_need` bytes are for `_take`; `_held` are those that have come already.
        self._need = FIXED_NBYTES
        # Not bound to self: such a cycle would keep the array until Python looks for cycles.
        self._take: Callable[[Decoder, memoryview], None] = Decoder._take_header
        self._held = bytearray()
        self._front = bytearray()
        # Each is counted by one thread alone: what came for later, and what was made of it.
        self._came_nbytes = self._used_nbytes = 0
        self._bodies: deque[tuple[memoryview, int]] = deque()  # and the checksum of each
        self._array: Array | None = None
        self._nbytes = 0

    @property
    def done(self) -> bool:
        """Return True if the payload is complete."""
        return self._need == 0 and self._failure is None

    @property
    def nbytes(self) -> int:
        """Return how many bytes the array takes; 0 until the header has arrived."""
        return self._nbytes

    @property
    def codec_id(self) -> str:
        """The codec the payload was really encoded with; "" until its header has arrived."""
        return self._codec.id if self._codec else ""

    @property
    def fallback(self) -> bool:
        """Return True if lossless took the place of the codec that the sender had asked
        for.
        """
        return self._fallback

    @property
    def waiting_nbytes(self) -> int:
        """Return how many bytes are kept to be decoded later."""
        return self._came_nbytes - self._used_nbytes + len(self._held)

    def feed(self, data: bytes | memoryview) -> None:
        """Decode what these further bytes complete; any division into pieces will do.

        Raises CodecError at the first thing that is wrong, and again on any later call.
        """
        if self._failure is not None:
            raise CodecError(self._failure)
        try:
            self._consume(memoryview(data).cast("B"))
        except CodecError as error:
            self._fail(error)
            raise

    def advance(self) -> None:
        """Decode the blocks that have arrived. Raises CodecError as `feed` does."""
        if self._failure is not None:
            raise CodecError(self._failure)
        try:
            while self._bodies:
                body, checksum = self._bodies.popleft()
                self._decode(body, checksum)
                self._used_nbytes += len(body)
        except CodecError as error:
            self._fail(error)
            raise

    def result(self) -> Array:
        """The array, once `done`. Raises CodecError while the payload is incomplete."""
        self.advance()
        if not self.done:
            raise CodecError(
                f"a payload must be complete (tensor {self._spec.name!r} was cut off): "
                "send it again"
            )
        if self._array is None:  # of no elements, so that no block made it
            self._array = np.empty(self._shape, self._dtype)
        return self._array

    def kept(self) -> tuple[TensorSpec, list[bytes | memoryview]] | None:
        """Return what the array is, and the payload as it came; None unless all of it is there
        and none of it was decoded yet.
        """
        if not self.done or not self._defer or self._start or not self._bodies:
            return None
        parts: list[bytes | memoryview] = [bytes(self._front)]
        start = 0
        for body, checksum in self._bodies:
            elements = min(self._step, self._size - start)
            start += elements
            frame = Frame(len(body), elements * self._dtype.itemsize, checksum)
            parts += (frame.pack(), body)
        dtype = self._spec.dtype
        return TensorSpec(self._spec.name, dtype, self._shape), parts

    def _fail(self, error: CodecError) -> None:
        self._failure = str(error)
        self._held.clear()
        self._bodies.clear()

    def _consume(self, data: memoryview) -> None:
        while len(data):
            if self._need == 0:
                raise CodecError(
                    f"a payload must end with its last block (tensor {self._spec.name!r} has "
                    f"{len(data)} bytes more)"
                )
            missing = self._need - len(self._held)
            part, data = data[:missing], data[missing:]
            if self._held or len(part) < missing:
                self._held += part
                if len(part) < missing:
                    return
                part, self._held = memoryview(self._held), bytearray()
            self._take(self, part)

    def _take_header(self, part: memoryview) -> None:
        self._front += part
        missing = header_nbytes(self._front) - len(self._front)
        if missing:
            self._need = missing
        else:
            self._open(parse_header(bytes(self._front)))

    def _open(self, header: Header) -> None:
        codec = codec_of(header.codec, header.quality, self._codes)
        self._check_tensor(header)
        if not codec.accepts(header.dtype, header.shape):
            raise CodecError(
                f"codec {codec.id} must not be used for {header.dtype} {list(header.shape)}"
            )
        if header.fallback and codec.family != "lossless":
            raise CodecError(f"only lossless must take another codec's place (not {codec.id})")
        working = working_dtype(codec, header.dtype)
        self._decode_block: DecodeBlock = codec.resume(working, header.shape, header.params)
        if working != header.dtype:
            self._decode_block = narrowing(self._decode_block, header.dtype)
        self._codec, self._fallback = codec, header.fallback
        self._shape, self._dtype = header.shape, DTYPES[header.dtype]
        self._size = math.prod(header.shape)
        self._nbytes = self._size * self._dtype.itemsize
        self._step = codec.block_elements(working, header.shape) if self._size else 0
        self._found = self._start = self._index = 0  # elements seen, and decoded
        self._checksum = header_checksum(self._front)
        self._expect_frame()

    def _check_tensor(self, header: Header) -> None:
        came = f"{header.dtype} {list(header.shape)}"
        if not self._spec.admits(header.dtype, header.shape):
            raise CodecError(
                f"tensor {self._spec.name!r} must be {self._spec} (not {came}): "
                "both sides must hold the same partition"
            )
        itemsize = DTYPES[header.dtype].itemsize
        nbytes = itemsize * math.prod(header.shape)
        if nbytes > self._max_nbytes:
            raise CodecError(
                f"tensor {self._spec.name!r} must be at most {self._max_nbytes} bytes "
                f"({came} is {nbytes}): send less, or raise the receiver's limit"
            )
        # Even an array of no elements has strides, which must fit numpy's signed integers.
        if not nbytes and itemsize * math.prod(size or 1 for size in header.shape) >= 1 << 63:
            raise CodecError(
                f"tensor {self._spec.name!r} must have dimensions below 2**63 bytes"
            )

    def _expect_frame(self) -> None:
        self._need = FRAME_NBYTES if self._found < self._size else 0
        self._take = Decoder._take_frame

    def _take_frame(self, part: memoryview) -> None:
        frame = parse_frame(part)
        elements = min(self._step, self._size - self._found)
        nbytes = elements * self._dtype.itemsize
        if frame.decoded_nbytes != nbytes:
            raise CodecError(
                f"block {self._found // self._step} of tensor {self._spec.name!r} must decode "
                f"to {nbytes} bytes (not {frame.decoded_nbytes})"
            )
        most = most_encoded(nbytes)
        if not 1 <= frame.encoded_nbytes <= most:
            raise CodecError(
                f"block {self._found // self._step} of tensor {self._spec.name!r} must be 1 "
                f"to {most} bytes long (not {frame.encoded_nbytes})"
            )
        self._due = frame.checksum
        self._found += elements
        self._need = frame.encoded_nbytes
        self._take = Decoder._take_body

    def _take_body(self, part: memoryview) -> None:
        if self._defer:
            self._bodies.append((_own(part), self._due))
            self._came_nbytes += len(part)
        else:
            self._decode(part, self._due)
        self._expect_frame()

    def _decode(self, body: memoryview, checksum: int) -> None:
        if checksum_of(body, self._checksum) != checksum:
            raise CodecError(
                f"block {self._index} of tensor {self._spec.name!r} must match its checksum "
                "and what is in front of it: it was damaged on the way, send it again"
            )
        self._checksum = checksum
        if self._borrow and self._step >= self._size and isinstance(self._codec, Raw):
            self._array = view_block(body, self._dtype, self._shape)
            block = self._array.reshape(-1)
        else:
            if self._array is None:
                self._array = np.empty(self._shape, self._dtype)
            block = self._array.reshape(-1)[self._start : self._start + self._step]
            self._decode_block(body, block, self._start)
        if block.dtype == bool and block.view(np.uint8).max() > 1:
            raise CodecError(f"tensor {self._spec.name!r} must hold booleans of 0 and 1 only")
        self._start += block.size
        self._index += 1


def _own(part: memoryview) -> memoryview:
    """`part`, or a copy where it would keep alive a message that it is little of."""
    whole = memoryview(part.obj).nbytes
    return part if 2 * len(part) >= whole else memoryview(bytes(part))


def decode_small(
    payload: bytes | memoryview, spec: TensorSpec, *, max_nbytes: int
) -> Array | None:
    """The array in a whole payload such as `encode_small` makes, by the shortest way.

    None for what is anything else, or wrong in whatever way: a `Decoder` says which.
    """
    try:
        front = bytes(payload[:_SMALL_HEADER_NBYTES])
        end = header_nbytes(front)
        front = front[:end]
        header = _known_header(front)
        frame = parse_frame(payload[end : end + FRAME_NBYTES])
    except (CodecError, struct.error):
        return None
    body = payload[end + FRAME_NBYTES :]
    dtype = DTYPES[header.dtype]
    nbytes = dtype.itemsize * math.prod(header.shape)
    if (
        (header.codec, header.quality, header.fallback) != (RAW.code, 0, False)
        or header.params
        or dtype.kind == "b"  # whose values are checked
        or not 0 < nbytes == len(body) == frame.encoded_nbytes == frame.decoded_nbytes
        or nbytes > min(max_nbytes, BLOCK_NBYTES)
        or not spec.admits(header.dtype, header.shape)
        or frame.checksum != checksum_of(body, header_checksum(front))
    ):
        return None
    return np.frombuffer(body, dtype).reshape(header.shape).copy()


@lru_cache(256)
def _known_header(front: bytes) -> Header:
    """`parse_header`, since most headers have come before."""
    return parse_header(front)


def decode(
    payload: bytes | memoryview,
    spec: TensorSpec,
    *,
    max_nbytes: int,
    codes: PrivateCodes = NO_PRIVATE_CODES,
) -> Array:
    """The array in `payload`, which must be admitted by `spec` and of at most `max_nbytes`.

    Raises CodecError for a payload that is malformed, damaged, cut off, too long or unfit.
    """
    decoder = Decoder(spec, max_nbytes=max_nbytes, codes=codes)
    decoder.feed(payload)
    return decoder.result()
