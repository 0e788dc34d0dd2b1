"""A small network cut in the middle, a server that holds it, and a client of raw protobuf."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import grpc
import numpy as np
import onnx
import pytest
from google.rpc import code_pb2
from onnx import TensorProto, helper, numpy_helper
from tests.clock import Clock
from tests.cloud.gate import Gate

from midstream_cloud.repository import Model, Repository
from midstream_cloud.server import serving
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.address import Address
from midstream_wire.codecs import codec, decode, encode_bytes
from midstream_wire.tensors import Array
from midstream_wire.v1 import midstream_pb2 as pb
from midstream_wire.v1.midstream_pb2_grpc import MidstreamStub

_PATIENCE_S = 10.0


def _network() -> bytes:
    """conv - relu - conv - relu - gemm on [1, 3, 16, 16], seeded."""
    rng = np.random.default_rng(7)

    def weight(name: str, *shape: int) -> TensorProto:
        values = rng.standard_normal(shape).astype(np.float32) * 0.2
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["a1"], "relu1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["a2"], "relu2"),
        helper.make_node("Flatten", ["a2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [weight("w1", 8, 3, 3, 3), weight("w2", 4, 8, 3, 3), weight("w3", 1024, 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture(scope="session")
def small() -> Partition:
    """Three segments: cut behind each Relu."""
    network = load_network(_network(), name="small")
    cuts = [cut for cut in position_cuts(network.graph) if cut.tensors in (("a1",), ("a2",))]
    return partition(network, cuts)


@pytest.fixture(scope="session")
def picture() -> dict[str, Array]:
    return {"x": np.random.default_rng(3).standard_normal((1, 3, 16, 16)).astype(np.float32)}


@pytest.fixture(scope="session")
def model(small: Partition) -> Model:
    return Model("small", small, Chain(small))


@pytest.fixture(scope="session")
def whole(model: Model, picture: dict[str, Array]) -> Array:
    """What the whole chain answers to the picture."""
    return model.chain.run(picture, 0, len(model.partition.segments))["y"]


@pytest.fixture(scope="session")
def crossing(model: Model, picture: dict[str, Array]) -> Callable[[int], dict[str, Array]]:
    """What an edge that ran k segments sends."""
    return lambda k: model.chain.run(picture, 0, k)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A chain that waits to be let, and for nobody once the test is over."""
    gate = Gate()
    yield gate
    gate.let.release(100)


@pytest.fixture(scope="session")
def repository(model: Model) -> Repository:
    repository = Repository()
    repository.hold(model)
    return repository


@pytest.fixture(scope="session")
def server(repository: Repository) -> Iterator[Address]:
    with serving(repository) as address:
        yield address


@final
@dataclass
class Talk:
    """One Session stream, spoken in protobuf message by message."""

    stub: Any
    metadata: tuple[tuple[str, str], ...] = ()
    _outbox: queue.SimpleQueue[pb.ClientMessage | None] = field(
        default_factory=queue.SimpleQueue
    )

    def __post_init__(self) -> None:
        self.call = self.stub.Session(
            iter(self._outbox.get, None), timeout=_PATIENCE_S, metadata=self.metadata
        )

    def send(self, message: pb.ClientMessage) -> None:
        self._outbox.put(message)

    def hear(self) -> pb.ServerMessage:
        message: pb.ServerMessage = next(self.call)
        return message

    def ends(self) -> bool:
        """Whether the server closes the stream without another message."""
        return next(self.call, None) is None

    def half_close(self) -> None:
        self._outbox.put(None)

    def hello(self, digest: str, model: str = "small") -> pb.ServerMessage:
        self.send(pb.ClientMessage(hello=pb.Hello(model=model, partition_digest=digest)))
        return self.hear()

    def request(
        self, id: int, k: int, arrays: Mapping[str, Array], *, codec_id: str = "raw"
    ) -> None:
        pieces = [
            pb.Piece(tensor=index, data=encode_bytes(codec(codec_id), array))
            for index, array in enumerate(arrays.values())
        ]
        request = pb.Request(id=id, first_segment=k, tensors=list(arrays), pieces=pieces)
        self.send(pb.ClientMessage(request=request))

    def reply(self) -> pb.Reply:
        message = self.hear()
        assert message.WhichOneof("kind") == "reply", message
        return message.reply

    def refusal(self) -> tuple[int, int, str]:
        """Id, code and message of the reply that must come next and be an error."""
        reply = self.reply()
        assert reply.status.code != code_pb2.OK
        assert not reply.pieces
        return reply.id, reply.status.code, reply.status.message


@final
@dataclass(frozen=True)
class Client:
    """A plaintext or TLS channel with raw stubs, and checks that others build on."""

    channel: Any
    partition: Partition
    whole: Array
    crossing: Callable[[int], dict[str, Array]]

    @property
    def stub(self) -> Any:
        return MidstreamStub(self.channel)

    def silent(self) -> Talk:
        """A stream on which nothing was said yet."""
        return Talk(self.stub)

    def talk(self, metadata: tuple[tuple[str, str], ...] = ()) -> Talk:
        """A stream that said Hello and was welcome."""
        talk = Talk(self.stub, metadata)
        welcome = talk.hello(self.partition.digest)
        assert welcome.WhichOneof("kind") == "welcome", welcome
        return talk

    def output(self, reply: pb.Reply) -> Array:
        assert reply.status.code == code_pb2.OK, reply.status
        assert list(reply.tensors) == ["y"]
        payload = b"".join(piece.data for piece in reply.pieces)
        return decode(payload, self.partition.specs["y"], max_nbytes=1 << 20)

    def check(self, talk: Talk, *, id: int, k: int = 1) -> pb.Reply:
        """A good request gets the right answer on this stream."""
        talk.request(id, k, self.crossing(k))
        reply = talk.reply()
        assert reply.id == id
        assert np.array_equal(self.output(reply), self.whole)
        return reply

    def check_server(self) -> None:
        """The server still answers a good request of somebody else."""
        self.check(self.talk(), id=0)


@pytest.fixture
def connect(
    small: Partition, whole: Array, crossing: Callable[[int], dict[str, Array]]
) -> Iterator[Callable[..., Client]]:
    """Clients of any server, closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_client(
            address: Address,
            credentials: grpc.ChannelCredentials | None = None,
            options: Iterable[tuple[str, object]] = (),
        ) -> Client:
            channel = (
                grpc.secure_channel(address.target, credentials, options=list(options))
                if credentials
                else grpc.insecure_channel(address.target, options=list(options))
            )
            return Client(stack.enter_context(channel), small, whole, crossing)

        yield open_client


@pytest.fixture
def client(server: Address, connect: Callable[..., Client]) -> Client:
    return connect(server)
