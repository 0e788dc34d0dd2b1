"""Partitions made on request: by digest, few, the idle ones first to go, never the first."""

from __future__ import annotations

import errno
import functools
import gc
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from tests.clock import Clock

from midstream_cloud.prepared import PreparedPartitions
from midstream_cloud.repository import Model, Repository
from midstream_cloud.server import Settings, serving
from midstream_partitioner.partition.background import Prepared, recut_beside
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import Runs, recut
from midstream_wire.address import Address
from midstream_wire.descriptions import Preparation, Readiness
from midstream_wire.errors import CloudRefused, ResourceError
from midstream_wire.frames import Code
from midstream_wire.tensors import Array
from midstream_wire.unary import read_readiness, write_preparation
from midstream_wire.v1 import midstream_pb2 as pb
from midstream_wire.v1.midstream_pb2_grpc import MidstreamStub

if TYPE_CHECKING:
    from tests.cloud.conftest import Client

_PATIENCE_S = 30.0


def cut_here(part: Partition, heads: Iterable[Runs]) -> Prepared:
    return Prepared(recut(part, heads))


def asked(model: Model, *heads: tuple[int, ...]) -> Preparation:
    part = model.partition
    return Preparation(model.name, part.graph_digest, part.digest, heads)


@pytest.fixture
def prepared(clock: Clock) -> Iterable[PreparedPartitions]:
    made = PreparedPartitions(2, cut=cut_here, clock=clock)
    yield made
    made.close()


def make(prepared: PreparedPartitions, model: Model, *heads: tuple[int, ...]) -> str:
    """Have it made; the digest."""
    assert prepared.prepare(model, asked(model, *heads)) == Readiness(False)
    assert prepared.wait(_PATIENCE_S)
    readiness = prepared.prepare(model, asked(model, *heads))
    assert readiness.ready
    return readiness.partition_digest


def assert_timed(model: Model) -> None:
    """A tail of any cut has a time, at the bytes that cross there."""
    for k in range(len(model.partition.segments)):
        ((nbytes, seconds),) = model.tail_points(k)
        assert nbytes == sum(spec.nominal_nbytes for spec in model.partition.crossing(k))
        assert 0 < seconds <= model.longest_tail_s


def test_a_model_without_a_profile_has_its_work_bounded_all_the_same(small: Partition) -> None:
    assert_timed(Repository().add("small", small))


def test_what_was_made_is_found_by_its_digest_and_answers_alike(
    prepared: PreparedPartitions, model: Model, picture: dict[str, Array], whole: Array
) -> None:
    digest = make(prepared, model, (0, 1), (0, 3))
    assert digest == recut(model.partition, [(0, 1), (0, 3)]).digest
    found = prepared.find("small", digest)
    assert found is not None
    assert_timed(found)
    np.testing.assert_allclose(found.chain.run(picture, 0, 3)["y"], whole, rtol=1e-5)
    assert prepared.find("other", digest) is None
    assert prepared.find("small", model.partition.digest) is None


def test_asking_again_and_for_what_is_there_makes_nothing(
    prepared: PreparedPartitions, model: Model
) -> None:
    present = [cut.runs for cut in model.partition.cuts]
    already = prepared.prepare(model, asked(model, *present))
    assert already == Readiness(True, model.partition.digest)
    digest = make(prepared, model, (0, 1))
    assert prepared.prepare(model, asked(model, (), (0, 1), (0, 6))) == Readiness(True, digest)


def test_the_idle_one_used_longest_ago_goes_and_one_with_sessions_stays(
    prepared: PreparedPartitions, model: Model, clock: Clock
) -> None:
    digests = []
    for size in (1, 2):
        digests.append(make(prepared, model, (0, size)))
        clock.now_s += 1.0
    first = prepared.find("small", digests[0])
    assert first is not None
    prepared.enter(first)
    make(prepared, model, (0, 3))
    assert prepared.find("small", digests[0]) is first
    assert prepared.find("small", digests[1]) is None


def test_where_sessions_use_all_that_may_be_held_another_is_refused(
    prepared: PreparedPartitions, model: Model
) -> None:
    digests = [make(prepared, model, (0, size)) for size in (1, 2)]
    first, second = (prepared.find("small", digest) for digest in digests)
    assert first is not None
    assert second is not None
    prepared.enter(first)
    prepared.enter(second)
    with pytest.raises(CloudRefused, match="at most 2 partitions") as refused:
        prepared.prepare(model, asked(model, (0, 3)))
    assert refused.value.code == Code.RESOURCE_EXHAUSTED
    prepared.leave(first)
    make(prepared, model, (0, 3))


def test_what_goes_is_freed_at_once(
    prepared: PreparedPartitions, model: Model, clock: Clock
) -> None:
    found = prepared.find("small", make(prepared, model, (0, 1)))
    assert found is not None
    chain = weakref.ref(found.chain)
    del found
    for size in (2, 3):
        clock.now_s += 1.0
        make(prepared, model, (0, size))
    gc.collect()
    assert chain() is None


def test_one_is_made_at_a_time(model: Model) -> None:
    going, released = threading.Event(), threading.Event()

    def cut(part: Partition, heads: Iterable[Runs]) -> Prepared:
        going.set()
        assert released.wait(_PATIENCE_S)
        return cut_here(part, heads)

    prepared = PreparedPartitions(2, cut=cut)
    assert not prepared.prepare(model, asked(model, (0, 1))).ready
    assert going.wait(_PATIENCE_S)
    with pytest.raises(CloudRefused, match="one partition at a time"):
        prepared.prepare(model, asked(model, (0, 2)))
    assert not prepared.prepare(model, asked(model, (0, 1))).ready
    released.set()
    assert prepared.wait(_PATIENCE_S)
    prepared.close()


