"""The codecs by name and by code. Codes are for ever; new codecs get new ones."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from midstream_wire.codecs import avif, plugins
from midstream_wire.codecs.affine import Affine
from midstream_wire.codecs.base import Codec
from midstream_wire.codecs.context import Context
from midstream_wire.codecs.deadzone import MAX_DIAL, MAX_TARGET_NBYTES, MIN_DIAL, DeadZone
from midstream_wire.codecs.exact import Lossless, Raw
from midstream_wire.codecs.half import Half
from midstream_wire.codecs.header import FIRST_PRIVATE
from midstream_wire.codecs.pictures import Picture
from midstream_wire.codecs.private import NO_PRIVATE_CODES, PrivateCodes
from midstream_wire.errors import CodecError, UsageError

RAW = Raw("raw", 1, lossless=True)
LOSSLESS = Lossless("lossless", 2, lossless=True)

_DEFAULTS: tuple[Codec, ...] = (
    RAW,
    LOSSLESS,
    Half("half", 3, lossless=False),
    Affine("int8", 4, lossless=False),
    Affine("int8c", 5, lossless=False, per_channel=True),
    DeadZone("ec", 9, lossless=False),
    DeadZone("ecc", 10, lossless=False, per_channel=True),
    Context("ctx", 11, lossless=False),
    Picture("png", 6, lossless=True),
    Picture("jpeg", 7, lossless=False, quality=90),
    Picture("webp", 8, lossless=False, quality=80),
    Picture("avif", 12, lossless=False, quality=80),
)
_BY_FAMILY = {each.family: each for each in _DEFAULTS}
# Of ec, ecc and ctx, payloads tell the step, not D.
_BY_CODE = {
    each.code: replace(each, dial=0.0) if isinstance(each, (DeadZone, Context)) else each
    for each in _DEFAULTS
}

# Plain ASCII decimals; isdecimal() and float() would take the digits of every script.
_QUALITY = re.compile(r"[1-9][0-9]?|100", re.ASCII)
_DIAL = re.compile(r"(0|[1-9][0-9]?)(\.[0-9]{1,4})?", re.ASCII)
_TARGET = re.compile(r"([1-9][0-9]{0,9})(B|KB|MB|KiB|MiB)?", re.ASCII)
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KiB": 1 << 10, "MiB": 1 << 20}

#: Families, as `codec()` takes them; most lossy ones may be followed by ":" and a setting.
CODECS: tuple[str, ...] = tuple(_BY_FAMILY)


def usable() -> tuple[str, ...]:
    """Return those of `CODECS` that this process can use."""
    return tuple(each.family for each in _DEFAULTS if not _lack(each))


def unread_by(read: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the usable families that are not among `read`, a server's, and why not."""
    why = (
        "the codec {} must be one that the server reads, and is not: run the same release "
        "there, for avif with a Pillow that has AVIF, or plan without it"
    )
    return tuple((family, why.format(family)) for family in usable() if family not in read)


def _lack(found: Codec) -> str:
    """Return why this process cannot use a codec of ours; "" if it can."""
    if found.family != "avif" or avif.available():
        return ""
    return "the codec avif needs a Pillow with AVIF: install pillow from PyPI, or name another"


def codec(id: str) -> Codec:
    """The codec called `id`: a family, or one of these with a setting.

    "jpeg:Q", "webp:Q" and "avif:Q" with a quality from 1 to 100 ("jpeg" is jpeg:90, "webp"
    webp:80, "avif" avif:80, where Pillow has AVIF);
    "ec:D", "ecc:D" and "ctx:D" with the step in standard deviations, 0.01 to 16 ("ec" is
    ec:0.5);
    "ec@NBYTES" with the size that a payload may have, as in ec@16KB; codecs of a user's own
    that are loaded, "mine" or "mine:SETTING". Raises UsageError for anything else.
    """
    family = re.split("[:@]", id, maxsplit=1)[0]
    mark, setting = id[len(family) :][:1], id[len(family) + 1 :]
    found = _BY_FAMILY.get(family)
    if found is not None:
        changed = found if not mark else _with(found, mark, setting)
        lack = _lack(found)
        if lack:
            raise UsageError(lack)
        if changed is not None:
            return changed
    plugin = plugins.plugin_called(family)
    if plugin is not None and (setting if mark == ":" else not mark):
        return plugins.setting_of(plugin, setting)
    own = [f"{each.name.name}[:...]" for each in plugins.loaded()]
    known = ", ".join([*map(_usage, _DEFAULTS), *own])
    raise UsageError(
        f"a codec must be one of {known} (not {id!r}); a codec of your own is loaded with "
        "--codec-plugin"
    )


def load_codec(make: plugins.MakeCodec) -> Codec:
    """Load a family of codecs of a user's own for this process; return it with its default
    setting.

    `make(setting)` returns a codec; "" means the default setting. From then on `codec` knows
    its name, sessions that begin offer it, and servers take it. Raises UsageError for what is
    no codec, and for a family that is taken.
    """
    return plugins.add(make, taken=CODECS).default


def split_codec(id: str) -> tuple[str, str]:
    """(transform, codec) of a plan's codec: "klt:16+ec:0.5" is ("klt:16", "ec:0.5").

    The transform is "" where there is none. Neither is looked up.
    """
    transform, _, name = id.rpartition("+")
    return transform, name


def _with(found: Codec, mark: str, setting: str) -> Codec | None:
    """`found` with this setting; None where it has none such."""
    if isinstance(found, (DeadZone, Context)) and mark == ":" and _DIAL.fullmatch(setting):
        dial = float(setting)
        return replace(found, dial=dial) if MIN_DIAL <= dial <= MAX_DIAL else None
    if isinstance(found, DeadZone):
        target = _TARGET.fullmatch(setting) if mark == "@" and not found.per_channel else None
        if target is None:
            return None
        nbytes = int(target[1]) * _UNITS[target[2] or ""]
        return replace(found, target_nbytes=nbytes) if nbytes <= MAX_TARGET_NBYTES else None
    if found.quality and mark == ":" and _QUALITY.fullmatch(setting):
        return replace(found, quality=int(setting))
    return None


def _usage(codec: Codec) -> str:
    if isinstance(codec, (DeadZone, Context)):
        dials = f"{codec.family}[:{MIN_DIAL:g}..{MAX_DIAL:g}]"
        return f"{dials}, {codec.family}@NBYTES" if codec.family == "ec" else dials
    return f"{codec.family}[:1..100]" if codec.quality else codec.family


def codec_of(code: int, quality: int, codes: PrivateCodes = NO_PRIVATE_CODES) -> Codec:
    """The codec that a header names; raises CodecError if there is none such.

    Of ec, ecc and ctx, without D: the header has the step itself. `codes` says what private
    codes stand for.
    """
    found = codes.codec_of(code) if code >= FIRST_PRIVATE else _BY_CODE.get(code)
    if found is None:
        raise CodecError(f"a payload must use a known codec (not number {code})")
    if not (1 <= quality <= 100 if found.quality else quality == 0):
        raise CodecError(f"codec {found.family} must not be used with quality {quality}")
    lack = _lack(found)
    if lack:
        raise CodecError(lack)
    return replace(found, quality=quality) if quality != found.quality else found
