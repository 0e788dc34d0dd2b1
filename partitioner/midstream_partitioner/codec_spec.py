"""The codec of a plan: its own name, and that of a transform in front of it."""

from __future__ import annotations

from midstream_wire.codecs import Codec, split_codec
from midstream_wire.codecs import codec as codec_called
from midstream_wire.codecs.base import PRIVATE
from midstream_wire.errors import UsageError


def parse_codec(text: str) -> tuple[str, Codec]:
    """The transform's name ("" = none) and the codec behind it; `UsageError`."""
    transform, name = split_codec(text)
    return transform, codec_called(name)


def family_of(text: str) -> str:
    """Return the family of the codec in `text`, not looked up: "ec" of "klt:16+ec:0.5"."""
    return split_codec(text)[1].partition(":")[0]


def is_known(text: str) -> bool:
    """Return True if this process knows the codec; files may name ones that are not loaded."""
    try:
        parse_codec(text)
    except UsageError:
        return False
    return True


def is_private(text: str) -> bool:
    """Return True if the codec is a user's own, which both sides have to agree on."""
    return parse_codec(text)[1].code == PRIVATE


def full_id(text: str) -> str:
    """`text` with the codec's settings spelled out: "klt:16+ec" is "klt:16+ec:0.5"."""
    transform, kind = parse_codec(text)
    return f"{transform}+{kind.id}" if transform else kind.id


def is_lossless(text: str) -> bool:
    """Return True if every tensor comes out as it went in, bit for bit."""
    transform, kind = parse_codec(text)
    return kind.lossless and not transform


def has_transform(text: str) -> bool:
    """Return True if a transform stands in front of the codec."""
    return bool(split_codec(text)[0])
