"""Rates, durations and sizes as people write and read them.

Rates and sizes with K, M, G are decimal (8 Mbit/s is 8,000,000 bits a second, as links are
sold); KiB, MiB, GiB are binary (IEC 80000-13). Inside midstream everything is in bits per
second, seconds and bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from midstream_wire.errors import UsageError

_RATES = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_NBYTES = {
    "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip

_QUANTITY = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?nan|[+-]?inf)\s*(.*)"
)
#: No quantity is written longer.
_MOST_CHARS = 100
#: A format chooses the next larger unit from here on, so that 999,700 bit/s is "1 Mbit/s" and
#: not "1000 kbit/s".
_NEARLY = 0.9995


def parse_rate(text: str) -> float:
    """Bits per second from "8Mbit", "8 Mbit/s", "8Mbps" (bit, kbit, Mbit, Gbit; decimal).

    Raises `UsageError` for anything else, for bytes per second, and for a rate of zero.
    """
    # Prefixes in any case, as tc(8) takes them: nobody means millibits. A capital B is
    # refused, because in "8MBps" it usually means bytes.
    spelled = {name.lower(): factor for name, factor in _RATES.items()}
    for name, unit_bps in _RATES.items():
        short = name.lower().removesuffix("bit")
        spelled |= {f"{name.lower()}/s": unit_bps, f"{short}bps": unit_bps}
    number, unit = _split(text, "a rate", "8Mbit")
    factor = spelled.get(unit.lower()) if "B" not in unit else None
    if factor is None:
        raise _unknown(text, "a rate", "bit, kbit, Mbit or Gbit (bits per second)", "8Mbit")
    if number == 0:
        raise UsageError(f"a rate must be above zero (not {text!r}): write one such as 8Mbit")
    return _finite(number * factor, text, "a rate", "8Mbit")


def parse_duration(text: str) -> float:
    """Seconds from "40ms" (us, ms, s, min, h); raises `UsageError` for anything else."""
    number, unit = _split(text, "a duration", "40ms")
    factor = _DURATIONS.get("us" if unit == "µs" else unit)
    if factor is None:
        raise _unknown(text, "a duration", "us, ms, s, min or h", "40ms")
    return _finite(number * factor, text, "a duration", "40ms")


def parse_nbytes(text: str) -> int:
    """Bytes from "600KB" (decimal) or "1MiB" (binary); otherwise raises `UsageError`."""
    spelled = {name.lower(): factor for name, factor in _NBYTES.items()}
    number, unit = _split(text, "a size", "1MiB")
    # A lower-case b would be bits, and a size is never given in bits.
    factor = spelled.get(unit.lower()) if unit.endswith("B") else None
    if factor is None:
        raise _unknown(text, "a size", "B, KB, MB, GB, KiB, MiB or GiB", "1MiB")
    return round(_finite(number * factor, text, "a size", "1MiB"))


def parse_share(text: str) -> float:
    """A share from "99%" or "0.99", from 0 to 1; otherwise raises `UsageError`."""
    number, unit = _split(text, "a share", "99%")
    parts = {"%": 100, "": 1}.get(unit)
    if parts is None or number > parts:
        raise UsageError(f"a share must be 0% to 100% (not {text!r}): write 99% or 0.99")
    return number / parts  # 70 * 0.01 would be more than 0.7


def parse_points(text: str) -> float:
    """Points (hundredths of all answers) from "0.5pt"; otherwise raises `UsageError`."""
    number, unit = _split(text, "a loss", "0.5pt")
    if unit not in ("pt", "pts") or number > 100:
        raise UsageError(f"a loss must be 0pt to 100pt (not {text!r}): write 0.5pt")
    return number


def format_rate(rate_bps: float) -> str:
    """For people, three digits: "8 Mbit/s"."""
    return _format(rate_bps, {f"{name}/s": factor for name, factor in _RATES.items()})


def format_duration(duration_s: float) -> str:
    """For people, three digits: "12.3 ms"."""
    return _format(duration_s, _DURATIONS)


def format_nbytes(size_nbytes: float) -> str:
    """For people, three digits, binary units: "784 KiB"."""
    return _format(size_nbytes, {u: f for u, f in _NBYTES.items() if u == "B" or "i" in u})


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    if len(text) > _MOST_CHARS:
        raise UsageError(
            f"{what} must be a number and a unit (not {len(text)} characters): write {example}"
        )
    match = _QUANTITY.fullmatch(text.rstrip())
    if match is None:
        raise UsageError(f"{what} must be a number and a unit (not {text!r}): write {example}")
    number, unit = float(match[1]), match[2]
    return _finite(number, text, what, example), unit


def _finite(value: float, text: str, what: str, example: str) -> float:
    """`value`, which a unit may have taken beyond what a double holds."""
    if not math.isfinite(value) or value < 0:
        raise UsageError(
            f"{what} must be finite and not negative (not {text!r}): write {example}"
        )
    return value


def _unknown(text: str, what: str, units: str, example: str) -> UsageError:
    missing = _split(text, what, example)[1] == ""
    fault = "has no unit" if missing else "has another"
    return UsageError(f"{what} needs the unit {units} ({text!r} {fault}): write {example}")


def _format(value: float, units: Mapping[str, float]) -> str:
    if not math.isfinite(value):
        return str(value)
    smallest = min(units, key=units.__getitem__)
    fitting = [u for u, factor in units.items() if abs(value) >= factor * _NEARLY]
    unit = max(fitting, key=units.__getitem__, default=smallest)
    scaled = value / units[unit]
    decimals = max(0, 2 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    digits = f"{scaled:.{min(decimals, 3)}f}"
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {unit}"
