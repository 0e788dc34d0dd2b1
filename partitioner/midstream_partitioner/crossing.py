"""What crosses a cut, as it does in a session: through a transform, through a codec, and back.

A plan's codec is "half", or with a transform of the cut in front "klt:16+half". Everything
that measures or checks a codec goes through here, so that all speak of the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping

from midstream_partitioner.chain import Chain, State
from midstream_wire.codecs import Codec, decode, encode_bytes
from midstream_wire.codecs import codec as codec_called
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array


def parse_codec(text: str) -> tuple[str, Codec]:
    """The transform's name ("" = none) and the codec behind it; `UsageError`."""
    transform, _, name = text.rpartition("+")
    return transform, codec_called(name)


def full_id(text: str) -> str:
    """`text` with the codec's settings spelled out: "klt:16+ec" is "klt:16+ec:0.5"."""
    transform, kind = parse_codec(text)
    return f"{transform}+{kind.id}" if transform else kind.id


def is_lossless(text: str) -> bool:
    """Whether every tensor comes out as it went in, bit for bit."""
    transform, kind = parse_codec(text)
    return kind.lossless and not transform


def encode_crossing(chain: Chain, k: int, codec: str, state: State) -> dict[str, bytes]:
    """The payloads of what crosses cut `k` in `state`, by tensor.

    Raises `UsageError` for an unknown codec or a transform that the cut does not have, and
    `TensorError` for a NaN or an infinity under a transform.
    """
    transform, kind = parse_codec(codec)
    travelling = chain.transform(k, transform).encode(state)
    return {name: encode_bytes(kind, array) for name, array in travelling.items()}


def decode_crossing(
    chain: Chain,
    k: int,
    codec: str,
    payloads: Mapping[str, bytes],
    *,
    max_nbytes: int = MAX_REQUEST_NBYTES,
) -> dict[str, Array]:
    """What the cloud gets of such payloads: the tensors that cross cut `k`.

    `max_nbytes` bounds each tensor's decoded size. Raises `CodecError` and `UsageError`.
    """
    adapter = chain.transform(k, parse_codec(codec)[0])
    received = {
        spec.name: decode(payloads[spec.name], spec, max_nbytes=max_nbytes)
        for spec in adapter.specs
    }
    return adapter.decode(received)
