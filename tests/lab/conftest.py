"""What tests of pages share: a real browser that opens and prints one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def printed(tmp_path: Path) -> Callable[[str], tuple[list[str], bytes]]:
    """Opens a page given as text: what its console said, and the PDF that it prints."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here to open it with")
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"

    def print_page(text: str) -> tuple[list[str], bytes]:
        page.write_text(text)
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        words += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
        words += ["--enable-logging=stderr", f"--print-to-pdf={paper}", page.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60.0)
        assert done.returncode == 0
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return said, paper.read_bytes()

    return print_page
