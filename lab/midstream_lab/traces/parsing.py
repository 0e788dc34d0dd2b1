"""Traces from files: what a file is, is seen from what stands in it.

Known are Mahimahi's (Netravali et al., USENIX ATC 2015: every line the millisecond of one
1,500-byte delivery opportunity; after the last it begins again), columns of a time in seconds
and a rate in Mbit/s (the form of Meng et al.'s collection), and CSV with named columns whose
names end in units. Each may be gzipped. Nothing is unpacked beyond a bound, whatever a file
claims.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from midstream_lab.traces.generators import KINDS, generate
from midstream_lab.traces.headers import Column, find_columns, is_number, split_line
from midstream_lab.traces.trace import MOST_STEPS, Floats, Trace
from midstream_partitioner.units import format_nbytes
from midstream_wire.errors import UsageError
from midstream_wire.text import decode_text

#: What a file may unpack to. The largest public traces have a tenth of it.
MOST_NBYTES = 64 << 20
#: Lines of a file; each takes about 100 bytes while it is read.
MOST_LINES = 4_000_000
#: No line of a trace is longer; a file without line ends is something else.
MOST_LINE_NBYTES = 10_000
#: One delivery opportunity of Mahimahi, headers included.
OPPORTUNITY_NBYTES = 1500
#: Mahimahi counts packets, so a rate needs a span. The emulator follows traces as often.
STEP_S = 0.1
#: What a made-up trace has if nothing else is said.
GENERATED_S = 300.0

_GZIP_MAGIC = b"\x1f\x8b"


def open_trace(text: str) -> Trace:
    """The trace that a user means: a file, or a kind of network with or without a seed.

    "lte" and "lte:7" are 300 seconds of a made-up trace (`generate`) with seed 0 and 7; a file
    of that name is taken before. Raises `UsageError`.
    """
    kind, colon, seed = text.partition(":")
    if kind not in KINDS or Path(text).exists():
        return load_trace(Path(text))
    if colon and not (seed.isascii() and seed.isdigit() and len(seed) < 19):
        raise UsageError(f"a trace's seed must be a whole number (not {seed!r}): {kind}:7")
    return generate(kind, seed=int(seed or 0), duration_s=GENERATED_S)


def load_trace(
    path: Path | str,
    *,
    step_s: float = STEP_S,
    time_column: str | None = None,
    rate_column: str | None = None,
) -> Trace:
    """The trace in a file of any known form.

    `step_s` is the span over which Mahimahi's opportunities are counted. Columns of a CSV are
    found by their names and units ("time_s", "uplink_kbps", "rate (Mbit/s)"); `time_column`
    and `rate_column` name them where that is not enough, with a unit where the file has none
    ("bw:kbit"). A rate holds until the next row, the last one as long as most do.

    Raises `UsageError` for what is no trace, saying which line is at fault.
    """
    path = Path(path)
    lines = _lines(path)
    number, first = next(lines, (0, ""))
    if not number:
        raise UsageError(f"a trace must have lines ({path.name} is empty)")
    cells = split_line(first)
    if not all(is_number(cell) for cell in cells):
        columns = find_columns(cells, time_column, rate_column, where=path.name)
        return _from_rows(path, lines, columns, "named columns")
    if time_column or rate_column:
        raise UsageError(f"columns can be chosen only by a header ({path.name} has none)")
    rows = _from(number, first, lines)
    if len(cells) == 1:
        return _from_mahimahi(path, rows, step_s)
    if len(cells) == 2:
        both = (Column(0, 1.0), Column(1, 1e6))
        return _from_rows(path, rows, both, "columns of seconds and Mbit/s")
    raise UsageError(
        "a trace must have one column (Mahimahi), two (seconds and Mbit/s), or a header that "
        f"names them ({path.name} has {len(cells)} and no header)"
    )


def _from(
    number: int, first: str, rest: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, str]]:
    yield number, first
    yield from rest


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank and no comment."""
    text = decode_text(_unpacked(path), path.name, "a trace")
    if text.count("\n") > MOST_LINES:
        raise UsageError(
            f"a trace must have at most {MOST_LINES} lines ({path.name} has more)"
        )
    start, number = 0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        if end - start > MOST_LINE_NBYTES:
            raise UsageError(
                f"lines of a trace must have at most {MOST_LINE_NBYTES} characters "
                f"({path.name}, line {number} has more)"
            )
        line = text[start:end].strip()
        start = end + 1
        if line and not line.startswith("#"):
            yield number, line


