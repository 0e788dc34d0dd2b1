"""What all tests share: how property tests run on machines that are busy, and outside data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# No deadline per example: a busy machine is not a bug. A failure prints how to repeat it.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Trained networks and pictures that are no part of the repository."""
    folder = Path(os.environ.get("MIDSTREAM_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: name another folder in MIDSTREAM_DATA")
    return folder
