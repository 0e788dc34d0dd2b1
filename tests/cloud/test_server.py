"""What a server answers over real sockets: sessions, unary requests, descriptions, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from midstream_cloud.service import SERVICE
from midstream_partitioner.graph.cuts import head_of
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import codec, decode, encode_bytes
from midstream_wire.limits import MAX_IN_FLIGHT, MAX_PADDING_NBYTES, MAX_REQUEST_NBYTES
from midstream_wire.unary import read_description
from midstream_wire.v1 import midstream_pb2 as pb

if TYPE_CHECKING:
    from tests.cloud.conftest import Client


@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("codec_id", ["raw", "lossless"])
def test_the_tail_finishes_what_the_head_began(client: Client, k: int, codec_id: str) -> None:
    talk = client.talk()
    talk.request(1, k, client.crossing(k), codec_id=codec_id)
    assert np.array_equal(client.output(talk.reply()), client.whole)


def test_a_welcome_says_what_a_session_may_ask_for(client: Client, small: Partition) -> None:
    welcome = client.silent().hello(small.digest).welcome
    assert welcome.server.startswith("midstream ")
    assert welcome.max_in_flight == MAX_IN_FLIGHT
    assert welcome.max_request_nbytes == MAX_REQUEST_NBYTES


def test_requests_are_answered_while_others_are_under_way(client: Client) -> None:
    talk = client.talk()
    for id in range(8):
        talk.request(id, id % 3, client.crossing(id % 3))
    replies = [talk.reply() for _ in range(8)]
    assert sorted(reply.id for reply in replies) == list(range(8))
    assert all(np.array_equal(client.output(reply), client.whole) for reply in replies)


def test_a_request_may_arrive_byte_by_byte(client: Client) -> None:
    talk = client.talk()
    payload = encode_bytes(codec("lossless"), client.crossing(1)["a1"])
    talk.send(pb.ClientMessage(request=pb.Request(id=5, first_segment=1, tensors=["a1"])))
    step = len(payload) // 20
    for start in range(0, len(payload), step):
        piece = pb.Piece(tensor=0, data=payload[start : start + step])
        talk.send(pb.ClientMessage(more=pb.More(id=5, pieces=[piece])))
    assert np.array_equal(client.output(talk.reply()), client.whole)


def test_what_is_under_way_is_answered_after_the_edge_closed_its_half(client: Client) -> None:
    talk = client.talk()
    talk.request(1, 0, client.crossing(0))
    talk.half_close()
    assert np.array_equal(client.output(talk.reply()), client.whole)
    assert talk.ends()


def test_the_times_of_a_reply_lie_in_order(client: Client) -> None:
    timings = client.check(client.talk(), id=1).timings
    assert 0 < timings.received_s < timings.finished_s
    parts = timings.decode_s + timings.queue_s + timings.tail_s
    assert 0 < parts <= timings.finished_s - timings.received_s
    assert min(timings.decode_s, timings.queue_s) >= 0
    assert timings.tail_s > 0


@pytest.mark.parametrize("nbytes", [0, 1, MAX_PADDING_NBYTES])
def test_a_ping_gets_the_padding_it_asks_for(client: Client, nbytes: int) -> None:
    talk = client.talk()
    ping = pb.Ping(id=9, padding=bytes(1000), reply_nbytes=nbytes)
    talk.send(pb.ClientMessage(ping=ping))
    pong = talk.hear().pong
    assert (pong.id, len(pong.padding)) == (9, nbytes)
    assert 0 < pong.received_s <= pong.sent_s


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_unary_request_gets_the_same_answer(
    client: Client, small: Partition, k: int
) -> None:
    tensors = [
        pb.Tensor(name=name, payload=encode_bytes(codec("lossless"), array))
        for name, array in client.crossing(k).items()
    ]
    hello = pb.Hello(model="small", partition_digest=small.digest)
    reply = client.stub.Infer(
        pb.InferRequest(hello=hello, first_segment=k, tensors=tensors), timeout=10
    )
    (output,) = reply.tensors
    assert output.name == "y"
    array = decode(output.payload, small.specs["y"], max_nbytes=1 << 20)
    assert np.array_equal(array, client.whole)
    assert reply.timings.tail_s > 0


@pytest.mark.parametrize("name", ["", "small"])
def test_a_description_lets_an_edge_cut_alike(
    client: Client, small: Partition, name: str
) -> None:
    description = read_description(client.stub.Describe(pb.DescribeRequest(model=name)))
    (model,) = description.models
    assert description.server.startswith("midstream ")
    assert (model.name, model.partition_digest) == ("small", small.digest)
    assert model.graph_digest == small.graph_digest
    assert {"raw", "lossless"} <= set(model.codecs)
    assert [cut.id for cut in model.cuts] == [cut.id for cut in small.cuts]
    for k, (described, cut) in enumerate(zip(model.cuts, small.cuts, strict=True)):
        assert head_of(described.head_runs, node_count=6) == cut.head
        assert described.tensors == small.crossing(k)


def test_health_says_serving(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", SERVICE):
        reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service(client: Client) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (reply,) = stub.ServerReflectionInfo(iter([ask]), timeout=10)
    names = {service.name for service in reply.list_services_response.service}
    assert SERVICE in names
