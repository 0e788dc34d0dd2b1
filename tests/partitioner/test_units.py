"""Quantities as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_partitioner.units import (
    format_duration,
    format_nbytes,
    format_rate,
    parse_duration,
    parse_nbytes,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("8Mbit", 8e6),
        ("8 Mbit/s", 8e6),
        ("8Mbps", 8e6),
        ("8mbit", 8e6),
        ("0.5Mbit", 5e5),
        (".5Gbit/s", 5e8),
        ("64kbit", 64e3),
        ("1e3bit", 1e3),
        ("100bps", 100.0),
    ],
)
def test_rates_are_decimal_bits_per_second(text: str, rate_bps: float) -> None:
    assert parse_rate(text) == pytest.approx(rate_bps)


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("40ms", 0.04),
        ("250us", 250e-6),
        ("250 µs", 250e-6),
        ("2s", 2.0),
        ("1.5min", 90.0),
        ("24h", 86400.0),
        ("0ms", 0),
    ],
)
def test_durations_are_seconds(text: str, duration_s: float) -> None:
    assert parse_duration(text) == pytest.approx(duration_s)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1MiB", 2**20),
        ("600KB", 600_000),
        ("600kB", 600_000),
        ("12B", 12),
        ("1.5 GiB", 3 * 2**29),
    ],
)
def test_sizes_are_bytes(text: str, nbytes: int) -> None:
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize(("text", "share"), [("70%", 0.7), ("0.7", 0.7), ("100 %", 1)])
def test_shares_are_parts_of_one(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["101%", "1.5", "50pt", "-1%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"99%"):
        parse_share(text)


@pytest.mark.parametrize("parse", [parse_rate, parse_duration, parse_nbytes])
@pytest.mark.parametrize("text", ["-1ms", "nan ms", "inf s", "", "fast", "-3Mbit", "1e999s"])
def test_nonsense_is_refused_in_one_sentence(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(UsageError, match="write"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_rate, "1e305Mbit"), (parse_duration, "1e306h"), (parse_nbytes, "1e302GB")],
)
def test_a_unit_does_not_make_a_figure_infinite(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(UsageError, match=r"must be finite.*write"):
        parse(text)


def test_a_page_of_text_is_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"not 5000 characters.: write 40ms"):
        parse_duration("x" * 5000)


def test_a_bare_number_is_told_which_unit_is_missing_and_how_to_write_it() -> None:
    with pytest.raises(UsageError, match=r"bit, kbit, Mbit or Gbit.*no unit.*write 8Mbit"):
        parse_rate("8")
    with pytest.raises(UsageError, match=r"us, ms, s, min or h.*no unit.*write 40ms"):
        parse_duration("40")
    with pytest.raises(UsageError, match=r"KiB.*no unit.*write 1MiB"):
        parse_nbytes("1")


@pytest.mark.parametrize("text", ["8MBps", "8MB/s", "8MB"])
def test_bytes_per_second_are_not_taken_for_bits(text: str) -> None:
    with pytest.raises(UsageError, match="bits per second"):
        parse_rate(text)


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="above zero"):
        parse_rate("0Mbit")


def test_a_size_in_bits_is_refused() -> None:
    with pytest.raises(UsageError, match="unit"):
        parse_nbytes("8Mb")


def test_formats_are_short() -> None:
    assert format_rate(8e6) == "8 Mbit/s"
    assert format_rate(999_700) == "1 Mbit/s"
    assert format_rate(1.6e9) == "1.6 Gbit/s"
    assert format_duration(0.0123) == "12.3 ms"
    assert format_duration(0.00004) == "40 us"
    assert format_duration(0.0) == "0 us"
    assert format_duration(100.0) == "1.67 min"
    assert format_duration(86400.0) == "24 h"
    assert format_nbytes(784 * 1024) == "784 KiB"
    assert format_nbytes(600) == "600 B"
    assert format_nbytes(1_500_000) == "1.43 MiB"
    assert format_nbytes(0) == "0 B"


@given(st.floats(1.0, 1e12))
def test_what_is_formatted_parses_back_within_three_digits(value: float) -> None:
    assert parse_rate(format_rate(value)) == pytest.approx(value, rel=6e-3)
    seconds = value * 1e-6
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=6e-3)
    assert parse_nbytes(format_nbytes(value)) == pytest.approx(value, rel=6e-3, abs=1)
