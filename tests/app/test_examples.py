"""Every program in examples/ runs, and does what its first line says."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
#: Run here; the others are run by tests of their own.
TOLD = {
    "camera_loop": r"50 by|\d+ by .*; the slowest took",
    "own_processing": r"^a 7, with \d+%",
    "asyncio_client": r"^20 answers, the slowest within",
    "virtual_session": r"a minute of requests: .*, 0 later than their deadline",
}
ELSEWHERE = {
    "own_codec": "tests/app/test_own_codec.py",
    "own_policy": "tests/app/test_own_policy.py",
    "torch_module": "tests/torch",
}


@pytest.mark.parametrize("name", TOLD)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"examples.{name}").main
    if asyncio.iscoroutinefunction(main):
        asyncio.run(main())
    else:
        main()
    assert re.search(TOLD[name], capsys.readouterr().out)


def test_every_example_is_listed_and_run() -> None:
    programs = {path.stem for path in FOLDER.glob("*.py")}
    assert programs == {*TOLD, *ELSEWHERE}
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\[(\w+)\.py\]", page)) == programs
