"""Rows: written whole, read back as they were, and made from the edge's log."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from midstream_lab.results.rows import COLUMNS, RunKey, RunResult, read_log, rows_of
from midstream_lab.results.run_files import load_run, load_runs, save_run, whole, write_table
from midstream_wire.errors import MidstreamError, UsageError

Make = Callable[..., list[RunResult]]
DOCUMENT = Path(__file__).parents[3] / "docs/reference/experiments.md"

LINE = {
    "number": 0, "at_s": 0.5, "monotonic_s": 100.5, "latency_s": 0.2, "where": "cloud",
    "hedged": True, "reason": None, "k": 2, "cut": "c2-ab", "codec": "half",
    "payload_nbytes": 1000, "reply_nbytes": 40, "edge_busy_s": 0.05, "energy_j": 0.3,
    "timings": {"head_s": 0.01, "uplink_s": 0.1, "total_s": 0.2},
    "predicted": {"total_s": 0.23}, "expected_s": 0.19,
    "link": "connected", "switched": True, "failed": None,
    "belief": {"uplink_bps": 8e6, "low_bps": 6e6, "high_bps": 9e6, "rtt_s": 0.04},
}  # fmt: skip


def test_a_run_is_read_back_as_it_was(made_up: Make, tmp_path: Path) -> None:
    (run,) = made_up(policies=["adaptive"], traces=["lte"], duration_s=5.0)
    path = save_run(run, tmp_path)
    found = load_run(path)
    assert (found.key, found.facts) == (run.key, run.facts)
    for column in COLUMNS:
        np.testing.assert_array_equal(found.rows[column.name], run.rows[column.name])
    assert [path.name for path in tmp_path.iterdir()] == [run.key.filename]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RunKey("a", "b", "c~d", 0), RunKey("a", "b~c", "d", 0)),
        (RunKey("a/b", "c", "p", 0), RunKey("a", "b/c", "p", 0)),
        (RunKey("é", "t", "p", 0), RunKey("e", "t", "p", 0)),
    ],
)
def test_different_runs_have_different_files(one: RunKey, other: RunKey) -> None:
    assert one.filename != other.filename
    assert "/" not in one.filename
    assert one.filename.isascii()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"{}", mtime=0),
        gzip.compress(b'{"format": 9}', mtime=0),
        b"\x1f\x8b\x08",
    ],
    ids=["empty", "text", "no run", "another format", "cut off"],
)
def test_what_is_no_run_is_told_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="remove it, and it is run again"):
        load_run(path)


def test_columns_of_different_lengths_are_refused(made_up: Make, tmp_path: Path) -> None:
    (run,) = made_up(policies=["adaptive"], traces=["lte"], duration_s=2.0)
    path = save_run(run, tmp_path)
    document = json.loads(gzip.decompress(path.read_bytes()))
    document["columns"]["k"].pop()
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    with pytest.raises(UsageError, match="equally long"):
        load_run(path)


def test_a_file_takes_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"

    def fail_midway() -> None:
        with whole(path, "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_midway()
    assert list(path.parent.iterdir()) == []
    with whole(path, "w") as file:
        file.write("all")
    assert path.read_text() == "all"


def test_runs_are_found_by_name_and_others_are_passed_over(
    made_up: Make, tmp_path: Path
) -> None:
    runs = made_up(policies=["oracle", "adaptive"], traces=["lte"], duration_s=2.0)
    for each in runs:
        save_run(each, tmp_path)
    (tmp_path / "x.json.gz.123.partial").write_bytes(b"half")
    assert [each.key.policy for each in load_runs(tmp_path)] == ["adaptive", "oracle"]


def test_the_table_has_a_row_for_every_request(made_up: Make, tmp_path: Path) -> None:
    runs = made_up(policies=["adaptive", "race"], traces=["lte"], duration_s=3.0)
    path = tmp_path / "rows.csv.gz"
    write_table(runs, path)
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(each.rows) for each in runs)
    assert list(rows[0]) == ["model", "trace", "policy", "seed", *(c.name for c in COLUMNS)]
    assert float(rows[0]["latency_s"]) == pytest.approx(runs[0].rows["latency_s"][0])
    assert {row["hedged"] for row in rows} <= {"0", "1"}
    assert rows[0]["failed"] == ""


def test_the_page_describes_every_column() -> None:
    page = DOCUMENT.read_text()
    for column in COLUMNS:
        assert f"| `{column.name}` | {column.meaning} |" in page


def test_the_log_of_an_edge_becomes_rows(tmp_path: Path) -> None:
    failed = {"number": 1, "at_s": 1.0, "monotonic_s": 101.0, "latency_s": 5.0,
              "link": "down", "belief": None, "switched": False, "failed": "late"}  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(LINE) + "\n" + json.dumps(failed) + "\n")
    uplink = ((0.0, 5e6), (0.4, 7e6), (3.0, 9e6))
    rows = rows_of(read_log(log, origin_s=100.0, uplink=uplink))
    assert rows["trace_s"].tolist() == [0.5, 1.0]
    assert rows["uplink_bps"].tolist() == [7e6, 7e6]
    assert rows["uplink_s"].tolist()[0] == 0.1
    assert rows["predicted_s"].tolist()[0] == 0.19
    assert rows["belief_low_bps"].tolist()[0] == 6e6
    assert rows["reason"].tolist() == ["", ""]
    assert rows["failed"].tolist() == ["", "late"]
    assert rows.answered.tolist() == [True, False]


@pytest.mark.parametrize("line", ["", "[]", "{}", "{"])
def test_a_broken_log_is_told_by_its_line(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(MidstreamError, match=r"line 2 of .*log\.jsonl"):
        list(read_log(log, origin_s=0.0, uplink=()))
