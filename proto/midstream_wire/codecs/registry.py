"""The codecs by name and by code. Codes are for ever; new codecs get new ones."""

from __future__ import annotations

from dataclasses import replace

from midstream_wire.codecs.affine import Affine
from midstream_wire.codecs.base import Codec
from midstream_wire.codecs.exact import Lossless, Raw
from midstream_wire.codecs.half import Half
from midstream_wire.codecs.pictures import Picture
from midstream_wire.errors import CodecError, UsageError

LOSSLESS = Lossless("lossless", 2, lossless=True)

_DEFAULTS: tuple[Codec, ...] = (
    Raw("raw", 1, lossless=True),
    LOSSLESS,
    Half("half", 3, lossless=False),
    Affine("int8", 4, lossless=False),
    Affine("int8c", 5, lossless=False, per_channel=True),
    Picture("png", 6, lossless=True),
    Picture("jpeg", 7, lossless=False, quality=90),
    Picture("webp", 8, lossless=False, quality=80),
)
_BY_FAMILY = {each.family: each for each in _DEFAULTS}
_BY_CODE = {each.code: each for each in _DEFAULTS}

#: Families, as `codec()` takes them; jpeg and webp may be followed by ":" and a quality.
CODECS: tuple[str, ...] = tuple(_BY_FAMILY)


def codec(id: str) -> Codec:
    """The codec called `id`: a family, or "jpeg:Q" or "webp:Q" with Q from 1 to 100.

    "jpeg" is jpeg:90, "webp" is webp:80. Raises UsageError for anything else.
    """
    family, colon, quality = id.partition(":")
    found = _BY_FAMILY.get(family)
    if found is not None and not colon:
        return found
    # isdecimal() alone would take the digits of every script.
    plain_number = quality.isascii() and quality.isdecimal() and not quality.startswith("0")
    if found is not None and found.quality and plain_number and int(quality[:4]) <= 100:
        return replace(found, quality=int(quality))
    known = ", ".join(f"{each.family}[:1..100]" if each.quality else each.family
                      for each in _DEFAULTS)  # fmt: skip
    raise UsageError(f"a codec must be one of {known} (not {id!r})")


def codec_of(code: int, quality: int) -> Codec:
    """The codec that a header names; raises CodecError if there is none such."""
    found = _BY_CODE.get(code)
    if found is None:
        raise CodecError(f"a payload must use a known codec (not number {code})")
    if not (1 <= quality <= 100 if found.quality else quality == 0):
        raise CodecError(f"codec {found.family} must not be used with quality {quality}")
    return replace(found, quality=quality) if quality != found.quality else found
