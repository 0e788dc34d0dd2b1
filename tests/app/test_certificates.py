"""The recipe for certificates in docs/how-to/tls-and-tokens.md, run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import midstream
from midstream_cloud.server import Settings
from midstream_wire.credentials import server_tls

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/tls-and-tokens.md"


def recipe() -> str:
    (found,) = re.findall(
        r"^```sh\n(openssl req .*?)^```", PAGE.read_text("utf-8"), re.M | re.S
    )
    return str(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the recipe makes, by smaller keys, which take less time."""
    if shutil.which("openssl") is None:
        pytest.skip("the recipe needs openssl")
    folder = tmp_path_factory.mktemp("certificates")
    lines = recipe().replace("rsa:3072", "rsa:2048")
    subprocess.run(["sh", "-ec", lines], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_edges_and_server_take_what_the_recipe_makes(made: Path, host: str) -> None:
    part = midstream.partition("digits")
    credentials = server_tls(
        certificate=made / "server.pem",
        key=made / "server.key",
        client_authority=made / "ca.pem",
    )
    with midstream.serve(part, settings=Settings(credentials=credentials)) as server:
        address = f"{host}:{server.rpartition(':')[2]}"
        with midstream.connect(
            part,
            address,
            (0, "raw"),
            ca=made / "ca.pem",
            cert=made / "edge.pem",
            key=made / "edge.key",
        ) as session:
            assert session.infer(midstream.inputs(part)[0]).where == "cloud"


def test_the_certificate_names_what_the_page_says(made: Path) -> None:
    told = subprocess.run(
        ["openssl", "x509", "-in", made / "server.pem", "-noout", "-ext", "subjectAltName"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "DNS:cloud.example, DNS:localhost, IP Address:192.0.2.7" in told
