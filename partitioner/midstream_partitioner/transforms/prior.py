"""Planes of numbers in few bits: coded by what a calibration has taught about them.

Activations are quantized with one step, and coded in five passes over the lattices of a plane:

    A E C E      A: every fourth row and column     D: between the four of A, B and C around
    E D E D      B: midway between those of A       E: the rest
    C E B E      C: the rest of every second
    E D E D

What the passes before have told around an element, in every channel, predicts its magnitude:
a product with weights that were fitted to samples. The prediction parts the elements into
classes, and every class has its own frequencies of magnitudes, fitted as well. The codec ctx
looks at four neighbours in the element's own channel, makes codes for each payload, and needs
no samples.

Predictions are sums of products of whole numbers below 2**53, so both sides agree on them.

    packed = size u32 (for each open dimension)  delta i8  symbols  escapes  signs  zeros

Symbols, pass after pass, are coded as `midstream_wire.codecs.rans` does; escapes are what the
magnitudes from ESCAPE on exceed it by, plus 1, in the gamma code. `delta` (in 256ths of a
step) is taken from each magnitude, so that their sum stays.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from midstream_partitioner.partition.transform import EXPANSION
from midstream_partitioner.transforms.context_model import (
    ESCAPE,
    MARGIN,
    MOST_TOLD,
    PASSES,
    Expectation,
    Floats,
    Lattice,
    Neighbours,
    framed,
    read_expectation,
)
from midstream_partitioner.transforms.noise_shaping import Metric, metric_of
from midstream_wire.codecs.bits import BitReader, gamma_words, write_bits
from midstream_wire.codecs.interlace import MAX_MAGNITUDE
from midstream_wire.codecs.rans import SymbolReader, encode_symbols
from midstream_wire.errors import CodecError, ModelError, TensorError
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import DTYPES, Array, TensorSpec

#: Neighbours of so many channels are weighed; twice as many would take four times as long.
MAX_CHANNELS = 128
#: Planes have at least so many rows and columns; narrower ones are mostly edge.
MIN_SIDE = 4
_UNIT = 256  # delta counts in 256ths of a step
_MAGIC = b"prior1"
_FRONT = struct.Struct("<6sHfB")
_SIZE = struct.Struct("<I")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """A prior to pack tensors [N, C, H, W] of one kind: the step, and each pass.

    With a `metric`, numbers are not the nearest ones, but those that the next layers notice
    least. Only packing needs it.
    """

    channels: int
    step: float
    signed: bool
    passes: tuple[Expectation, ...]
    metric: Metric | None = None

    def pack(self, array: Array, spec: TensorSpec) -> Array:
        """`array`, which `spec` admits, as bytes: uint8 [nbytes].

        Raises `TensorError` for what has no such form: NaN, infinities, negative numbers where
        there were none before, magnitudes of more than 65,000 steps, planes too narrow.
        """
        if array.shape[1] != self.channels:
            raise _unfit(spec, f"has {array.shape[1]} channels (not {self.channels})")
        planes = np.moveaxis(array, 1, 0).astype(np.float32)
        if min(array.shape[2:]) < MIN_SIDE or not planes.size:
            raise _unfit(spec, f"has no planes of {MIN_SIDE} x {MIN_SIDE}")
        scaled = planes / np.float32(self.step)
        if not np.abs(scaled).max() < MAX_MAGNITUDE:
            raise _unfit(spec, "is not finite, or far greater than what it was fitted to")
        if not self.signed and planes.min() < 0:
            raise _unfit(spec, "is negative, unlike what it was fitted to")
        numbers, delta = self.quantize(scaled)
        magnitudes = np.minimum(np.abs(numbers), MAX_MAGNITUDE).astype(np.int32)
        front = b"".join(_SIZE.pack(size) for size in _open_sizes(spec, array.shape))
        front += struct.pack("<b", delta)
        signs = b""
        if self.signed:
            signs = np.packbits((numbers < 0)[magnitudes > 0]).tobytes()
        body = b"".join((front, *self._coded(magnitudes), signs))
        least = -(-4 * array.size // EXPANSION)
        return np.frombuffer(body.ljust(least, b"\0"), np.uint8)

    def quantize(self, scaled: Floats) -> tuple[Floats, int]:
        """(whole numbers for `scaled` [C, N, H, W], which is in steps; delta)"""
        if self.metric is not None:
            return self.metric.shape(scaled, signed=self.signed), 0
        magnitudes = np.abs(scaled)
        rounded = np.floor(magnitudes + np.float32(0.5))
        excess = float((rounded - magnitudes).sum(dtype=np.float64))
        delta = round(_UNIT * excess / max(1, int(np.count_nonzero(rounded))))
        return np.copysign(rounded, scaled), max(-128, min(127, delta))

    def unpack(self, packed: Array, spec: TensorSpec) -> Array:
        """Return what `pack` was given, to rounding. Raises `CodecError`."""
        data = np.ascontiguousarray(packed).data.cast("B")
        shape, data = _read_shape(data, spec, packed_nbytes=packed.size)
        if shape[1] != self.channels:
            raise CodecError(
                f"{spec.name!r} must have {self.channels} channels (not {shape[1]})"
            )
        delta = struct.unpack_from("<b", data)[0] / _UNIT
        magnitudes = np.zeros((shape[1], shape[0], *shape[2:]), np.int32)
        rest = self._decode(data[1:], magnitudes)
        values = (magnitudes - np.float32(delta)) * np.float32(self.step)
        values[magnitudes == 0] = 0
        if self.signed:
            _put_signs(values, magnitudes, rest)
        restored = np.ascontiguousarray(np.moveaxis(values, 0, 1))
        return restored.astype(DTYPES[spec.dtype], copy=False)

    def _coded(self, magnitudes: Array) -> Iterator[bytes]:
        """Symbols and escapes of `magnitudes` [C, N, H, W]."""
        known = framed(magnitudes)
        frequencies, starts, beyond = [], [], []
        for expectation, (lattices, around) in zip(self.passes, PASSES, strict=True):
            classes = self._classes(expectation, known, lattices, around)
            values = np.concatenate([each.of(magnitudes).reshape(-1) for each in lattices])
            table = expectation.frequencies.astype(np.int64)
            places = classes, np.minimum(values, ESCAPE)
            frequencies.append(table[places])
            starts.append((np.cumsum(table, axis=1) - table)[places])
            beyond.append(values[values >= ESCAPE] - (ESCAPE - 1))
        coded = (np.concatenate(each).tolist() for each in (frequencies, starts))
        yield encode_symbols(*coded)
        escapes = np.concatenate(beyond)
        if escapes.size:
            yield write_bits(*gamma_words(escapes))

    def _decode(self, data: memoryview, magnitudes: Array) -> memoryview:
        """Fill in `magnitudes` [C, N, H, W]; returns what follows them."""
        known = framed(magnitudes)
        reader = SymbolReader(data)
        for expectation, (lattices, around) in zip(self.passes, PASSES, strict=True):
            classes = self._classes(expectation, known, lattices, around)
            found = reader.read(map(expectation.tables.__getitem__, classes.tolist()))
            start = 0
            for lattice in lattices:
                into = lattice.of(magnitudes)
                into[...] = found[start : start + into.size].reshape(into.shape)
                start += into.size
                lattice.of(known, margin=MARGIN)[...] = np.minimum(into, MOST_TOLD)
        reader.finish()
        return _read_escapes(data[reader.nbytes :], magnitudes)

    def _classes(
        self,
        expectation: Expectation,
        known: Floats,
        lattices: Sequence[Lattice],
        around: Neighbours,
    ) -> NDArray[np.uint8]:
        found = [expectation.predict(known, each, around).reshape(-1) for each in lattices]
        return expectation.classes(np.concatenate(found))

    def encoder(self) -> bytes:
        """Return what `prior_of` reads, for packing."""
        return self.to_bytes() + (b"" if self.metric is None else self.metric.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what `prior_of` reads, for unpacking: numbers are little-endian, pass after
        pass.
        """
        parts = [_FRONT.pack(_MAGIC, self.channels, self.step, self.signed)]
        for each in self.passes:
            parts += [
                struct.pack("<B", len(each.frequencies)),
                each.weights.astype(np.int8).tobytes(),
                each.bias.astype("<i4").tobytes(),
                each.edges.astype("<i4").tobytes(),
                each.frequencies.astype("<u2").tobytes(),
            ]
        return b"".join(parts)


