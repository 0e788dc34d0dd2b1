from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientMessage(_message.Message):
    __slots__ = ("hello", "request", "more", "cancel", "ping")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    request: Request
    more: More
    cancel: Cancel
    ping: Ping
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., more: _Optional[_Union[More, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "reply", "more", "pong", "go_away")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reply: Reply
    more: More
    pong: Pong
    go_away: GoAway
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., more: _Optional[_Union[More, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("model", "partition_digest", "client", "codecs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PARTITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    model: str
    partition_digest: str
    client: str
    codecs: _containers.RepeatedCompositeFieldContainer[CodecName]
    def __init__(self, model: _Optional[str] = ..., partition_digest: _Optional[str] = ..., client: _Optional[str] = ..., codecs: _Optional[_Iterable[_Union[CodecName, _Mapping]]] = ...) -> None: ...

class CodecName(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("server", "max_request_nbytes", "max_in_flight", "keepalive_s", "codecs")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_NBYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    KEEPALIVE_S_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    server: str
    max_request_nbytes: int
    max_in_flight: int
    keepalive_s: float
    codecs: _containers.RepeatedCompositeFieldContainer[CodecAnswer]
    def __init__(self, server: _Optional[str] = ..., max_request_nbytes: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., keepalive_s: _Optional[float] = ..., codecs: _Optional[_Iterable[_Union[CodecAnswer, _Mapping]]] = ...) -> None: ...

class CodecAnswer(_message.Message):
    __slots__ = ("name", "refusal")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    refusal: str
    def __init__(self, name: _Optional[str] = ..., refusal: _Optional[str] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "first_segment", "budget_s", "tensors", "pieces", "transform")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    id: int
    first_segment: int
    budget_s: float
    tensors: _containers.RepeatedScalarFieldContainer[str]
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    transform: str
    def __init__(self, id: _Optional[int] = ..., first_segment: _Optional[int] = ..., budget_s: _Optional[float] = ..., tensors: _Optional[_Iterable[str]] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., transform: _Optional[str] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("tensor", "data")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tensor: int
    data: bytes
    def __init__(self, tensor: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class More(_message.Message):
    __slots__ = ("id", "pieces")
    ID_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    id: int
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    def __init__(self, id: _Optional[int] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "status", "tensors", "pieces", "timings")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: _status_pb2.Status
    tensors: _containers.RepeatedScalarFieldContainer[str]
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    timings: ServerTimings
    def __init__(self, id: _Optional[int] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., tensors: _Optional[_Iterable[str]] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., timings: _Optional[_Union[ServerTimings, _Mapping]] = ...) -> None: ...

class ServerTimings(_message.Message):
    __slots__ = ("received_s", "finished_s", "queue_s", "decode_s", "tail_s")
    RECEIVED_S_FIELD_NUMBER: _ClassVar[int]
    FINISHED_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    TAIL_S_FIELD_NUMBER: _ClassVar[int]
    received_s: float
    finished_s: float
    queue_s: float
    decode_s: float
    tail_s: float
    def __init__(self, received_s: _Optional[float] = ..., finished_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., tail_s: _Optional[float] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("id", "padding", "reply_nbytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    REPLY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    id: int
    padding: bytes
    reply_nbytes: int
    def __init__(self, id: _Optional[int] = ..., padding: _Optional[bytes] = ..., reply_nbytes: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("id", "padding", "received_s", "sent_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_S_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    id: int
    padding: bytes
    received_s: float
    sent_s: float
    def __init__(self, id: _Optional[int] = ..., padding: _Optional[bytes] = ..., received_s: _Optional[float] = ..., sent_s: _Optional[float] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: _status_pb2.Status
    def __init__(self, reason: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "payload")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload: bytes
    def __init__(self, name: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("hello", "first_segment", "tensors", "transform")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    first_segment: int
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    transform: str
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., first_segment: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., transform: _Optional[str] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("tensors", "timings")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    timings: ServerTimings
    def __init__(self, tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., timings: _Optional[_Union[ServerTimings, _Mapping]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("server", "models")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    server: str
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, server: _Optional[str] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "graph_digest", "partition_digest", "cuts", "codecs", "profile", "feed", "own_codecs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRAPH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FEED_FIELD_NUMBER: _ClassVar[int]
    OWN_CODECS_FIELD_NUMBER: _ClassVar[int]
    name: str
    graph_digest: str
    partition_digest: str
    cuts: _containers.RepeatedCompositeFieldContainer[CutDescription]
    codecs: _containers.RepeatedScalarFieldContainer[str]
    profile: str
    feed: _containers.RepeatedCompositeFieldContainer[FeedField]
    own_codecs: _containers.RepeatedCompositeFieldContainer[CodecName]
    def __init__(self, name: _Optional[str] = ..., graph_digest: _Optional[str] = ..., partition_digest: _Optional[str] = ..., cuts: _Optional[_Iterable[_Union[CutDescription, _Mapping]]] = ..., codecs: _Optional[_Iterable[str]] = ..., profile: _Optional[str] = ..., feed: _Optional[_Iterable[_Union[FeedField, _Mapping]]] = ..., own_codecs: _Optional[_Iterable[_Union[CodecName, _Mapping]]] = ...) -> None: ...

class FeedField(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class CutDescription(_message.Message):
    __slots__ = ("id", "head_runs", "tensors", "transforms")
    ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_RUNS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMS_FIELD_NUMBER: _ClassVar[int]
    id: str
    head_runs: _containers.RepeatedScalarFieldContainer[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorDescription]
    transforms: _containers.RepeatedCompositeFieldContainer[TransformDescription]
    def __init__(self, id: _Optional[str] = ..., head_runs: _Optional[_Iterable[int]] = ..., tensors: _Optional[_Iterable[_Union[TensorDescription, _Mapping]]] = ..., transforms: _Optional[_Iterable[_Union[TransformDescription, _Mapping]]] = ...) -> None: ...

class TransformDescription(_message.Message):
    __slots__ = ("name", "tensors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensors: _containers.RepeatedCompositeFieldContainer[TensorDescription]
    def __init__(self, name: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[TensorDescription, _Mapping]]] = ...) -> None: ...

class TensorDescription(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[str]] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("model", "graph_digest", "partition_digest", "heads")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GRAPH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARTITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    model: str
    graph_digest: str
    partition_digest: str
    heads: _containers.RepeatedCompositeFieldContainer[Head]
    def __init__(self, model: _Optional[str] = ..., graph_digest: _Optional[str] = ..., partition_digest: _Optional[str] = ..., heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, runs: _Optional[_Iterable[int]] = ...) -> None: ...

class PrepareReply(_message.Message):
    __slots__ = ("ready", "partition_digest")
    READY_FIELD_NUMBER: _ClassVar[int]
    PARTITION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    partition_digest: str
    def __init__(self, ready: bool = ..., partition_digest: _Optional[str] = ...) -> None: ...
