"""What all tests share: how property tests run on machines that are busy, and outside data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import settings

from midstream_wire.codecs import plugins

ROOT = Path(__file__).resolve().parent.parent

# No deadline per example: a busy machine is not a bug. A failure prints how to repeat it. The
# default suite tries the same examples every time; `make slow` looks for others.
settings.register_profile("house", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", help="run one of N parts of the tests chosen: K/N")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of `--shard` alone. A test is always in the same part of N."""
    shard = config.getoption("--shard")
    if not shard:
        return
    named = re.fullmatch(r"(\d+)/(\d+)", shard)
    part, count = map(int, named.groups()) if named else (0, 0)
    if not 1 <= part <= count:
        raise pytest.UsageError(
            f"--shard must be K/N with K from 1 to N (not {shard!r}): 3/24"
        )
    mine = [item for item in items if crc32(item.nodeid.encode()) % count == part - 1]
    config.hook.pytest_deselected(items=[item for item in items if item not in mine])
    items[:] = mine


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Trained networks and pictures that are no part of the repository."""
    folder = Path(os.environ.get("MIDSTREAM_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: name another folder in MIDSTREAM_DATA")
    return folder


@pytest.fixture
def no_codec_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has loaded no codecs of users; what a test loads is gone after it."""
    monkeypatch.setattr(plugins, "_LOADED", {})
    plugins.setting_of.cache_clear()
    yield
    plugins.setting_of.cache_clear()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates signed by it: a server's, an edge's, one that has expired
    and one of another host."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60
        )

    here = "DNS:localhost,IP:127.0.0.1"
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-days", "2",
            "-keyout", "authority.key", "-out", "authority.pem")  # fmt: skip
    for name, days, hosts in (
        ("server", "2", here),
        ("edge", "2", here),
        ("expired", "-1", here),
        ("elsewhere", "2", "DNS:elsewhere.example"),
    ):
        (folder / "extension").write_text(f"subjectAltName={hosts}\n")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "authority.pem", "-CAkey",
                "authority.key", "-CAcreateserial", "-days", days, "-extfile", "extension",
                "-out", f"{name}.pem")  # fmt: skip
    return folder
