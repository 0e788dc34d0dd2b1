"""Traces into files that other tools read."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from midstream_lab.traces.parsing import OPPORTUNITY_NBYTES
from midstream_lab.traces.trace import Trace
from midstream_wire.errors import UsageError

Format = Literal["mahimahi", "columns", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)
#: Lines of a Mahimahi file, one a packet: 11 minutes at 200 Mbit/s.
MOST_OPPORTUNITIES = 11_000_000

_SUFFIXES: dict[str, Format] = {".txt": "columns", ".csv": "csv"}


def format_of(path: Path) -> Format:
    """Return what a file's name asks for: columns in .txt, CSV in .csv, else Mahimahi's
    form.
    """
    return _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix, "mahimahi")


def write_trace(trace: Trace, path: Path, *, form: str | None = None) -> Format:
    """Write `trace` in one of `FORMATS` (by the file's name if none is given); gzipped if the
    name ends in .gz, with the same bytes every time. Returns the format.

    Mahimahi's form knows packets only, and the file's last line is also its end: where a trace
    ends in silence, one packet is added there. Raises `UsageError`.
    """
    chosen = format_of(path) if form is None else _checked(form)
    lines = {"mahimahi": _mahimahi, "columns": _columns, "csv": _csv}[chosen](trace)
    content = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return chosen


def _checked(form: str) -> Format:
    for known in get_args(Format):
        if form == known:
            return cast(Format, known)
    raise UsageError(f"a trace's format must be {', '.join(FORMATS)} (not {form!r})")


def _columns(trace: Trace) -> Iterator[str]:
    for at_s, rate_bps in _rows(trace):
        yield f"{at_s!r}\t{rate_bps / 1e6!r}"


def _csv(trace: Trace) -> Iterator[str]:
    yield "time_s,rate_bps"
    for at_s, rate_bps in _rows(trace):
        yield f"{at_s!r},{rate_bps!r}"


def _rows(trace: Trace) -> Iterator[tuple[float, float]]:
    """Starts and rates; the end as one more row where a reader could not guess it."""
    starts_s, rates = trace.times_s[:-1].tolist(), trace.rates_bps.tolist()
    yield from zip(starts_s, rates, strict=True)
    widths_s = np.diff(trace.times_s)
    guess_s = float(np.median(widths_s[:-1])) if len(rates) > 1 else 0.0
    if not np.isclose(widths_s[-1], guess_s, rtol=1e-6):
        # The row holds as long as most do, so the last step is divided into two.
        end_s = trace.duration_s - (guess_s or widths_s[-1] / 2)
        if end_s > starts_s[-1]:
            yield float(end_s), rates[-1]


def _mahimahi(trace: Trace) -> Iterator[str]:
    """The millisecond by which each packet is through."""
    packet_bits = 8 * OPPORTUNITY_NBYTES
    bits = np.concatenate(([0.0], np.cumsum(np.diff(trace.times_s) * trace.rates_bps)))
    count = int(bits[-1] / packet_bits + 1e-6)
    if count > MOST_OPPORTUNITIES:
        raise UsageError(
            f"a Mahimahi file must have at most {MOST_OPPORTUNITIES} packets ({trace.name} "
            f"has {count}): cut it, or write columns"
        )
    wanted = np.minimum(np.arange(1, count + 1) * float(packet_bits), bits[-1])
    step = np.searchsorted(bits, wanted, side="left") - 1
    at_s = trace.times_s[step] + (wanted - bits[step]) / trace.rates_bps[step]
    at_ms = np.ceil(at_s * 1e3 - 1e-6).astype(np.int64)
    last_ms = max(1, round(trace.duration_s * 1e3))
    yield from map(str, np.minimum(at_ms, last_ms).tolist())
    if not count or at_ms[-1] < last_ms:
        yield str(last_ms)