def prior_of(data: bytes) -> Prior:
    """Return what `Prior.encoder` or `Prior.to_bytes` wrote; `ModelError` if it is neither."""
    try:
        magic, channels, step, signed = _FRONT.unpack_from(data)
        rest = memoryview(data)[_FRONT.size :]
        found = []
        for _, around in PASSES:
            expectation, rest = read_expectation(rest, channels, len(around))
            found.append(expectation)
    except (struct.error, ValueError, IndexError):
        raise _damaged("it ends too early") from None
    if magic != _MAGIC or signed > 1 or not 1 <= channels <= MAX_CHANNELS:
        raise _damaged("it is none")
    if not 2.0**-60 <= step <= 2.0**90:
        raise _damaged(f"its step is {step}")
    metric = metric_of(rest, channels) if len(rest) else None
    return Prior(channels, step, bool(signed), tuple(found), metric)


def _damaged(reason: str) -> ModelError:
    return ModelError(
        f"a prior must be as `midstream calibrate` writes it ({reason}): write it again"
    )


def _unfit(spec: TensorSpec, reason: str) -> TensorError:
    return TensorError(f"{spec.name!r} {reason}: send it as it is")


def _open_sizes(spec: TensorSpec, shape: tuple[int, ...]) -> Iterator[int]:
    for size, declared in zip(shape, spec.shape, strict=True):
        if not isinstance(declared, int):
            yield size


