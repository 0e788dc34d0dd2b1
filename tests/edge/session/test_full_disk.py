"""Disks that are full while a partition is made: told on either side, and no request waits."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.repartition import prepare as preparation
from midstream_edge.repartition.prepare import prepare
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition import background as beside
from midstream_partitioner.partition.background import fuse_beside, recut_beside
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import CloudRefused, ModelError, ResourceError
from midstream_wire.frames import Code
from midstream_wire.tensors import Array

Picture = Callable[[int], Mapping[str, Array]]

pytestmark = pytest.mark.usefixtures("steady_link")

PATIENCE_S = 30.0
HEADS = ((0, 2),)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child process does and says is done and said here, at once."""

    def run(job: Mapping[str, Any], timeout_s: float, *, nice: int) -> None:
        beside._check_end(*beside._carry_out(job))

    monkeypatch.setattr(beside, "_run", run)
    monkeypatch.setattr(preparation, "POLL_S", 0.005)


@contextmanager
def full_disk(seed: int) -> Iterator[None]:
    """One side or both cannot write folders and files, sometimes or ever; of a file, half is.

    Nine seeds in a row have each case once.
    """
    rng, write, make = random.Random(seed), Path.write_bytes, tempfile.mkdtemp
    sides = ({"edge"}, {"cloud"}, {"edge", "cloud"})[seed % 3]
    rate = (0.1, 0.5, 1.0)[seed // 3 % 3]

    def fail() -> None:
        makers = threading.current_thread().name == "midstream-prepare"
        if ("cloud" if makers else "edge") in sides and rng.random() < rate:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_half(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        fail()
        write(path, data)
        return len(data)

    def make_none(*args: Any, **named: Any) -> str:
        fail()
        return str(make(*args, **named))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        patch.setattr(tempfile, "mkdtemp", make_none)
        yield


@contextmanager
def able_server(part: Partition) -> Iterator[tuple[Repository, str]]:
    """May make partitions, as a server does: in a folder for temporary files."""
    repository = Repository(repartition=2, cut=recut_beside)
    repository.add("small", part)
    with serving(repository) as address:
        yield repository, str(address)


def run_full(
    part: Partition,
    server: str,
    repository: Repository,
    inputs: Mapping[str, Array],
    *,
    seed: int,
) -> str:
    """One session while its partition is made on full disks: how the making ended.

    Every request is answered meanwhile, and once there is room the session goes over.
    """
    endpoint = Endpoint.of(server)
    with EdgeSession(Chain(part), endpoint, plan=(1, "raw"), model="small") as session:

        def make() -> None:
            fresh = prepare(part, HEADS, like=session.chain, endpoint=endpoint, model="small")
            session.swap(fresh.chain, plan=(1, "raw"))

        futures = [session.submit(inputs) for _ in range(4)]
        with full_disk(seed):
            error = _lack_of_room(make)
            futures += [session.submit(inputs) for _ in range(4)]
        assert [future.result(PATIENCE_S).where for future in futures] == ["cloud"] * 8
        assert repository.wait(PATIENCE_S)  # what the server began may still fail
        # What failed before is told to the first who asks; the next one gets it.
        if error is not None and _lack_of_room(make) is not None:
            make()
        answer = session.infer(inputs)
        assert (answer.where, answer.k) == ("cloud", 1)
        assert session.chain.partition.digest != part.digest
    return "made" if error is None else type(error).__name__


def _lack_of_room(make: Callable[[], None]) -> Exception | None:
    """Make a partition: None, or the error of the side that had no room for it."""
    error: ResourceError | CloudRefused | None = None
    try:
        make()
    except (ResourceError, CloudRefused) as raised:
        error = raised
    assert error is None or "No space left on device" in str(error)
    assert not isinstance(error, CloudRefused) or error.code == Code.RESOURCE_EXHAUSTED
    return error


@pytest.mark.usefixtures("in_process")
def test_a_full_disk_on_either_side_costs_no_request_and_no_session(
    small: Partition, picture: Picture
) -> None:
    ended: Counter[str] = Counter()
    for seed in range(9):
        with able_server(small) as (repository, server):
            ended[run_full(small, server, repository, picture(0), seed=seed)] += 1
    assert ended.total() == 9
    assert min(ended["CloudRefused"], ended["ResourceError"]) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_thousand_full_disks_cost_no_request_and_no_session(
    small: Partition, picture: Picture
) -> None:
    ended: Counter[str] = Counter()
    for seed in range(1000):
        with able_server(small) as (repository, server):
            ended[run_full(small, server, repository, picture(0), seed=1000 + seed)] += 1
    print(dict(ended))
    assert ended.total() == 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_child_process_whose_disk_is_full_says_so(small: Partition, tmp_path: Path) -> None:
    full = tmp_path / "fused.onnx"
    full.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="No space left on device"):
        fuse_beside(small, 0, 2, into=full, gently=False)


def test_how_a_child_process_ended_says_whose_fault_it_was() -> None:
    beside._check_end(0, "")
    with pytest.raises(ResourceError, match="signal 9"):
        beside._check_end(-9, "")
    with pytest.raises(ModelError, match="a cut must be"):
        beside._check_end(1, "a cut must be closed")
    with pytest.raises(ModelError, match="ended early"):
        beside._check_end(1, "", "Traceback\nKeyError: 'x'")
