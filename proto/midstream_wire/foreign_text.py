"""Names and sentences that others wrote, made fit to be shown, logged, or name a file.

What a peer or a file says may command a terminal, forge a line of a log, fill a screen or lead
out of a folder. All of it passes through `harmless`, `one_line` or `file_name`; errors do so
by themselves.
"""

from __future__ import annotations

import re
import unicodedata

#: What one line of foreign text may take of an error or a log.
MAX_LINE_CHARS = 200

#: Unicode's categories that show nothing and may do something: controls, direction marks,
#: halves of characters, ends of lines and paragraphs (The Unicode Standard, chapter 4.5).
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


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
    """Return foreign `text` as one harmless line of at most `chars` characters.

    A longer one loses its middle: what came may fill pages, and the end says what to do.
    """
    if len(text) > 16 * chars:
        text = f"{text[: 8 * chars]} {text[-8 * chars :]}"
    line = harmless(" ".join(text.split()))
    if len(line) <= chars:
        return line
    first = (chars - 3) * 3 // 4
    return f"{line[:first]}...{line[first + 3 - chars :]}"


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
