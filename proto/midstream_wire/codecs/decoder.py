"""From pieces of bytes to an array, block by block as they arrive."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np

from midstream_wire.codecs.base import Codec, DecodeBlock
from midstream_wire.codecs.exact import Raw, view_block
from midstream_wire.codecs.header import (
    FIXED_NBYTES,
    FRAME_NBYTES,
    Frame,
    Header,
    checksum_of,
    header_checksum,
    header_nbytes,
    parse_frame,
    parse_header,
)
from midstream_wire.codecs.registry import codec_of
from midstream_wire.errors import CodecError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

# No codec makes more of a block than this; pictures of few pixels have their tables.
_SLACK_FACTOR, _SLACK_NBYTES = 2, 4096


@final
class Decoder:
    """Decodes one payload while it arrives. Not thread-safe; decoders are independent.

    Takes only what `spec` admits, of at most `max_nbytes` decoded bytes, and allocates nothing
    for a payload before it has checked that. Memory: the array, plus at most one block.

    With `borrow`, the array of a raw payload of one block is a view of the bytes that were
    fed: it cannot be written to, may be unaligned, and keeps those bytes alive.
    """

    def __init__(self, spec: TensorSpec, *, max_nbytes: int, borrow: bool = False) -> None:
        self._spec = spec
        self._max_nbytes = max_nbytes
        self._borrow = borrow
        self._codec: Codec | None = None
        self._fallback = False
        self._failure: str | None = None
        # The next `_need` bytes are for `_take`; `_held` are those that have come already.
        self._need = FIXED_NBYTES
        # Not bound to self: such a cycle would keep the array until Python looks for cycles.
        self._take: Callable[[Decoder, memoryview], None] = Decoder._take_header
        self._held = bytearray()
        self._front = bytearray()

    @property
    def done(self) -> bool:
        """Whether the payload is complete."""
        return self._need == 0 and self._failure is None

    @property
    def codec_id(self) -> str:
        """The codec the payload was really encoded with; "" until its header has arrived."""
        return self._codec.id if self._codec else ""

    @property
    def fallback(self) -> bool:
        """Whether lossless took the place of the codec that the sender had asked for."""
        return self._fallback

    def feed(self, data: bytes | memoryview) -> None:
        """Decode what these further bytes complete; any division into pieces will do.

        Raises CodecError at the first thing that is wrong, and again on any later call.
        """
        if self._failure is not None:
            raise CodecError(self._failure)
        try:
            self._consume(memoryview(data).cast("B"))
        except CodecError as error:
            self._failure = str(error)
            self._held.clear()
            raise

    def result(self) -> Array:
        """The array, once `done`. Raises CodecError while the payload is incomplete."""
        if self._failure is not None:
            raise CodecError(self._failure)
        if not self.done:
            raise CodecError(
                f"a payload must be complete (tensor {self._spec.name!r} was cut off): "
                "send it again"
            )
        return self._array

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
        codec = codec_of(header.codec, header.quality)
        self._check_tensor(header)
        if not codec.accepts(header.dtype, header.shape):
            raise CodecError(
                f"codec {codec.id} must not be used for {header.dtype} {list(header.shape)}"
            )
        if header.fallback and codec.family != "lossless":
            raise CodecError(f"only lossless must take another codec's place (not {codec.id})")
        self._decode_block: DecodeBlock = codec.resume(
            header.dtype, header.shape, header.params
        )
        self._codec, self._fallback = codec, header.fallback
        self._array = np.empty(header.shape, DTYPES[header.dtype])
        self._flat = self._array.reshape(-1)
        self._step = codec.block_elements(header.dtype, header.shape) if self._flat.size else 0
        self._start = self._index = 0
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
        self._need = FRAME_NBYTES if self._start < self._flat.size else 0
        self._take = Decoder._take_frame

    def _take_frame(self, part: memoryview) -> None:
        frame = parse_frame(part)
        block = self._flat[self._start : self._start + self._step]
        if frame.decoded_nbytes != block.nbytes:
            raise CodecError(
                f"block {self._index} of tensor {self._spec.name!r} must decode to "
                f"{block.nbytes} bytes (not {frame.decoded_nbytes})"
            )
        most = _SLACK_FACTOR * block.nbytes + _SLACK_NBYTES
        if not 1 <= frame.encoded_nbytes <= most:
            raise CodecError(
                f"block {self._index} of tensor {self._spec.name!r} must be 1 to {most} bytes "
                f"long (not {frame.encoded_nbytes})"
            )
        self._frame: Frame = frame
        self._block = block
        self._need = frame.encoded_nbytes
        self._take = Decoder._take_body

    def _take_body(self, part: memoryview) -> None:
        if checksum_of(part, self._checksum) != self._frame.checksum:
            raise CodecError(
                f"block {self._index} of tensor {self._spec.name!r} must match its checksum "
                "and what is in front of it: it was damaged on the way, send it again"
            )
        self._checksum = self._frame.checksum
        whole = self._block.size == self._flat.size
        if self._borrow and whole and isinstance(self._codec, Raw):
            self._array = view_block(part, self._array)
            self._block = self._array.reshape(-1)
        else:
            self._decode_block(part, self._block, self._start)
        if self._block.dtype == bool and self._block.view(np.uint8).max() > 1:
            raise CodecError(f"tensor {self._spec.name!r} must hold booleans of 0 and 1 only")
        self._start += self._block.size
        self._index += 1
        self._expect_frame()


def decode(payload: bytes | memoryview, spec: TensorSpec, *, max_nbytes: int) -> Array:
    """The array in `payload`, which must be admitted by `spec` and of at most `max_nbytes`.

    Raises CodecError for a payload that is malformed, damaged, cut off, too long or unfit.
    """
    decoder = Decoder(spec, max_nbytes=max_nbytes)
    decoder.feed(payload)
    return decoder.result()