def _unpacked(path: Path) -> bytes:
    """Return what the file holds, unpacked if it is gzipped, `MOST_NBYTES` at most."""
    if path.is_dir():
        raise UsageError(f"a trace must be a file ({path} is a folder)")
    try:
        with path.open("rb") as file:
            packed = file.read(MOST_NBYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(
            f"a trace must be a file or a kind of link ({', '.join(KINDS)}): there is no "
            f"{str(path)!r}"
        ) from error
    found = packed
    if packed.startswith(_GZIP_MAGIC):
        try:
            found = _gunzip(packed)
        except zlib.error as error:
            raise UsageError(
                f"a gzipped trace must be whole ({path.name} is damaged: {error})"
            ) from error
    if len(found) > MOST_NBYTES:
        raise UsageError(
            f"a trace must hold at most {format_nbytes(MOST_NBYTES)} of text ({path.name} "
            "has more): cut it"
        )
    return found


def _gunzip(packed: bytes) -> bytes:
    """All members of a gzip file (RFC 1952), but no more than one byte over the bound.

    Raises `zlib.error` for a damaged one; what follows the last member is passed over.
    """
    found = bytearray()
    while packed.startswith(_GZIP_MAGIC) and len(found) <= MOST_NBYTES:
        member = zlib.decompressobj(wbits=31)
        found += member.decompress(packed, MOST_NBYTES + 1 - len(found))
        if not member.eof and len(found) <= MOST_NBYTES:
            raise zlib.error("it ends too early")
        packed = member.unused_data
    return bytes(found)


def _from_mahimahi(path: Path, rows: Iterator[tuple[int, str]], step_s: float) -> Trace:
    """Opportunities counted per step; one at the edge belongs to the step before it."""
    found = array("q")
    before = 0
    for number, line in rows:
        if not (line.isascii() and line.isdigit() and len(line) < 13):
            raise _bad_line(path, number, "a whole number of milliseconds", line)
        at_ms = int(line)
        if at_ms < before:
            raise _bad_line(path, number, f"no time before the last ({before})", line)
        found.append(at_ms)
        before = at_ms
    if not before:
        raise UsageError(f"a Mahimahi trace must reach beyond 0 ms ({path.name} does not)")
    duration_s = before / 1e3
    if not 0 < step_s < math.inf or duration_s / step_s > MOST_STEPS:
        raise UsageError(
            f"a trace must have at most {MOST_STEPS} steps above zero ({path.name} lasts "
            f"{duration_s:g} s, the step is {step_s:g} s)"
        )
    count = max(1, int(np.ceil(duration_s / step_s - 1e-9)))
    at = np.ceil(np.frombuffer(found, np.int64) / (1e3 * step_s) - 1e-9).astype(np.int64) - 1
    counted = np.bincount(np.clip(at, 0, count - 1), minlength=count)
    edges_s = np.append(np.arange(count) * step_s, duration_s)
    rates_bps = counted * 8 * OPPORTUNITY_NBYTES / np.diff(edges_s)
    return Trace(_name(path), edges_s, rates_bps, f"{path.name} (Mahimahi)")


def _from_rows(
    path: Path,
    rows: Iterator[tuple[int, str]],
    columns: tuple[Column, Column],
    form: str,
) -> Trace:
    """One row a line; times may begin anywhere."""
    time, rate = columns
    times_s, rates_bps = array("d"), array("d")
    for number, line in rows:
        cells = split_line(line)
        try:
            at_s = float(cells[time.index]) * time.factor
            rates_bps.append(float(cells[rate.index]) * rate.factor)
        except (IndexError, ValueError):
            raise _bad_line(path, number, "a time and a rate", line) from None
        if times_s and not at_s > times_s[-1]:
            raise _bad_line(path, number, "a time after the last", line)
        times_s.append(at_s)
    if len(times_s) < 2:
        raise UsageError(f"a trace must have two rows at least ({path.name} has not)")
    starts_s: Floats = np.frombuffer(times_s) - times_s[0]
    last_s = starts_s[-1] + float(np.median(np.diff(starts_s)))
    edges_s = np.append(starts_s, last_s)
    return Trace(_name(path), edges_s, np.frombuffer(rates_bps), f"{path.name} ({form})")


def _bad_line(path: Path, number: int, wanted: str, line: str) -> UsageError:
    shown = line if len(line) <= 40 else f"{line[:37]}..."
    return UsageError(f"{path.name}, line {number} must hold {wanted} (not {shown!r})")


def _name(path: Path) -> str:
    """The file's name without what says only how it is written."""
    name = path.name.removesuffix(".gz")
    for suffix in (".txt", ".csv"):
        name = name.removesuffix(suffix)
    return name or path.name
