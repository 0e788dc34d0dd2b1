"""Tokens, TLS and mutual TLS over real sockets, and plaintext only where nobody listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_wire.credentials import bearer, channel_tls, server_tls
from midstream_wire.errors import UsageError
from midstream_wire.v1 import midstream_pb2 as pb

if TYPE_CHECKING:
    from tests.cloud.conftest import Client

Connect = Callable[..., "Client"]

_TOKEN = "correct-horse-battery-staple"


def test_only_the_bearer_of_the_token_is_served(
    repository: Repository, connect: Connect
) -> None:
    with serving(repository, settings=Settings(token=_TOKEN)) as address:
        client = connect(address)
        for metadata in ((), bearer("wrong"), bearer(_TOKEN + "x")):
            for call in (
                lambda m: client.stub.Describe(pb.DescribeRequest(), metadata=m, timeout=10),
                lambda m: client.stub.Infer(pb.InferRequest(), metadata=m, timeout=10),
                lambda m: list(client.stub.Session(iter(()), metadata=m, timeout=10)),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    call(metadata)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
                assert _TOKEN not in caught.value.details()
        client.check(client.talk(bearer(_TOKEN)), id=1)


def test_a_refused_session_ends_before_it_has_said_anything(
    repository: Repository, connect: Connect
) -> None:
    """A client that waits for its welcome must not wait for ever."""
    with serving(repository, settings=Settings(token=_TOKEN)) as address:
        talk = connect(address).silent()
        with pytest.raises(grpc.RpcError):
            talk.hear()
        assert talk.call.code() == grpc.StatusCode.UNAUTHENTICATED


def test_health_is_told_without_a_token(repository: Repository, connect: Connect) -> None:
    with serving(repository, settings=Settings(token=_TOKEN)) as address:
        stub = health_pb2_grpc.HealthStub(connect(address).channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_tls_serves_who_trusts_the_authority(
    repository: Repository, connect: Connect, certificates: Path
) -> None:
    credentials = server_tls(
        certificate=certificates / "server.pem", key=certificates / "server.key"
    )
    settings = Settings(credentials=credentials, token=_TOKEN)
    with serving(repository, "localhost:0", settings=settings) as address:
        trusting = channel_tls(authority=certificates / "authority.pem").credentials
        client = connect(address, trusting)
        client.check(client.talk(bearer(_TOKEN)), id=1)
        for stranger in (connect(address, channel_tls().credentials), connect(address)):
            with pytest.raises(grpc.RpcError):
                stranger.silent().hear()
        client.check(client.talk(bearer(_TOKEN)), id=1)


def test_mutual_tls_serves_only_edges_with_a_certificate(
    repository: Repository, connect: Connect, certificates: Path
) -> None:
    authority = certificates / "authority.pem"
    credentials = server_tls(
        certificate=certificates / "server.pem",
        key=certificates / "server.key",
        client_authority=authority,
    )
    settings = Settings(credentials=credentials)
    with serving(repository, "localhost:0", settings=settings) as address:
        known = channel_tls(
            authority=authority,
            certificate=certificates / "edge.pem",
            key=certificates / "edge.key",
        ).credentials
        connect(address, known).check_server()
        with pytest.raises(grpc.RpcError):
            connect(address, channel_tls(authority=authority).credentials).silent().hear()
        connect(address, known).check_server()


@pytest.mark.parametrize("token", [None, _TOKEN])
def test_plaintext_beyond_loopback_is_refused_unless_asked_for(
    repository: Repository, token: str | None
) -> None:
    with (
        pytest.raises(UsageError, match="--insecure"),
        serving(repository, "0.0.0.0:0", settings=Settings(token=token)),
    ):
        pass
    with serving(repository, "0.0.0.0:0", settings=Settings(token=token, insecure=True)):
        pass
