"""Where a server listens: sockets of others are left alone, and certificates are renewed."""

from __future__ import annotations

import shutil
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, clear_socket, serving
from midstream_cloud.statistics import Statistics
from midstream_wire.credentials import server_tls
from midstream_wire.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_a_socket_in_use_is_left_to_its_server(repository: Repository, path: Path) -> None:
    with serving(repository, f"unix:{path}"):
        with pytest.raises(UsageError, match="a socket that no other has"):
            clear_socket(path)
        with pytest.raises(UsageError, match="a socket that no other has"):  # noqa: SIM117
            with serving(repository, f"unix:{path}"):
                pass
        assert path.exists()


def test_a_socket_left_behind_is_replaced(repository: Repository, path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))
    assert path.exists()
    with serving(repository, f"unix:{path}") as address:
        assert address.host == str(path)
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.connect(str(path))


def test_what_is_no_socket_is_not_removed(repository: Repository, path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(UsageError, match="which is something else"):  # noqa: SIM117
        with serving(repository, f"unix:{path}"):
            pass
    assert path.read_text() == "mine"


def shown(port: int) -> bytes:
    """The certificate that a server shows to one that connects now."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        closing(socket.create_connection(("127.0.0.1", port), 10)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.fixture
def files(tmp_path: Path, certificates: Path) -> tuple[Path, Path]:
    pair = tmp_path / "cert.pem", tmp_path / "cert.key"
    shutil.copy(certificates / "server.pem", pair[0])
    shutil.copy(certificates / "server.key", pair[1])
    return pair


def test_a_certificate_that_has_changed_is_shown_to_the_next_edge(
    repository: Repository,
    files: tuple[Path, Path],
    certificates: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificate, key = files
    settings = Settings(credentials=server_tls(certificate=certificate, key=key))
    with serving(repository, settings=settings) as address:
        assert address.port is not None
        first = shown(address.port)
        certificate.write_text("no certificate at all")
        assert shown(address.port) == first
        assert "stays the one before" in caplog.text
        shutil.copy(certificates / "edge.key", key)
        shutil.copy(certificates / "edge.pem", certificate)
        assert shown(address.port) != first


def test_a_server_counts_what_it_refuses(repository: Repository) -> None:
    statistics = Statistics()
    with serving(
        repository, statistics=statistics, settings=Settings(token="s" * 32)
    ) as address:
        import grpc

        with grpc.insecure_channel(address.target) as channel:
            call = channel.unary_unary("/midstream.v1.Midstream/Describe")
            for _ in range(3):
                with pytest.raises(grpc.RpcError):
                    call(b"", timeout=10)
    assert statistics.refused == {"unauthenticated": 3}