def test_what_cannot_be_cut_says_why_once_and_may_be_asked_for_again(
    prepared: PreparedPartitions, model: Model
) -> None:
    for _ in range(2):
        assert not prepared.prepare(model, asked(model, (1, 2))).ready
        assert prepared.wait(_PATIENCE_S)
        with pytest.raises(
            CloudRefused, match="must hold every node it depends on"
        ) as refused:
            prepared.prepare(model, asked(model, (1, 2)))
        assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (OSError(28, "No space left on device"), Code.RESOURCE_EXHAUSTED),
        (MemoryError(), Code.RESOURCE_EXHAUSTED),
        (RuntimeError("can't start new thread"), Code.INTERNAL),
    ],
    ids=["disk", "memory", "surprise"],
)
def test_what_fails_while_a_partition_is_made_is_told_and_the_next_one_is_made(
    model: Model, fault: Exception, code: Code
) -> None:
    faults = [fault]

    def cut(part: Partition, heads: Iterable[Runs]) -> Prepared:
        if faults:
            raise faults.pop()
        return cut_here(part, heads)

    prepared = PreparedPartitions(2, cut=cut)
    assert not prepared.prepare(model, asked(model, (0, 1))).ready
    assert prepared.wait(_PATIENCE_S)
    with pytest.raises(CloudRefused) as refused:
        prepared.prepare(model, asked(model, (0, 1)))
    assert refused.value.code == code
    assert make(prepared, model, (0, 1))
    prepared.close()


def test_without_a_thread_to_make_it_a_partition_is_refused_and_made_later(
    prepared: PreparedPartitions, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(CloudRefused, match="none to give") as refused:
            prepared.prepare(model, asked(model, (0, 1)))
    assert refused.value.code == Code.RESOURCE_EXHAUSTED
    assert make(prepared, model, (0, 1))


def test_a_full_disk_is_no_fault_of_the_cuts_that_were_asked_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        recut_beside(model.partition, [(0, 1)])


def no_thread(_: threading.Thread) -> None:
    """What `threading.Thread.start` does at the limit of a process."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("heads", [((0, 9),), ((2, 1),), ((0, 1 << 31),), ((1,),)])
def test_heads_that_are_none_are_refused_before_anything_is_made(
    prepared: PreparedPartitions, model: Model, heads: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(CloudRefused) as refused:
        prepared.prepare(model, asked(model, *heads))
    assert refused.value.code == Code.INVALID_ARGUMENT


def test_another_partition_than_the_one_served_is_refused(
    prepared: PreparedPartitions, model: Model
) -> None:
    part = model.partition
    for graph, digest in ((part.graph_digest, "other"), ("other", part.digest)):
        with pytest.raises(CloudRefused, match="the same partition") as refused:
            prepared.prepare(model, Preparation("small", graph, digest, ((0, 1),)))
        assert refused.value.code == Code.FAILED_PRECONDITION


def test_nothing_is_made_where_the_operator_has_not_allowed_it(model: Model) -> None:
    with pytest.raises(CloudRefused, match="--repartition") as refused:
        PreparedPartitions(0).prepare(model, asked(model, (0, 1)))
    assert refused.value.code == Code.FAILED_PRECONDITION


@pytest.fixture
def willing(model: Model) -> Iterable[Address]:
    """A server that cuts anew, in a process of its own."""
    cut = functools.partial(recut_beside, gently=False)
    repository = Repository(repartition=1, cut=cut)
    repository.hold(model)
    with serving(repository) as address:
        yield address


def ask(address: Address, preparation: Preparation) -> Readiness:
    """What the server says once it is done."""
    with grpc.insecure_channel(address.target) as channel:
        stub, message = MidstreamStub(channel), write_preparation(preparation)
        until_s = time.monotonic() + _PATIENCE_S
        while not (reply := stub.Prepare(message, timeout=_PATIENCE_S)).ready:
            assert time.monotonic() < until_s
        return read_readiness(reply)


def test_a_session_begins_on_the_new_partition_while_another_goes_on_with_the_old(
    willing: Address, model: Model, connect: Callable[..., Client]
) -> None:
    client = connect(willing)
    old = client.talk()
    readiness = ask(willing, asked(model, (0, 1), (0, 4)))
    new = client.silent()
    assert new.hello(readiness.partition_digest).WhichOneof("kind") == "welcome"
    part = recut(model.partition, [(0, 1), (0, 4)])
    assert part.digest == readiness.partition_digest
    x = {"x": np.zeros((1, 3, 16, 16), np.float32)}
    new.request(0, 0, x)
    expected = model.chain.run(x, 0, 3)["y"]
    np.testing.assert_allclose(client.output(new.reply()), expected, rtol=1e-5)
    client.check(old, id=0)


def test_preparing_needs_the_token_like_everything_else(model: Model) -> None:
    repository = Repository(repartition=1)
    repository.hold(model)
    with (
        serving(repository, settings=Settings(token="secret" * 6)) as address,
        grpc.insecure_channel(address.target) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        MidstreamStub(channel).Prepare(write_preparation(asked(model, (0, 1))), timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (pb.PrepareRequest(model="absent"), grpc.StatusCode.NOT_FOUND),
        (pb.PrepareRequest(model="small"), grpc.StatusCode.FAILED_PRECONDITION),
        (pb.PrepareRequest(heads=[pb.Head()] * 100), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_refusal_is_the_status_of_the_call(
    willing: Address, message: pb.PrepareRequest, code: grpc.StatusCode
) -> None:
    with (
        grpc.insecure_channel(willing.target) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        MidstreamStub(channel).Prepare(message, timeout=10)
    assert refused.value.code() is code
