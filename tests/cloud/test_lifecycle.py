"""Starting and stopping: a taken port, a drain that finishes what is under way, signals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from midstream_cloud.repository import Model, Repository
from midstream_cloud.server import Settings, serving
from midstream_partitioner.backends.stopping import Stop
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import UsageError
from midstream_wire.frames import Code
from midstream_wire.tensors import Array

if TYPE_CHECKING:
    from tests.cloud.conftest import Client, Talk

Connect = Callable[..., "Client"]

_PATIENCE_S = 20.0


class Slow:
    """A chain that waits to be let before it runs."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.begun, self.let = threading.Event(), threading.Event()

    def run(
        self, state: Mapping[str, Array], first: int, last: int, *, stop: Stop
    ) -> dict[str, Array]:
        self.begun.set()
        assert self.let.wait(_PATIENCE_S)
        return self._chain.run(state, first, last)


@pytest.mark.parametrize("address", ["192.0.2.1:1", None], ids=["elsewhere", "taken"])
def test_an_address_that_cannot_be_had_is_an_error_in_one_sentence(
    repository: Repository, address: str | None
) -> None:
    with serving(repository) as taken:
        wanted = address or taken.target
        settings = Settings(insecure=True)
        expected = re.escape(f"able to listen on {wanted}: give")
        with (
            pytest.raises(UsageError, match=expected),
            serving(repository, wanted, settings=settings),
        ):
            pass


def test_a_socket_in_the_file_system_serves(
    repository: Repository, connect: Connect, tmp_path: Path
) -> None:
    with serving(repository, f"unix:{tmp_path}/cloud.sock") as address:
        connect(address).check_server()


@pytest.fixture
def slow(model: Model) -> Slow:
    return Slow(model.chain)


@pytest.fixture
def slowly(small: Partition, slow: Slow) -> Repository:
    repository = Repository()
    repository.hold(Model("small", small, cast(Chain, slow)))
    return repository


def _hear_go_away(talk: Talk) -> None:
    assert talk.hear().go_away.reason.code == Code.UNAVAILABLE


def test_a_server_that_stops_answers_what_is_under_way(
    slowly: Repository, slow: Slow, connect: Connect
) -> None:
    with contextlib.ExitStack() as stack:
        client = connect(stack.enter_context(serving(slowly)))
        health = health_pb2_grpc.HealthStub(client.channel)
        idle, busy = client.talk(), client.talk()
        busy.request(1, 1, client.crossing(1))
        assert slow.begun.wait(_PATIENCE_S)
        stopping = threading.Thread(target=stack.pop_all().close)
        stopping.start()

        _hear_go_away(idle)
        assert idle.ends()
        _hear_go_away(busy)
        reply = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        _hear_go_away(client.silent())  # whoever comes now is sent away

        slow.let.set()
        assert np.array_equal(client.output(busy.reply()), client.whole)
        assert busy.ends()
        stopping.join(_PATIENCE_S)
        assert not stopping.is_alive()


def test_a_server_that_stops_does_not_wait_for_ever(
    slowly: Repository, slow: Slow, connect: Connect
) -> None:
    with serving(slowly, settings=Settings(drain_s=0.05)) as address:
        client = connect(address)
        busy = client.talk()
        busy.request(1, 1, client.crossing(1))
        assert slow.begun.wait(_PATIENCE_S)
    _hear_go_away(busy)
    with pytest.raises(grpc.RpcError):
        busy.hear()
    slow.let.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_exit_code_0(number: signal.Signals) -> None:
    program = (
        "from midstream_cloud.repository import Repository\n"
        "from midstream_cloud.server import run\n"
        "run(Repository(), '127.0.0.1:0', on_start=lambda where: print(where, flush=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"127.0.0.1:")
            process.send_signal(number)
            assert process.wait(_PATIENCE_S) == 0
        finally:
            process.kill()
