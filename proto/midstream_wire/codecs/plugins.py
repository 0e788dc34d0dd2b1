"""The codecs of users' own that this process has loaded, because its user said so.

Nothing that comes from a peer or from a file loads one: their names are only looked up.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from midstream_wire.codecs.base import Codec
from midstream_wire.codecs.private import Guarded, PrivateCodes
from midstream_wire.errors import UsageError
from midstream_wire.foreign_text import one_line
from midstream_wire.frames import CodecAnswer, CodecName
from midstream_wire.limits import MAX_CODEC_NAMES, MAX_REASON_CHARS

#: Makes a codec of a user's own with a setting; "" means the default one.
MakeCodec = Callable[[str], Codec]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A family of codecs of a user's own: what makes them, and the default one."""

    make: MakeCodec
    default: Guarded

    @property
    def name(self) -> CodecName:
        """Name and version, on which both sides must agree."""
        return CodecName(self.default.family, self.default.version)

    def with_setting(self, setting: str) -> Guarded:
        """Return the codec with `setting`; raises UsageError where it has none such."""
        made = _made(self.make, setting)
        had = self.default
        if (made.family, made.version, made.lossless) != (
            had.family,
            had.version,
            had.lossless,
        ):
            raise UsageError(
                f"the codec {had.family} must keep its family, version and loss with every "
                f"setting (not {made.family} {made.version} with {setting!r})"
            )
        return made


_LOCK = threading.Lock()
#: By family, in the order of loading, which only grows: so codes stay what they were.
_LOADED: dict[str, Plugin] = {}


def add(make: MakeCodec, *, taken: Iterable[str]) -> Plugin:
    """Load a family of codecs; the same one again changes nothing.

    Raises UsageError for what is no codec, for a family that is `taken`, and beyond
    `MAX_CODEC_NAMES` of them.
    """
    made = Plugin(make, _made(make, ""))
    family = made.default.family
    with _LOCK:
        known = _LOADED.get(family)
        if known is not None and known.make == make:
            return known
        if known is not None or family in taken:
            raise UsageError(
                f"a codec of your own must have a family of its own, and {family!r} is taken: "
                "give it another name"
            )
        if len(_LOADED) >= MAX_CODEC_NAMES:
            raise UsageError(
                f"at most {MAX_CODEC_NAMES} codecs of your own may be loaded: load those that "
                "are used"
            )
        _LOADED[family] = made
    return made


def loaded() -> tuple[Plugin, ...]:
    """Return the families that this process has loaded, in the order of loading."""
    return tuple(_LOADED.values())


def plugin_called(family: str) -> Plugin | None:
    """Return the family of that name, if it is loaded."""
    return _LOADED.get(family)


def loaded_names() -> tuple[CodecName, ...]:
    """Return all that are loaded, by name and version, as a Hello names them."""
    return tuple(plugin.name for plugin in loaded())


def loaded_codes() -> PrivateCodes:
    """Return private codes as a Hello with `loaded_names` gives them."""
    return PrivateCodes(tuple(plugin.default for plugin in loaded()))


def codes_for(names: Iterable[CodecName]) -> PrivateCodes:
    """Resolve private codes as a peer's Hello with `names` gives them."""
    return PrivateCodes(tuple(map(_resolved, names)))


def answers_of(names: Sequence[CodecName], codes: PrivateCodes) -> tuple[CodecAnswer, ...]:
    """Return the Welcome's answers to a Hello that named `names`, resolved to `codes`."""
    return tuple(
        CodecAnswer(asked.name, one_line(entry, chars=MAX_REASON_CHARS))
        if isinstance(entry, str)
        else CodecAnswer(asked.name)
        for asked, entry in zip(names, codes.entries, strict=True)
    )


def refused_by(held: Iterable[CodecName]) -> tuple[tuple[str, str], ...]:
    """Return the loaded families that a server with `held` does not take, and why so."""
    held = tuple(held)
    found = ((name.name, _objection(name, held)) for name in loaded_names())
    return tuple((family, why) for family, why in found if why)


def _resolved(asked: CodecName) -> Guarded | str:
    plugin = plugin_called(asked.name)
    if plugin is None:
        return _objection(asked, ())
    return _objection(asked, (plugin.name,)) or plugin.default


def _objection(asked: CodecName, held: Iterable[CodecName]) -> str:
    """Return why a server with `held` does not take the codec `asked`; "" if it does."""
    versions = [each.version for each in held if each.name == asked.name]
    if not versions:
        return (
            f"the codec {asked.name} must be loaded on the server, and is not: start the "
            "server with --codec-plugin, or plan without it"
        )
    if asked.version not in versions:
        return (
            f"the codec {asked.name} must be of one version on both sides (the server has "
            f"{versions[0]}, the edge {asked.version}): install the same one"
        )
    return ""


def _made(make: MakeCodec, setting: str) -> Guarded:
    named = getattr(make, "__qualname__", type(make).__name__)
    try:
        return Guarded.of(make(setting))
    except UsageError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise UsageError(
            f"{named}({setting!r}) must return a codec, and raised "
            f"{type(error).__name__}: {error}"
        ) from error


#: Names of placements are parsed for every request.
setting_of = functools.lru_cache(256)(Plugin.with_setting)