def _read_shape(
    data: memoryview, spec: TensorSpec, *, packed_nbytes: int
) -> tuple[tuple[int, ...], memoryview]:
    """(the shape of what is packed, what follows it): of a size that the bytes warrant."""
    missing = sum(not isinstance(size, int) for size in spec.shape)
    if len(data) < missing * _SIZE.size + 1:
        raise CodecError(f"{spec.name!r} must be packed in more bytes (not {len(data)})")
    sizes = iter([_SIZE.unpack_from(data, at * _SIZE.size)[0] for at in range(missing)])
    shape = tuple(size if isinstance(size, int) else next(sizes) for size in spec.shape)
    nbytes = 4 * math.prod(shape)
    if min(shape[2:]) < MIN_SIDE or not 0 < nbytes <= EXPANSION * packed_nbytes:
        raise CodecError(
            f"{spec.name!r} must have planes of {MIN_SIDE} x {MIN_SIDE} and a byte for each "
            f"{EXPANSION} of float32 (not {list(shape)} in {packed_nbytes})"
        )
    if nbytes > MAX_REQUEST_NBYTES:
        raise CodecError(
            f"{spec.name!r} must be at most {MAX_REQUEST_NBYTES} bytes (not {nbytes})"
        )
    return shape, data[missing * _SIZE.size :]


def _read_escapes(data: memoryview, magnitudes: Array) -> memoryview:
    """Add to each ESCAPE in `magnitudes` what it is exceeded by; returns what follows."""
    count = int(np.count_nonzero(magnitudes == ESCAPE))
    if not count:
        return data
    reader = BitReader(data)
    beyond = reader.gammas(count).astype(np.int32) - 1
    for each in (lattice.of(magnitudes) for lattices, _ in PASSES for lattice in lattices):
        escaped = each == ESCAPE
        some, beyond = np.split(beyond, [np.count_nonzero(escaped)])
        each[escaped] += some
    return data[reader.nbytes :]


def _put_signs(values: Floats, magnitudes: Array, bits: memoryview) -> None:
    places = np.flatnonzero(magnitudes)
    due = (places.size + 7) // 8
    if len(bits) < due:
        raise CodecError(f"{places.size} signs must be {due} bytes (not {len(bits)})")
    if due:
        set_bits = np.unpackbits(np.frombuffer(bits, np.uint8, due), count=places.size)
        negative = places[set_bits.view(bool)]
        flat = values.reshape(-1)
        flat[negative] = -flat[negative]
