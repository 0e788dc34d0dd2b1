"""Crossing of a cut as in a session: through a transform, through a codec, and back.

A plan's codec is "half", or with a transform of the cut in front "klt:16+half". Everything
that measures or checks a codec goes through here, so that all speak of the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from midstream_partitioner.codec_spec import parse_codec
from midstream_wire.codecs import decode, encode_bytes, split_codec
from midstream_wire.codecs.plugins import loaded_codes
from midstream_wire.errors import TensorError
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array

if TYPE_CHECKING:  # planning reads the names of codecs, and knows no runtime
    from midstream_partitioner.execution.chain import Chain, State


@final
@dataclass(frozen=True, slots=True)
class Crossing:
    """Payloads by tensor, and the codec that they went through after all."""

    codec: str
    payloads: Mapping[str, bytes]

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads together."""
        return sum(map(len, self.payloads.values()))


def transform_crossing(
    chain: Chain, k: int, codec: str, state: State
) -> tuple[str, dict[str, Array]]:
    """Return what of `state` travels over cut `k`, before the codec; and the codec to be used.

    That is `codec`, without its transform where something is not finite: that travels as it
    is, and without loss. Raises `UsageError` for a transform that the cut does not have.
    """
    transform, kind = parse_codec(codec)
    try:
        return codec, chain.transform(k, transform).encode(state)
    except TensorError:
        if not transform:
            raise
        return kind.id, chain.transform(k, "").encode(state)


def encode_crossing(chain: Chain, k: int, codec: str, state: State) -> Crossing:
    """Return what of `state` crosses cut `k`, as the edge sends it. Raises `UsageError`.

    Tensors that the codec does not take travel without loss beside the others.
    """
    used, travelling = transform_crossing(chain, k, codec, state)
    _, kind = parse_codec(used)
    codes = loaded_codes()
    return Crossing(
        used,
        {name: encode_bytes(kind, a, codes=codes) for name, a in travelling.items()},
    )


def decode_crossing(
    chain: Chain, k: int, crossing: Crossing, *, max_nbytes: int = MAX_REQUEST_NBYTES
) -> dict[str, Array]:
    """Return what the cloud gets: the tensors that cross cut `k`.

    `max_nbytes` bounds each tensor's decoded size. Raises `CodecError`.
    """
    adapter = chain.transform(k, split_codec(crossing.codec)[0])
    codes = loaded_codes()
    received = {
        spec.name: decode(
            crossing.payloads[spec.name], spec, max_nbytes=max_nbytes, codes=codes
        )
        for spec in adapter.specs
    }
    return adapter.decode(received)
