"""An edge that is there before its server answers alone, then with it, by whatever name."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import pytest

from midstream import discovery as discovery_module
from midstream.deployment import Deployment, EdgeSetup, begin_session, deploy
from midstream.discovery import Discovery
from midstream.joining import Joining
from midstream.loaders import open_network, open_partition
from midstream.serving import open_repository
from midstream_cloud.repository import Repository
from midstream_cloud.server import Settings, serving
from midstream_edge.link.describe import describe
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.descriptions import ModelDescription
from midstream_wire.errors import CloudRefused, CloudUnavailable
from midstream_wire.tensors import Array

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def part() -> Partition:
    return open_partition("digits")


@pytest.fixture(scope="module")
def repository() -> Repository:
    return open_repository(["digits"], runs=1)


def sample(part: Partition) -> dict[str, Array]:
    return {
        spec.name: np.zeros([n if isinstance(n, int) else 1 for n in spec.shape], spec.dtype)
        for spec in part.inputs
    }


@contextmanager
def full() -> Iterator[int]:
    """A port whose listener takes no more connections: SYNs vanish as in a black hole."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        ends = [socket.socket() for _ in range(3)]
        for end in ends:
            end.setblocking(False)
            end.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for end in ends:
                end.close()


def wait_for_cloud(session: EdgeSession, x: dict[str, Array]) -> None:
    """Ask until an answer comes from the cloud; every one before comes from the edge."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < PATIENCE_S:
        where = session.infer(x, deadline_s=PATIENCE_S).where
        if where == "cloud":
            return
        assert where.startswith("edge")
    raise AssertionError("no answer came from the cloud")


@contextmanager
def joining(part: Partition, port: int) -> Iterator[tuple[EdgeSession, Joining]]:
    """A session that runs everything in the cloud once it may."""
    endpoint = Endpoint.of(f"127.0.0.1:{port}")
    side = EdgeSetup(runs=1).hold(part, model="elsewhere")

    def begin(found: Deployment) -> None:
        session.use(0, "raw")

    agree = partial(deploy, "digits", endpoint, EdgeSetup(runs=1), held=side)
    with (
        begin_session(side, endpoint, patience_s=0.0) as session,
        Joining(session, agree=agree, begin=begin) as joined,
    ):
        yield session, joined


def test_an_edge_before_a_black_hole_answers_and_uses_the_cloud_once_it_is_there(
    part: Partition, repository: Repository
) -> None:
    x = sample(part)
    with full() as port, joining(part, port) as (session, joined):
        assert session.infer(x).where == "edge"
        assert not joined.joined.wait(1.0)
        assert session.infer(x).where == "edge"
    with joining(part, port) as (session, joined):  # refused now
        assert session.infer(x).where == "edge"
        with serving(repository, f"127.0.0.1:{port}"):
            wait_for_cloud(session, x)
            assert session.model == "digits"  # not what the edge had called it
            assert joined.error is None


def test_a_server_out_of_reach_is_not_waited_for_while_the_edge_gets_ready() -> None:
    with full() as port:
        discovery = Discovery(Endpoint.of(f"127.0.0.1:{port}"))
        assert discovery.glance() is None
        with pytest.raises(CloudUnavailable, match="nothing came within 1 s"):
            discovery.result()


def test_a_server_that_can_be_reached_is_heard_out(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()

    def ask(endpoint: Endpoint) -> tuple[ModelDescription, ...]:
        assert ready.wait(PATIENCE_S)
        return describe(endpoint)

    monkeypatch.setattr(discovery_module, "describe", ask)
    monkeypatch.setattr(discovery_module, "REACH_S", PATIENCE_S)
    with serving(repository) as address:
        discovery = Discovery(Endpoint.of(str(address)))
        assert discovery.glance() is None
        ready.set()
        assert [each.name for each in discovery.result()] == ["digits"]
        assert discovery.glance() == discovery.result()


def test_a_server_that_refuses_is_heard_at_once(repository: Repository) -> None:
    with (
        serving(repository, settings=Settings(token="sesame")) as address,
        pytest.raises(CloudRefused, match="credentials"),
    ):
        Discovery(Endpoint.of(str(address))).result()


def test_a_server_that_cuts_elsewhere_is_followed(part: Partition) -> None:
    network = open_network("digits")
    cuts = position_cuts(network.graph)
    other = partition(network, [cuts[len(cuts) // 2]])
    assert other.digest != part.digest
    repository = Repository()
    side = EdgeSetup(runs=1).hold(other)
    repository.add("digits", other, profile=side.edge)
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    x = sample(part)
    with joining(part, port) as (session, _):
        assert session.infer(x).where == "edge"
        with serving(repository, f"127.0.0.1:{port}"):
            wait_for_cloud(session, x)
            assert session.chain.partition.digest == other.digest


def test_a_server_that_refuses_is_told_of_and_asked_again(
    part: Partition, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    x = sample(part)
    told = threading.Event()
    with joining(part, port) as (session, joined):
        with serving(repository, f"127.0.0.1:{port}", settings=Settings(token="sesame")):
            end_s = time.monotonic() + PATIENCE_S
            while joined.error is None and time.monotonic() < end_s:
                told.wait(0.05)
            assert session.infer(x).where == "edge"
        assert "credentials" in str(joined.error)
        assert any("going on alone" in record.message for record in caplog.records)
