"""Requests through a transform: answered alike, and refused in-band where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from midstream_cloud.repository import Model, Repository
from midstream_cloud.server import serving
from midstream_cloud.tails import Job, Tails
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.transforms.construct import make_packing
from midstream_partitioner.transforms.fit_prior import fit_prior
from midstream_partitioner.transforms.klt import klt, spectrum_of
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.errors import CloudRefused, CodecError, ModelError, ProtocolError
from midstream_wire.frames import Code, Piece
from midstream_wire.tensors import Array, TensorSpec
from midstream_wire.v1 import midstream_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cloud.conftest import Client, Talk

_MIB = 1 << 20


@pytest.fixture(scope="module")
def transformed(small: Partition, crossing: Callable[[int], dict[str, Array]]) -> Partition:
    """Of 8 channels at cut 1, all or two; of 4 at cut 2, all."""
    first, second = (spectrum_of([crossing(k)[name]]) for k, name in ((1, "a1"), (2, "a2")))
    return with_transforms(
        small,
        [
            klt(small, 1, "a1", *first.keep(2), nonnegative=True),
            klt(small, 1, "a1", *first.keep(8)),
            klt(small, 2, "a2", *second.keep(4)),
        ],
    )


@pytest.fixture(scope="module")
def held(transformed: Partition) -> Model:
    return Model("small", transformed, Chain(transformed))


@pytest.fixture
def client(held: Model, connect: Callable[..., Client]) -> Iterator[Client]:
    repository = Repository()
    repository.add("small", held.partition)
    with serving(repository) as address:
        yield replace(connect(address), partition=held.partition)


Travel = Callable[[int, str], dict[str, Array]]


@pytest.fixture(scope="module")
def travelling(held: Model, crossing: Callable[[int], dict[str, Array]]) -> Travel:
    """What an edge sends that ran k segments, under a transform."""
    return lambda k, name: held.chain.transform(k, name).encode(crossing(k))


def opening(
    k: int, arrays: Mapping[str, Array], transform: str, *, id: int = 1, codec_id: str = "raw"
) -> pb.ClientMessage:
    pieces = [
        pb.Piece(tensor=index, data=encode_bytes(codec(codec_id), array))
        for index, array in enumerate(arrays.values())
    ]
    request = pb.Request(
        id=id, first_segment=k, tensors=list(arrays), pieces=pieces, transform=transform
    )
    return pb.ClientMessage(request=request)


def answer(client: Client, talk: Talk, message: pb.ClientMessage) -> Array:
    talk.send(message)
    return client.output(talk.reply())


def test_all_components_give_the_untransformed_answer(
    client: Client, travelling: Travel
) -> None:
    talk = client.talk()
    for id, (k, name) in enumerate([(1, "klt:8"), (2, "klt:4")], start=1):
        found = answer(client, talk, opening(k, travelling(k, name), name, id=id))
        np.testing.assert_allclose(found, client.whole, rtol=1e-4, atol=1e-5)
    client.check(talk, id=3)


def test_the_answer_is_the_tails_of_what_the_decoder_restores(
    client: Client, held: Model, travelling: Travel
) -> None:
    sent = travelling(1, "klt:2")
    assert sent["a1"].shape == (1, 2, 16, 16)
    restored = held.chain.transform(1, "klt:2").decode(sent)
    wanted = held.chain.run(restored, 1, 3)["y"]
    assert np.array_equal(answer(client, client.talk(), opening(1, sent, "klt:2")), wanted)


def test_restoring_counts_as_decoding(client: Client, travelling: Travel) -> None:
    talk = client.talk()
    talk.send(opening(1, travelling(1, "klt:8"), "klt:8"))
    timings = talk.reply().timings
    assert timings.decode_s > 0
    assert timings.tail_s > 0
    total_s = timings.finished_s - timings.received_s
    assert timings.queue_s + timings.decode_s + timings.tail_s <= total_s


def test_the_unary_form_takes_a_transform(client: Client, travelling: Travel) -> None:
    hello = pb.Hello(model="small", partition_digest=client.partition.digest)
    payload = encode_bytes(codec("lossless"), travelling(1, "klt:8")["a1"])
    request = pb.InferRequest(
        hello=hello,
        first_segment=1,
        tensors=[pb.Tensor(name="a1", payload=payload)],
        transform="klt:8",
    )
    reply = client.stub.Infer(request)
    assert [tensor.name for tensor in reply.tensors] == ["y"]
    request.transform = "klt:9"
    with pytest.raises(grpc.RpcError) as caught:
        client.stub.Infer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "klt:2, klt:8" in caught.value.details()


def test_describe_tells_what_travels_under_each_transform(client: Client) -> None:
    (model,) = client.stub.Describe(pb.DescribeRequest()).models
    found = {
        cut.id: {t.name: [list(s.shape) for s in t.tensors] for t in cut.transforms}
        for cut in model.cuts
    }
    ids = [cut.id for cut in client.partition.cuts]
    assert found == {
        ids[0]: {},
        ids[1]: {"klt:2": [["1", "2", "16", "16"]], "klt:8": [["1", "8", "16", "16"]]},
        ids[2]: {"klt:4": [["1", "4", "16", "16"]]},
        ids[3]: {},
    }


@pytest.mark.parametrize(
    ("k", "sent", "named", "reason"),
    [
        (1, "klt:2", "klt:3", "must be one of klt:2, klt:8 (not 'klt:3')"),
        (1, "klt:2", "../../etc/passwd", "must be one of klt:2, klt:8"),
        (1, "klt:2", "klt:2+half", "must be one of klt:2, klt:8"),
        (1, "klt:2", "klt:4", "must be one of klt:2, klt:8"),
        (2, "klt:4", "klt:8", "must be one of klt:4"),
        (0, "", "klt:8", "must be one of none, for it has none"),
        (1, "klt:2", "klt:8", "a1"),
        (1, "klt:2", "", "a1"),
        (1, "", "klt:2", "a1"),
        (3, "", "klt:2", "first_segment must be"),
    ],
)
def test_a_request_that_does_not_fit_its_transform_is_refused_in_band(
    client: Client, travelling: Travel, picture: dict[str, Array], k: int, sent: str,
    named: str, reason: str,
) -> None:  # fmt: skip
    talk = client.talk()
    arrays = travelling(k, sent) if 0 < k < 3 else picture
    talk.send(opening(k, arrays, named))
    id, code, message = talk.refusal()
    assert (id, code) == (1, Code.INVALID_ARGUMENT)
    assert reason in message
    assert len(message) < 400
    client.check(talk, id=2)


def test_numbers_that_are_not_finite_are_answered(client: Client) -> None:
    talk = client.talk()
    array = np.full((1, 2, 16, 16), np.nan, np.float32)
    found = answer(client, talk, opening(1, {"a1": array}, "klt:2", codec_id="half"))
    assert found.shape == (1, 10)
    client.check(talk, id=2)


def test_a_server_without_transforms_refuses_them(
    connect: Callable[..., Client], server: object, small: Partition
) -> None:
    client = connect(server)
    talk = client.talk()
    talk.send(opening(1, {"a1": np.zeros((1, 2, 16, 16), np.float32)}, "klt:2"))
    assert talk.refusal()[:2] == (1, Code.INVALID_ARGUMENT)
    client.check(talk, id=2)


def test_an_edge_without_the_transforms_is_told_that_it_holds_another_partition(
    client: Client, small: Partition
) -> None:
    message = client.silent().hello(small.digest)
    assert message.go_away.reason.code == Code.FAILED_PRECONDITION


def test_what_a_decoder_makes_of_a_request_stays_within_the_limit() -> None:
    """One channel travels and 256 come of it: a request of 1 MiB would become 256."""
    part = _two_relus("n", 256, "h", "w")
    mean, basis = np.zeros(256, np.float32), np.eye(256, dtype=np.float32)
    part = with_transforms(part, [klt(part, 1, "h", mean, basis[:1])])
    assert part.travelling(1, "klt:1") == (TensorSpec("h", "float32", ("n", 1, "h", "w")),)
    held = Model("wide", part, Chain(part))
    for side, fits in ((32, True), (64, False)):  # of which come 1 MiB and 4
        payload = encode_bytes(codec("raw"), np.zeros((1, 1, side, side), np.float32))
        incoming = held.assemble(1, ["h"], transform="klt:1", max_nbytes=2 * _MIB)
        piece = Piece(0, payload)
        if fits:
            incoming.feed(piece)
            assert Job(held, 1, incoming, 0.0, transform="klt:1").tensors()
        else:
            with pytest.raises(CodecError, match="8192"):
                incoming.feed(piece)
    with pytest.raises(ProtocolError, match="must be one of klt:1"):
        held.assemble(1, ["h"], transform="klt:2", max_nbytes=_MIB)


def test_a_damaged_transform_stops_a_server_from_starting(
    transformed: Partition, tmp_path: Path
) -> None:
    save_partition(transformed, tmp_path)
    (tmp_path / "transforms" / "1.dec.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="the decoder of klt:8"):
        Repository().add("small", load_partition(tmp_path))


@pytest.fixture(scope="module")
def packing(small: Partition, crossing: Callable[[int], dict[str, Array]]) -> Partition:
    """What crosses cut 1 can be packed."""
    prior = fit_prior([crossing(1)["a1"]], 0.1)
    return with_transforms(small, [make_packing(small.cuts[1].id, 0.1, "a1", prior)])


def test_what_a_prior_has_packed_is_answered_and_what_is_damaged_refused(
    packing: Partition,
    connect: Callable[..., Client],
    crossing: Callable[[int], dict[str, Array]],
) -> None:
    repository = Repository()
    repository.add("small", packing)
    with serving(repository) as address:
        client = replace(connect(address), partition=packing)
        talk = client.talk()
        adapter = Chain(packing).transform(1, "prior:10")
        sent = adapter.encode(crossing(1))
        wanted = Chain(packing).run(adapter.decode(sent), 1, 3)["y"]
        assert np.array_equal(answer(client, talk, opening(1, sent, "prior:10")), wanted)
        for id, damaged in enumerate((sent["a1"][:-9], sent["a1"][::-1], sent["a1"][:3]), 2):
            talk.send(opening(1, {"a1": damaged}, "prior:10", id=id))
            assert talk.refusal()[:2] == (id, Code.INVALID_ARGUMENT)
        client.check(talk, id=9)


def test_packed_bytes_stand_for_256_times_as_many(packing: Partition) -> None:
    held = Model("small", packing, Chain(packing))
    for size, fits in ((64, True), (65, False)):
        incoming = held.assemble(1, ["a1"], transform="prior:10", max_nbytes=256 * 64)
        piece = Piece(0, encode_bytes(codec("raw"), np.zeros(size, np.uint8)))
        if fits:
            incoming.feed(piece)
        else:
            with pytest.raises(CodecError, match="64 bytes"):
                incoming.feed(piece)


def test_a_transform_buys_no_more_work_than_what_it_stands_for(
    held: Model,
    packing: Partition,
    travelling: Travel,
    crossing: Callable[[int], dict[str, Array]],
) -> None:
    whole = crossing(1)["a1"].nbytes
    packed = Chain(packing).transform(1, "prior:10").encode(crossing(1))
    for part, name, sent in (
        (held.partition, "klt:2", travelling(1, "klt:2")),
        (packing, "prior:10", packed),
    ):
        timed = (((whole, 0.1),),) * len(part.segments)
        told = Model("small", part, Chain(part), timed=timed)
        assert sent["a1"].nbytes < whole
        for most_s, fits in ((0.11, True), (0.09, False)):
            incoming = told.assemble(1, ["a1"], transform=name, max_nbytes=_MIB)
            incoming.feed(Piece(0, encode_bytes(codec("raw"), sent["a1"])))
            with closing(Tails(workers=1, max_work_s=most_s)) as tails:
                job = Job(told, 1, incoming, 0.0, transform=name)
                if fits:
                    assert tails.submit(job).result(10.0).nbytes > 0
                else:
                    with pytest.raises(CloudRefused, match=r"0\.09 s of a worker"):
                        tails.submit(job)


def test_what_a_prior_unpacks_at_open_sizes_is_bounded_before_it_runs() -> None:
    part, prior, sizes = _open_prior()
    chain = Chain(part)
    timed = (((4 * 8 * 16 * 16, 0.1),),) * len(part.segments)
    told = Model("open", part, chain, timed=timed)
    with closing(Tails(workers=1, max_work_s=0.15)) as tails:
        for batch, fits in ((1, True), (2, False)):
            picture = np.random.default_rng(batch).random((batch, 8, 16, 16), np.float32)
            sent = chain.transform(1, prior).encode({sizes: picture})
            incoming = told.assemble(1, [sizes], transform=prior, max_nbytes=16 * _MIB)
            incoming.feed(Piece(0, encode_bytes(codec("raw"), sent[sizes])))
            future = tails.submit(Job(told, 1, incoming, 0.0, transform=prior))
            if fits:
                assert future.result(10.0).nbytes > 0
            else:
                assert cast(CloudRefused, future.exception(10.0)).kind == "work"


def _two_relus(*shape: int | str) -> Partition:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["y"], "second"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "relus", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    network = load_network(model.SerializeToString())
    return partition(network, position_cuts(network.graph))


def _open_prior() -> tuple[Partition, str, str]:
    """Two Relus on batches of any size, and a prior for what crosses between them."""
    part = _two_relus("n", 8, 16, 16)
    prior = fit_prior([np.random.default_rng(0).random((1, 8, 16, 16), np.float32)], 0.1)
    packing = make_packing(part.cuts[1].id, 0.1, "h", prior)
    return with_transforms(part, [packing]), packing.name, "h"
