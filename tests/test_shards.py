"""Parts of the tests: together they are all of them, and each test is in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def collected(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider",
         str(FOLDER / "wire/test_address.py"), *arguments],
        cwd=FOLDER.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def ids_of(*arguments: str) -> list[str]:
    lines = collected(*arguments).stdout.splitlines()
    return [line for line in lines if "::" in line]


def test_parts_hold_every_test_once() -> None:
    parts = [ids_of("--shard", f"{part}/3") for part in (1, 2, 3)]
    assert all(parts)
    assert sorted(test for part in parts for test in part) == sorted(ids_of())


def test_a_part_that_is_none_is_refused() -> None:
    done = collected("--shard", "4/3")
    assert done.returncode == 4
    assert "--shard must be K/N with K from 1 to N (not '4/3')" in done.stderr
