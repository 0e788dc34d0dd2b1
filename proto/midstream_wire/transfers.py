"""Tensors split into frames, and put together again as the frames arrive.

Both directions are lazy, so that encoding, sending, receiving and decoding overlap. Tensors
follow one another in the order of their names; each payload says itself where it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import final

from midstream_wire.codecs import (
    JOIN_NBYTES,
    Decoder,
    codec,
    decode_small,
    encode,
    encode_bytes,
    encode_small,
)
from midstream_wire.codecs.header import MAX_NDIM
from midstream_wire.codecs.private import NO_PRIVATE_CODES, PrivateCodes
from midstream_wire.errors import ProtocolError, TensorError
from midstream_wire.frames import More, Piece, Reply, Request, ServerTimings
from midstream_wire.limits import (
    KIB,
    MAX_NAMES_NBYTES,
    MAX_PIECE_NBYTES,
    MAX_REQUEST_NBYTES,
    MAX_TENSORS,
    MESSAGE_NBYTES,
    MIB,
)
from midstream_wire.tensors import Array, TensorSpec

#: A tensor's encoded bytes, piece by piece, as `codecs.encode` yields them.
Payload = Iterable[bytes | memoryview]


def request_frames(
    id: int,
    first_segment: int,
    payloads: Mapping[str, Payload],
    *,
    budget_s: float = 0.0,
    transform: str = "",
    message_nbytes: int = MESSAGE_NBYTES,
) -> Iterator[Request | More]:
    """The frames of a request; a payload is pulled when the frame it belongs to is.

    A frame is about `message_nbytes` large: over a slow link small frames let a request be
    dropped before all of it has been handed over.
    """
    bundles = _bundles(payloads.values(), message_nbytes)
    pieces = next(bundles, ())
    yield Request(id, first_segment, tuple(payloads), pieces, budget_s, transform)
    for pieces in bundles:
        yield More(id, pieces)


def reply_frames(
    id: int, payloads: Mapping[str, Payload], timings: ServerTimings
) -> Iterator[Reply | More]:
    """The frames of an answer that carries outputs."""
    bundles = _bundles(payloads.values(), MESSAGE_NBYTES)
    yield Reply(id, tensors=tuple(payloads), pieces=next(bundles, ()), timings=timings)
    for pieces in bundles:
        yield More(id, pieces)


def _bundles(payloads: Iterable[Payload], message_nbytes: int) -> Iterator[tuple[Piece, ...]]:
    """Pieces in messages of at least `message_nbytes`, the last one excepted.

    A message leaves as soon as it is large enough, not when the next piece no longer fits:
    that piece would have to be encoded first.
    """
    bundle: list[Piece] = []
    nbytes = 0
    for tensor, payload in enumerate(payloads):
        for data in payload:
            for part in _split(data, message_nbytes):
                bundle.append(Piece(tensor, part))
                nbytes += len(part)
                if nbytes >= message_nbytes:
                    yield tuple(bundle)
                    bundle, nbytes = [], 0
    if bundle:
        yield tuple(bundle)


def _split(data: bytes | memoryview, message_nbytes: int) -> Iterator[bytes | memoryview]:
    """Runs of `data` that a piece may hold; a block fits a message of the usual size whole."""
    most = MAX_PIECE_NBYTES if message_nbytes >= MESSAGE_NBYTES else message_nbytes
    view = memoryview(data).cast("B")
    if view.nbytes <= most:
        yield data if isinstance(data, bytes) else view
        return
    for start in range(0, view.nbytes, most):
        yield view[start : start + most]


def obstacle(
    names: Collection[str], *, ndim: int, nbytes: int, max_nbytes: int = MAX_REQUEST_NBYTES
) -> str | None:
    """Return why no request or reply can carry tensors of these names; None if one can.

    `ndim` is the most dimensions that one has, `nbytes` what all take decoded, `max_nbytes`
    what the receiver takes. The phrase says what came and what is allowed.
    """
    if len(names) > MAX_TENSORS:
        return f"{len(names):,} tensors, {MAX_TENSORS:,} allowed"
    names_nbytes = sum(len(name.encode()) for name in names)
    if names_nbytes > MAX_NAMES_NBYTES:
        return f"{names_nbytes:,} bytes of tensor names, {MAX_NAMES_NBYTES:,} allowed"
    if ndim > MAX_NDIM:
        return f"a tensor of {ndim} dimensions, {MAX_NDIM} allowed"
    if nbytes > max_nbytes:
        return f"{nbytes / MIB:,.1f} MiB of tensors, {max_nbytes / MIB:,g} MiB allowed"
    return None


def check_carried(arrays: Mapping[str, Array], *, max_nbytes: int) -> None:
    """Raise `TensorError` unless one request or reply can carry `arrays`."""
    found = obstacle(
        arrays,
        ndim=max((array.ndim for array in arrays.values()), default=0),
        nbytes=sum(array.nbytes for array in arrays.values()),
        max_nbytes=max_nbytes,
    )
    if found is not None:
        raise TensorError(
            f"a request and its reply must fit the protocol's limits (this one has {found}): "
            "plan another cut, or send less at a time"
        )


#: Outputs below this leave raw: they fit one packet train of TCP's initial window or little
#: more, and compressing them saves less than it costs.
_SMALL_NBYTES = 64 * KIB

#: An output is compressed when a probe of it shrinks to this share. Near 1, the time to
#: compress (300-800 MB/s) outweighs the bytes saved on any link above 100 Mbit/s.
_WORTH = 0.9

_RAW, _LOSSLESS = codec("raw"), codec("lossless")


def encode_output(array: Array) -> list[bytes | memoryview]:
    """The payload of an output: without loss always, compressed where that is worth it."""
    if array.nbytes < _SMALL_NBYTES:
        return [encode_small(array)]
    return list(encode(_LOSSLESS if _shrinks(array) else _RAW, array))


def _shrinks(array: Array) -> bool:
    probe = array.reshape(-1)[: _SMALL_NBYTES // array.itemsize]
    return len(encode_bytes(_LOSSLESS, probe)) < _WORTH * probe.nbytes


@final
class Incoming:
    """The tensors of one request or reply while their pieces arrive.

    `names` is what the peer announced, `specs` what the partition says must come; `max_nbytes`
    bounds the decoded size of all tensors together and is checked before anything of a tensor
    is allocated. `borrow` and `defer` are those of `Decoder`: arrays may be views of the
    pieces; pieces are only kept until `advance` or `result` decodes them, on any thread.
    `codes` says what private codes stand for in the session.
    Raises `ProtocolError` when names or order are wrong, `CodecError` when a payload is, and
    is of no use after that.
    """

    __slots__ = (
        "_borrow",
        "_codes",
        "_current",
        "_decoders",
        "_decoding",
        "_defer",
        "_max_nbytes",
        "_names",
        "_specs",
    )

    def __init__(
        self,
        names: Sequence[str],
        specs: Iterable[TensorSpec],
        *,
        max_nbytes: int,
        borrow: bool = False,
        defer: bool = False,
        codes: PrivateCodes = NO_PRIVATE_CODES,
    ) -> None:
        self._names = tuple(names)
        self._codes = codes
        self._specs = {spec.name: spec for spec in specs}
        if sorted(self._names) != sorted(self._specs):
            raise ProtocolError(
                f"the tensors must be {_listed(self._specs)} (not {_listed(self._names)}): "
                "cut the same partition at the same segment on both sides"
            )
        self._max_nbytes = max_nbytes
        self._borrow = borrow
        self._defer = defer
        self._decoders: list[Decoder | Array] = []  # arrays where it took none
        self._current: Decoder | None = None
        self._decoding = threading.Lock()

    @property
    def done(self) -> bool:
        """Return True if every tensor has arrived whole."""
        return len(self._decoders) == len(self._names) and self._current is None

    @property
    def nbytes(self) -> int:
        """Return how many bytes the tensors take decoded, as far as their headers have
        arrived.
        """
        return sum(decoder.nbytes for decoder in self._decoders)

    @property
    def waiting_nbytes(self) -> int:
        """Return how many bytes are kept to be decoded later."""
        return sum(each.waiting_nbytes for each in self._decoders if isinstance(each, Decoder))

    @property
    def codec_ids(self) -> tuple[str, ...]:
        """The codecs that the tensors came in, as far as their headers have arrived."""
        return tuple(
            each.codec_id if isinstance(each, Decoder) else _RAW.id for each in self._decoders
        )

    def feed(self, piece: Piece) -> None:
        """Take the next piece, and unless that is deferred decode what it completes."""
        decoder = self._current
        at = len(self._decoders) - (decoder is not None)
        if self.done or piece.tensor != at:
            due = "no piece" if self.done else f"a piece of tensor {at}"
            raise ProtocolError(
                f"{due} is due (not of tensor {piece.tensor}): send the pieces of each tensor "
                "in order, and the tensors in the order of their names"
            )
        if decoder is None:
            spec = self._specs[self._names[at]]
            if not self._defer and len(piece.data) <= 2 * JOIN_NBYTES:
                array = decode_small(piece.data, spec, max_nbytes=self._max_nbytes)
                if array is not None:
                    self._max_nbytes -= array.nbytes
                    self._decoders.append(array)
                    return
            decoder = Decoder(
                spec,
                max_nbytes=self._max_nbytes,
                borrow=self._borrow,
                defer=self._defer,
                codes=self._codes,
            )
            self._current = decoder
            self._decoders.append(decoder)
        decoder.feed(piece.data)
        if decoder.done:
            self._max_nbytes -= decoder.nbytes
            self._current = None

    def advance(self) -> None:
        """Decode what has arrived. One thread may do so while another one feeds."""
        with self._decoding:
            for each in tuple(self._decoders):
                if isinstance(each, Decoder):
                    each.advance()

    def drop(self) -> None:
        """Forget all that has come; it is of no use after that."""
        self._decoders = []

    def result(self, decode: Callable[[Decoder], Array] = Decoder.result) -> dict[str, Array]:
        """The tensors by name, got by `decode`; `ProtocolError` unless `done`."""
        if not self.done:
            whole = len(self._decoders) - (self._current is not None)
            raise ProtocolError(
                f"every tensor must come whole ({whole} of {len(self._names)} did): send the "
                "rest of their pieces"
            )
        with self._decoding:
            arrays = [
                decode(each) if isinstance(each, Decoder) else each for each in self._decoders
            ]
        return dict(zip(self._names, arrays, strict=True))


def _listed(names: Iterable[str]) -> str:
    """Names in an error: enough of them to recognise, however many the peer sent."""
    shown = [repr(name[:64]) for name in names]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (", ".join(shown[:4]) or "none") + more
