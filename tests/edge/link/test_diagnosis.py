"""What stands at an address that gRPC cannot use: told by codes, and rightly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from midstream_cloud.server import Settings
from midstream_edge.link.describe import describe
from midstream_edge.link.diagnosis import examine
from midstream_edge.link.failures import UNDIAGNOSED, Kind
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.address import parse_address
from midstream_wire.credentials import ChannelTls, channel_tls, server_tls
from midstream_wire.errors import ProtocolError
from midstream_wire.tensors import Array

if TYPE_CHECKING:
    from tests.edge.conftest import Serve

Picture = Callable[[int], Mapping[str, Array]]


def kind_of(server: str, tls: ChannelTls | None = None) -> Kind:
    return examine(parse_address(server), tls).kind


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Says `answer` to whoever connects, and hangs up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    end, _ = listener.accept()
                except OSError:
                    return
                with end:
                    end.recv(1024)
                    end.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secured(serve: Serve, certificates: Path) -> Callable[..., AbstractContextManager[str]]:
    """`secured(name, client_authority=...)`: a server under the certificate of that name."""

    def begin(name: str, **named: Path) -> AbstractContextManager[str]:
        credentials = server_tls(
            certificate=certificates / f"{name}.pem", key=certificates / f"{name}.key", **named
        )
        return serve(settings=Settings(credentials=credentials))

    return begin


def test_a_server_that_is_there_is_seen(server: str) -> None:
    assert examine(parse_address(server), None) is UNDIAGNOSED


def test_a_web_server_is_foreign_and_a_closed_port_absent() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web:
        assert kind_of(web) is Kind.FOREIGN
        assert kind_of(web, channel_tls()) is Kind.MISTRUST
    assert kind_of(web) is Kind.ABSENT
    assert kind_of("nowhere.invalid:1") is Kind.ABSENT
    assert kind_of("unix:/nonexistent/socket") is Kind.ABSENT


def test_one_that_hangs_up_without_a_word_may_be_back() -> None:
    with answering(b"") as mute:
        assert kind_of(mute) is Kind.PRESENT
        assert kind_of(mute, channel_tls()) is Kind.PRESENT


def test_what_tls_fails_at_is_told(
    certificates: Path, secured: Callable[..., AbstractContextManager[str]], server: str
) -> None:
    authority = certificates / "authority.pem"
    trusting = channel_tls(authority=authority)
    assert kind_of(server, trusting) is Kind.MISTRUST
    with secured("server") as address:
        assert kind_of(address, trusting) is Kind.PRESENT
        assert kind_of(address, channel_tls()) is Kind.MISTRUST
        assert "speaks TLS" in examine(parse_address(address), None).what
    with secured("elsewhere") as address:
        what = examine(parse_address(address), trusting).what
        assert "not valid for" in what
        assert not what.endswith(".")  # the sentence goes on
    with secured("server", client_authority=authority) as address:
        assert "client's certificate" in examine(parse_address(address), trusting).what
        own = channel_tls(
            authority=authority,
            certificate=certificates / "edge.pem",
            key=certificates / "edge.key",
        )
        assert kind_of(address, own) is Kind.PRESENT
        assert kind_of(address) is Kind.MISTRUST


def test_a_session_and_a_question_say_that_certificates_do_not_fit(
    chain: Chain, certificates: Path, secured: Callable[..., AbstractContextManager[str]]
) -> None:
    with secured("elsewhere") as address:
        tls = channel_tls(authority=certificates / "authority.pem")
        with pytest.raises(ProtocolError, match=r"TLS.*certificate"):
            EdgeSession(chain, address, plan=(1, "raw"), tls=tls)
        with pytest.raises(ProtocolError, match=r"TLS.*plaintext"):
            describe(address)


def test_a_device_whose_clock_is_wrong_answers_alone(
    small: Partition,
    chain: Chain,
    certificates: Path,
    secured: Callable[..., AbstractContextManager[str]],
    picture: Picture,
) -> None:
    tls = channel_tls(authority=certificates / "authority.pem")
    with (
        secured("expired") as address,
        EdgeSession(chain, address, plan=(1, "raw"), tls=tls) as session,
    ):
        answer = session.infer(picture(0))
        assert answer.where == "edge-after-cloud-failed"
        assert "not valid now" in (answer.reason or "")


def test_behind_a_proxy_nobody_can_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert examine(parse_address("nowhere.invalid:1"), None) is UNDIAGNOSED
