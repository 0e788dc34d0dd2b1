"""Codecs of users' own, kept within bounds, and the codes that a session gives them."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, final

from midstream_wire.codecs.base import PRIVATE, Codec, DecodeBlock, Encoding
from midstream_wire.codecs.header import FIRST_PRIVATE, MAX_PARAMS_NBYTES
from midstream_wire.errors import CodecError, UsageError
from midstream_wire.tensors import Array

_LOG = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_FAMILY = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_SETTING = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)


@final
@dataclass(frozen=True, slots=True)
class Guarded(Codec):
    """A codec of a user's own, `own`, that cannot do more than fail.

    Whatever it raises becomes one CodecError that names it, but for MemoryError. It fills
    arrays that are there and hold zeros, so it can neither return another size than was
    declared nor show what lay in memory before.
    """

    own: Codec = field(kw_only=True)

    @classmethod
    def of(cls, own: object) -> Guarded:
        """Return `own`, guarded; `UsageError` for what is no codec of a user's own."""
        if not isinstance(own, Codec):
            raise UsageError(
                "a codec of your own must derive from midstream.Codec "
                f"(not {type(own).__name__}): docs/how-to/write-a-codec.md has one"
            )
        _require(own)
        return cls(own.family, lossless=own.lossless, version=own.version, own=own)

    @property
    def id(self) -> str:
        return self.own.id

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return bool(self._call(self.own.accepts, dtype, shape))

    def error_bound(self, array: Array) -> float | None:
        return self._call(self.own.error_bound, array)

    def begin(self, array: Array) -> Encoding | None:
        encoding = self._call(self.own.begin, array)
        if encoding is None:
            return None
        params = getattr(encoding, "params", None)
        if not isinstance(encoding, Encoding) or not isinstance(params, bytes):
            raise CodecError(f"codec {self.id} must begin with an Encoding, or None: mend it")
        if len(params) > MAX_PARAMS_NBYTES:
            raise CodecError(
                f"codec {self.id} must have at most {MAX_PARAMS_NBYTES} bytes of parameters "
                f"(not {len(params)}): mend it"
            )
        return Encoding(params, functools.partial(self._encode, encoding))

    def resume(self, dtype: str, shape: tuple[int, ...], params: bytes) -> DecodeBlock:
        # Not before a block is decoded: what parses headers must not wait for it.
        decode_block: DecodeBlock | None = None

        def guarded(body: memoryview, out: Array, start: int) -> None:
            nonlocal decode_block
            if decode_block is None:
                decode_block = self._call(self.own.resume, dtype, shape, params)
            out.fill(0)
            self._call(decode_block, body, out, start)

        return guarded

    def _encode(
        self, encoding: Encoding, block: Array, start: int
    ) -> Sequence[bytes | memoryview]:
        made = self._call(encoding.encode_block, block, start)
        if not isinstance(made, list | tuple) or not all(
            isinstance(part, bytes | memoryview) for part in made
        ):
            raise CodecError(f"codec {self.id} must make a list of bytes of a block: mend it")
        # Lengths count bytes from here on, whatever a view's elements are.
        return [part.cast("B") if isinstance(part, memoryview) else part for part in made] or [
            b""
        ]

    def _call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        try:
            return function(*arguments)
        except (CodecError, MemoryError):
            raise
        except Exception as error:  # its text may tell a peer of this machine
            _LOG.debug("codec %s failed", self.family, exc_info=True)
            raise CodecError(
                f"codec {self.family} must not fail over a tensor, and raised "
                f"{type(error).__name__}: mend it, or send what it takes"
            ) from error


def _require(own: Codec) -> None:
    """Raise `UsageError` where the names of a codec are none, or would not travel."""
    named = isinstance(own.family, str) and _FAMILY.fullmatch(own.family)
    if not named:
        raise UsageError(
            "the family of a codec must be 1 to 32 of a-z, 0-9, _ and -, a letter first "
            f"(not {own.family!r})"
        )
    if not isinstance(own.version, str) or not _VERSION.fullmatch(own.version):
        raise UsageError(
            f"the version of the codec {own.family} must be 1 to 32 letters, digits, '.', '_' "
            f"or '-' (not {own.version!r}): both sides must hold the same one"
        )
    family, colon, setting = own.id.partition(":")
    if family != own.family or bool(colon) != bool(_SETTING.fullmatch(setting)):
        raise UsageError(
            f"the id of the codec {own.family} must be that, or that, a colon and a setting "
            f"of letters, digits, '.', '_' and '-' (not {own.id!r})"
        )
    if own.code != PRIVATE or own.quality:
        raise UsageError(
            f"the codec {own.family} must have neither code nor quality (not {own.code} and "
            f"{own.quality}): sessions give it its code, and `id` tells its setting"
        )


@final
@dataclass(frozen=True, slots=True)
class PrivateCodes:
    """Private codes of one session: entry i has the code `FIRST_PRIVATE` + i.

    An entry is a codec with its default setting, or the reason why this side has none.
    """

    entries: tuple[Guarded | str, ...] = ()

    def code_of(self, codec: Codec) -> int:
        """Return the code of `codec` in a header; raises CodecError where it has none."""
        if codec.code != PRIVATE:
            return codec.code
        for index, entry in enumerate(self.entries):
            if isinstance(entry, Guarded) and entry.family == codec.family:
                return FIRST_PRIVATE + index
        raise CodecError(
            f"codec {codec.id} must have been agreed on with the other side: load it before "
            "a session begins"
        )

    def codec_of(self, code: int) -> Codec:
        """Return the codec that a private `code` stands for; raises CodecError for none."""
        index = code - FIRST_PRIVATE
        if not 0 <= index < len(self.entries):
            raise CodecError(
                f"a payload must use a codec that the session has agreed on (not number "
                f"{code}): name it in the Hello"
            )
        entry = self.entries[index]
        if isinstance(entry, str):
            raise CodecError(entry)
        return entry


NO_PRIVATE_CODES = PrivateCodes()
