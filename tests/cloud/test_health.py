"""Health is told to anybody, out of a fixed table, and costs the server next to nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from midstream_cloud import health, server
from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_cloud.statistics import Statistics
from midstream_wire.address import Address

if TYPE_CHECKING:
    from tests.cloud.conftest import Client

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def statistics() -> Statistics:
    return Statistics()


@pytest.fixture
def guarded(repository: Repository, statistics: Statistics) -> Iterator[Address]:
    settings = Settings(token="sesame")
    with serving(repository, settings=settings, statistics=statistics) as address:
        yield address


@pytest.fixture
def stub(guarded: Address, connect: Callable[..., Client]) -> Any:
    return health_pb2_grpc.HealthStub(connect(guarded).channel)


def _ask(name: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


def test_names_of_the_table_are_served_without_a_token(stub: Any) -> None:
    for name in ("", "midstream.v1.Midstream"):
        assert stub.Check(_ask(name), timeout=10).status == _SERVING
        watch = stub.Watch(_ask(name), timeout=10)
        assert next(watch).status == _SERVING
        watch.cancel()


def test_other_names_are_unknown_and_long_ones_are_not_read(
    stub: Any, statistics: Statistics
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(_ask("resnet"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert next(stub.Watch(_ask("resnet"), timeout=10)).status == _UNKNOWN
    for call in (stub.Check, lambda *a, **k: next(stub.Watch(*a, **k))):
        with pytest.raises(grpc.RpcError) as caught:
            call(_ask("x" * health.MAX_NBYTES), timeout=10)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert statistics.refused == {"not found": 1, "invalid": 2}


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_every_refused_health_call_is_counted(
    guarded: Address,
    connect: Callable[..., Client],
    statistics: Statistics,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 0.1)
    call = connect(guarded).channel.stream_stream(f"/grpc.health.v1.Health/{method}")
    silent = threading.Event()

    def nothing() -> Iterator[bytes]:
        silent.wait(10)
        yield from ()

    for messages, code in (
        (iter([]), grpc.StatusCode.INVALID_ARGUMENT),
        (iter([b"\xff" * 9]), grpc.StatusCode.INVALID_ARGUMENT),
        (nothing(), grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            next(call(messages, timeout=10))
        assert caught.value.code() == code
    silent.set()
    assert statistics.refused == {"invalid": 2, "stalled": 1}


def test_calls_at_a_time_are_limited_and_leave_their_places(
    stub: Any, statistics: Statistics
) -> None:
    watches = [stub.Watch(_ask(), timeout=10) for _ in range(health.MAX_CALLS)]
    assert [next(watch).status for watch in watches] == [_SERVING] * health.MAX_CALLS
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(_ask(), timeout=10))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert statistics.refused == {"overload": 1}
    for watch in watches:
        watch.cancel()
    for _ in range(1000):  # until the server has noticed
        with contextlib.suppress(grpc.RpcError):
            assert stub.Check(_ask(), timeout=10).status == _SERVING
            return
    raise AssertionError("no place was left")


def test_health_calls_leave_the_smallest_server_room_for_others() -> None:
    assert health.MAX_CALLS <= server._LEAST_CALLS // 4


def test_those_who_watch_are_told_that_it_stops(
    repository: Repository, connect: Callable[..., Client]
) -> None:
    with serving(repository) as address:
        stub = health_pb2_grpc.HealthStub(connect(address).channel)
        watch = stub.Watch(_ask(), timeout=10)
        assert next(watch).status == _SERVING
    assert next(watch).status == _NOT_SERVING


@pytest.mark.parametrize("method", ["Infer", "Describe", "Prepare", "Session"])
def test_without_a_token_nothing_is_read_of_a_call(
    guarded: Address, connect: Callable[..., Client], method: str
) -> None:
    call = connect(guarded).channel.stream_stream(f"/midstream.v1.Midstream/{method}")
    garbage = b"\xff" * 1000
    with pytest.raises(grpc.RpcError) as caught:
        next(call(iter([garbage]), timeout=10))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    if method != "Session":  # which is told in-band
        token = (("authorization", "Bearer sesame"),)
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter([garbage]), timeout=10, metadata=token))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
