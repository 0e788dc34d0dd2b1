"""Text that others wrote: files as people save them, and words of peers that are shown.

Notepad and PowerShell put a mark in front of UTF-8, and save UTF-16 unasked. The mark is
passed over; UTF-16 is refused by its name, which "invalid start byte" would not tell.

A name or a sentence of a peer or a file may hold what commands a terminal, forges a line of a
log or leads out of a folder. All of it passes through `harmless`, `one_line` or `file_name`.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from midstream_wire.errors import UsageError

#: What one text file may hold: more than any feed, profile or trace, and no gigabytes.
MAX_TEXT_NBYTES = 64 << 20

#: What one line of foreign text may take of an error or a log.
MAX_LINE_CHARS = 200

#: Unicode's categories that show nothing and may do something: controls, direction marks,
#: halves of characters, ends of lines and paragraphs (The Unicode Standard, chapter 4.5).
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")

_MARK = "\ufeff"
#: UTF-32's little-endian mark begins with that of UTF-16: longest first.
_OTHERS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def harmless(text: str) -> str:
    """Return `text` with its control characters as escapes; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode()
        if unicodedata.category(each) in _UNSHOWN and each not in "\n\t"
        else each
        for each in text
    )


def one_line(text: str, *, chars: int = MAX_LINE_CHARS) -> str:
    """Return foreign `text` as one harmless line of at most `chars` characters."""
    line = harmless(" ".join(text[: 8 * chars].split()))
    return line if len(line) <= chars else line[: chars - 3] + "..."


def file_name(name: str) -> str:
    """Return `name` for a file: the same where it is plain, and another for any other name.

    Whatever is no letter, digit, dot, dash or underline of ASCII comes as its bytes in
    hexadecimal (RFC 3986's manner), and so does a dot in front: no name leads out of a folder
    or hides.
    """
    escaped = _NOT_IN_NAMES.sub(_hexadecimal, name)
    return "%2e" + escaped[1:] if escaped.startswith(".") else escaped


def _hexadecimal(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in match[0].encode("utf-8", "surrogatepass"))


def read_text(path: Path, what: str, *, max_nbytes: int = MAX_TEXT_NBYTES) -> str:
    """Return the text of a file, without a byte order mark.

    `what` says what it is of ("a feed"). Raises `UsageError` where there is no file, none that
    can be read, one of more than `max_nbytes`, or no UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_nbytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"{what} must be a readable file ({path}: {reason})") from None
    if len(data) > max_nbytes:
        raise UsageError(f"{what} must have at most {max_nbytes} bytes ({path} has more)")
    return decode_text(data, str(path), what)


def decode_text(data: bytes, source: str, what: str) -> str:
    """Return what `data` says in UTF-8, without a byte order mark; `UsageError` if nothing."""
    found = next((name for mark, name in _OTHERS.items() if data.startswith(mark)), None)
    try:
        text = data.decode("utf-8").removeprefix(_MARK)
    except UnicodeDecodeError as error:
        found = found or f"none ({error.reason} at byte {error.start})"
        text = ""
    if found is None and "\0" in text:
        found = "none (it has zero bytes, as UTF-16 has)"
    if found is not None:
        raise UsageError(
            f"{what} must be text in UTF-8 ({source} is {found}): save it as UTF-8"
        )
    return text
