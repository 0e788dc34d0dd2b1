"""Arrays and payloads to test codecs with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from midstream_wire.codecs import Codec, decode, encode_bytes
from midstream_wire.codecs.header import Header, frame_of, header_checksum
from midstream_wire.tensors import Array, TensorSpec

Forge = Callable[..., bytes]
RoundTrip = Callable[[Codec, Array], Array]


def spec_of(array: np.ndarray[Any, Any]) -> TensorSpec:
    return TensorSpec("x", array.dtype.name, array.shape)


@pytest.fixture(scope="session")
def spec_for() -> Callable[[Array], TensorSpec]:
    return spec_of


@pytest.fixture(scope="session")
def round_trip() -> RoundTrip:
    """Encode and decode, under the array's own spec and size."""

    def go(codec: Codec, array: Array) -> Array:
        payload = encode_bytes(codec, array)
        return decode(payload, spec_of(array), max_nbytes=array.nbytes)

    return go


@pytest.fixture(scope="session")
def forge() -> Forge:
    """A payload with right checksums around whatever header and bodies a peer may send."""

    def go(header: Header, *bodies: tuple[bytes, int]) -> bytes:
        parts: list[bytes] = [header.pack()]
        checksum = header_checksum(parts[0])
        for body, decoded_nbytes in bodies:
            frame = frame_of([body], decoded_nbytes=decoded_nbytes, seed=checksum)
            checksum = frame.checksum
            parts += [frame.pack(), body]
        return b"".join(parts)

    return go


@pytest.fixture(scope="session")
def relu() -> Callable[[Sequence[int]], Array]:
    """Seeded activations as after a ReLU: half of them zero."""

    def go(shape: Sequence[int]) -> Array:
        normal = np.random.default_rng(7).standard_normal(tuple(shape), np.float32)
        return np.maximum(normal, 0)

    return go


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int], Array]:
    """A seeded smooth picture [H, W, 3] with some noise, so that it has something to code."""

    def go(height: int, width: int) -> Array:
        y, x = np.mgrid[0:height, 0:width]
        noise = np.random.default_rng(7).integers(0, 16, (height, width, 3))
        waves = [100 + 90 * np.sin(y / 17 + k) * np.cos(x / (11 + k)) for k in range(3)]
        return (np.stack(waves, axis=-1) + noise).astype(np.uint8)

    return go
