"""Text files as people save them: UTF-8, with or without a byte order mark.

Notepad and PowerShell put a mark in front of UTF-8, and save UTF-16 unasked. The mark is
passed over; UTF-16 is refused by its name, which "invalid start byte" would not tell.
"""

from __future__ import annotations

from pathlib import Path

from midstream_wire.errors import UsageError

#: What one text file may hold: more than any feed, profile or trace, and no gigabytes.
MAX_TEXT_NBYTES = 64 << 20

_MARK = "\ufeff"
#: UTF-32's little-endian mark begins with that of UTF-16: longest first.
_OTHERS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


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
