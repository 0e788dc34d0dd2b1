"""Traces in files: every form is known by its look, and no file does harm."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream_lab.traces.generators import KINDS, fitted, generate
from midstream_lab.traces.parsing import MOST_NBYTES, load_trace, open_trace
from midstream_lab.traces.statistics import statistics
from midstream_lab.traces.trace import Trace
from midstream_lab.traces.writing import write_trace
from midstream_wire.errors import UsageError

Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(content: str | bytes, name: str = "trace") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_mahimahi_counts_packets_per_step(written: Written, packed: bool) -> None:
    content = b"0\n50\n100\n101\n250\n"
    trace = load_trace(written(gzip.compress(content) if packed else content, "up.gz"))
    assert trace.times_s == pytest.approx([0, 0.1, 0.2, 0.25])
    assert trace.rates_bps == pytest.approx([3 * 120e3, 120e3, 240e3])
    assert trace.name == "up"


@pytest.mark.parametrize("step_s", [0.0, -1.0, math.inf, math.nan])
def test_a_step_that_is_none_is_refused(written: Written, step_s: float) -> None:
    with pytest.raises(UsageError, match="steps above zero"):
        load_trace(written("0\n50\n", "up.txt"), step_s=step_s)


def test_a_step_longer_than_the_trace_is_one_step(written: Written) -> None:
    trace = load_trace(written("0\n50\n", "up.txt"), step_s=1e300)
    assert trace.times_s.tolist() == pytest.approx([0, 0.05])


def test_columns_are_seconds_and_megabits(written: Written) -> None:
    trace = load_trace(written("# a comment\n\n870.5\t1.5\n871.5 0\n873.5 2\n", "lte.txt"))
    assert trace.times_s.tolist() == [0, 1, 3, 4.5]
    assert trace.rates_bps.tolist() == [1.5e6, 0, 2e6]
    assert trace.name == "lte"


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("time_ms,rate_kbps", {}),
        ("Timestamp (ms);Rate [kbit/s]", {}),
        ("id\tt [ms]\tuplink_kbit", {}),
        ("when,up_kbps,down_mbps", {"rate_column": "up_kbps", "time_column": "when:ms"}),
        ("when,x", {"rate_column": "x:kbit", "time_column": "when:ms"}),
    ],
)
def test_a_csv_names_its_columns_and_their_units(
    written: Written, header: str, options: dict[str, str]
) -> None:
    cut = next(each for each in ",;\t" if each in header)
    first = ["7"] if header.startswith("id") else []
    rows = [
        cut.join([*first, at, "1500", "9"][: header.count(cut) + 1]) for at in ("10", "30")
    ]
    trace = load_trace(written("\n".join([header, *rows])), **options)  # type: ignore[arg-type]
    assert trace.times_s == pytest.approx([0, 0.02, 0.04])
    assert trace.rates_bps == pytest.approx([1.5e6, 1.5e6])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must have lines"),
        ("# nothing\n\n", "must have lines"),
        ("0\n5\nx\n", "line 3 must hold a whole number of milliseconds \\(not 'x'\\)"),
        ("5\n4\n", "line 2 must hold no time before the last \\(5\\) \\(not '4'\\)"),
        ("1\n-4\n", "line 2"),
        ("0\n0\n", "beyond 0 ms"),
        ("999999999999\n", "at most 1000000 steps"),
        ("9" * 400, "line 1 must hold"),
        ("0 1\n1\n", "line 2 must hold a time and a rate \\(not '1'\\)"),
        ("0 1\n0 2\n", "line 2 must hold a time after the last"),
        ("0 1\nnan 2\n", "line 2 must hold a time after the last"),
        ("0 1\n", "two rows"),
        ("0 nan\n1 2\n", "within 0 and 1 Tbit/s"),
        ("0 -1\n1 2\n", "within 0 and 1 Tbit/s"),
        ("1 2 3\n", "has 3 and no header"),
        ("a,b\n1,2\n", "one column must be the time, .* has none: a, b"),
        ("time_s,up_kbps,down_kbps\n1,2,3\n", "be the rate, .* has several.*--rate-column"),
        ("time_s\n1\n", "one column must be the rate"),
        (b"\xff\xfe\x00\x01", "must be text"),
        ("x" * 20_000, "at most 10000 characters"),
        (b"\x1f\x8b\x08 no gzip", "damaged"),
        (gzip.compress(b"0\n" * 1000, mtime=0)[:-9], "damaged"),
    ],
)
def test_what_is_no_trace_is_said_in_one_sentence(
    written: Written, content: str | bytes, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load_trace(written(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate_column": "up"}, "--rate-column must be one of time_s, x, y \\(not 'up'"),
        ({"rate_column": "x"}, "'x' needs a unit of bit, kbit, Mbit or Gbit"),
        ({"rate_column": "x:parsec"}, "'x' needs a unit"),
        ({"rate_column": "x:kbit", "time_column": "x:ms"}, "must be two columns"),
    ],
)
def test_a_column_that_is_not_there_is_said(
    written: Written, options: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        load_trace(written("time_s,x,y\n1,2,3\n"), **options)  # type: ignore[arg-type]


def test_a_hostile_gzip_is_not_unpacked(written: Written) -> None:
    bomb = gzip.compress(bytes(MOST_NBYTES + 10_000_000), 9)
    assert len(bomb) < 100_000
    with pytest.raises(UsageError, match="at most 64 MiB"):
        load_trace(written(bomb))
    with pytest.raises(UsageError, match="at most 64 MiB"):
        load_trace(written(gzip.compress(bytes(40 << 20)) * 2))


def test_a_trace_of_a_kind_needs_no_file(written: Written) -> None:
    assert open_trace("lte:7") == generate("lte", seed=7)
    assert open_trace("3g") == generate("3g", seed=0)
    assert open_trace(str(written("0 1\n1 1\n", "x.txt"))).name == "x"
    with pytest.raises(UsageError, match="kind of link"):
        open_trace("lan")
    with pytest.raises(UsageError, match="seed"):
        open_trace("lte:often")


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=30), st.sampled_from(["csv", "txt"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, rates: list[float], suffix: str
) -> None:
    trace = Trace("t", [at / 2 for at in range(len(rates) + 1)], rates)
    write_trace(trace, tmp_path / f"t.{suffix}.gz")
    again = load_trace(tmp_path / f"t.{suffix}.gz")
    assert again.times_s == pytest.approx(trace.times_s)
    assert again.rates_bps == pytest.approx(trace.rates_bps, rel=1e-12)


@pytest.mark.parametrize("times_s", [[0, 10], [0, 1, 2, 10]])
def test_a_last_step_of_any_length_is_kept(tmp_path: Path, times_s: list[float]) -> None:
    trace = Trace("t", times_s, [1e6] * (len(times_s) - 1))
    write_trace(trace, tmp_path / "t.csv")
    assert load_trace(tmp_path / "t.csv").duration_s == 10


@pytest.mark.parametrize("kind", ["lte", "satellite"])
def test_mahimahi_comes_back_to_the_packet(tmp_path: Path, kind: str) -> None:
    trace = generate(kind, seed=5, duration_s=30.0)
    assert write_trace(trace, tmp_path / "t.up") == "mahimahi"
    again = load_trace(tmp_path / "t.up")
    assert again.duration_s == 30.0
    passed = [each.nbits_by(at) for each in (trace, again) for at in (3.0, 17.0, 29.9)]
    assert passed[:3] == pytest.approx(passed[3:], abs=1.1 * 12_000)


def test_a_file_written_twice_has_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for at in range(2):
        path = tmp_path / f"{at}" / "lte.gz"
        write_trace(generate("lte", duration_s=5), path)
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_a_file_without_end_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most 11000000 packets"):
        write_trace(Trace("fast", [0, 1000], [1e12]), tmp_path / "fast.up")
    with pytest.raises(UsageError, match="mahimahi, columns, csv \\(not 'tsv'\\)"):
        write_trace(Trace("x", [0, 1], [1e6]), tmp_path / "x", form="tsv")


MEASURED = {
    "3g": "mahimahi/TMobile-UMTS-driving.up.gz",
    "lte": "mahimahi/ATT-LTE-driving-2016.up.gz",
    "satellite": "starlink/starlink_bw_example.txt.gz",
    "broadband": "nettrace/broadband_fcc18_1000281.txt",
    "5g": "nettrace/5g_lumos_driving_94.txt",
    "wifi": "nettrace/wifi_solis_lab_155424.txt",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_moves_as_the_trace_it_was_fitted_to(data_folder: Path, kind: str) -> None:
    shape, found = KINDS[kind], fitted(load_trace(data_folder / "traces" / MEASURED[kind]))
    for field in ("sigma", "memory_s", "outage_every_s", "outage_s"):
        wanted = getattr(shape, field)
        assert getattr(found, field) == pytest.approx(wanted, rel=0.05) or math.isinf(wanted)


def test_every_measured_trace_is_known_by_its_look(data_folder: Path) -> None:
    for path in sorted(data_folder.glob("traces/*/*")):
        if "delay" not in path.name:
            found = statistics(load_trace(path))
            assert 0.5e6 < found.mean_bps < 500e6, path
            assert 100 < found.duration_s < 2000, path
