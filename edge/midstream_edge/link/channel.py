"""The gRPC shell of the edge: channels, and one Session stream with its two threads.

Nothing that a caller does here waits for gRPC without bound. A sync call with a deadline of
0.5 s blocked for 15 s on a cut link, and closing a channel waits for writes under way; so each
stream has a reader thread that hands frames over as they come, sending is a queue, closing
happens beside, and whoever wants to wait does so on a condition of its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from midstream_edge.link.diagnosis import examine
from midstream_edge.link.endpoint import KEEPALIVE_TIMEOUT_MS, Endpoint
from midstream_edge.link.failures import UNCLEAR, UNDIAGNOSED, classify_status, no_answer
from midstream_edge.link.tcp_handshakes import PeerAddress
from midstream_edge.link.tcp_info import UNSENT_NBYTES, Tap, TcpInfo, find_tap
from midstream_wire.descriptions import Description, Preparation, Readiness
from midstream_wire.errors import CloudUnavailable, PeerError
from midstream_wire.frames import ClientFrame, Hello, ServerFrame
from midstream_wire.messages import read_server, write_client
from midstream_wire.unary import read_description, read_readiness, write_preparation
from midstream_wire.v1 import midstream_pb2 as pb
from midstream_wire.v1.midstream_pb2_grpc import MidstreamStub

_LOG = logging.getLogger(__name__)


_SESSION = f"/{pb.DESCRIPTOR.services_by_name['Midstream'].full_name}/Session"

#: Streams wait a few milliseconds more or less, so that each one's socket can be told.
_marks = itertools.cycle(range(KEEPALIVE_TIMEOUT_MS + 1, KEEPALIVE_TIMEOUT_MS + 1000))

_unclosed: SimpleQueue[grpc.Channel] = SimpleQueue()


def close_beside(channel: grpc.Channel) -> None:
    """Close `channel` without waiting: on a cut link that takes until TCP gives up.

    Never raises: where no thread can be had, the next call's closes it, too.
    """
    _unclosed.put(channel)
    with suppress(RuntimeError, MemoryError):
        threading.Thread(target=_close_all, name="midstream-close", daemon=True).start()


def _close_all() -> None:
    with suppress(Empty):
        while True:
            _unclosed.get_nowait().close()


@final
class SharedChannel:
    """A channel, closed when the last stream on it is.

    Streams may share one: on a link with a long way, a fresh connection takes many round trips
    until it is as fast as one in use.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.mark_ms = next(_marks)
        self.channel = endpoint.open(mark_ms=self.mark_ms)
        self._lock = threading.Lock()
        self._users = 1

    def share(self) -> bool:
        """Return True if one more may use it, who then has to `release` it; False once
        closed.
        """
        with self._lock:
            self._users += self._users > 0
            return self._users > 0

    def release(self) -> None:
        """One of those who use it does so no more."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                close_beside(self.channel)


@final
class Stream:
    """One Session stream, on a channel of its own unless another's `shared` is given.

    `on_frame` gets every frame of the server, `on_end` then once what ended the stream; both
    are called on the reader thread with the stream itself first. Frames to send come as
    iterators, one after the other, and are pulled when the one before has been handed to the
    transport, so that encoding overlaps sending. The transport takes 64 KiB and the kernel
    `UNSENT_NBYTES` more than TCP has sent; the rest stays here and can still be dropped.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hello: Hello,
        *,
        on_frame: Callable[[Stream, ServerFrame], None],
        on_end: Callable[[Stream, PeerError], None],
        on_send: Callable[[], None] = lambda: None,
        shared: SharedChannel | None = None,
    ) -> None:
        """`on_send` is told of every `send`, on the caller's thread."""
        self._endpoint = endpoint
        self._on_send = on_send
        self._on_frame = on_frame
        self._on_end = on_end
        self._outgoing: SimpleQueue[Iterable[ClientFrame] | None] = SimpleQueue()
        self._outgoing.put([hello])
        self._tap: Tap | None = None
        self._tap_lock = threading.Lock()
        self._closed = False
        self.shared = (
            shared if shared is not None and shared.share() else SharedChannel(endpoint)
        )
        try:
            # Without serializers: `messages` leaves payloads where they lie.
            session = self.shared.channel.stream_stream(_SESSION)
            self._call = session(self._pull(), metadata=endpoint.metadata)
            threading.Thread(target=self._read, name="midstream-read", daemon=True).start()
        except BaseException:  # no thread to be had, here or in gRPC
            self._outgoing.put(None)
            self.shared.release()
            raise

    def send(self, frames: Iterable[ClientFrame]) -> None:
        """Queue `frames`. They must not raise; they are dropped if the stream ends first."""
        self.send_background(frames)
        self._on_send()

    def send_background(self, frames: Iterable[ClientFrame]) -> None:
        """As `send`, but it does not count as use."""
        self._outgoing.put(frames)

    def tcp_info(self) -> TcpInfo | None:
        """Return how the stream's own TCP connection stands, in microseconds of work.

        None before the first frame has come, after the end, and where the system does not
        tell. May be called from any thread.
        """
        tap = self._tap
        return None if tap is None else tap.read()

    @property
    def peer_address(self) -> PeerAddress | None:
        """Return where the server was reached; None where `tcp_info` is."""
        tap = self._tap
        return None if tap is None else tap.peer_address

    def close(self, *, abort: bool = False) -> None:
        """End the stream and its threads, without waiting for them.

        `abort` also drops what the kernel still has to deliver: on a link that was cut it
        would go first when the link is back. That ends all streams on the same channel.
        """
        with self._tap_lock:
            self._closed = True
            tap, self._tap = self._tap, None
        self._outgoing.put(None)
        self._call.cancel()
        if tap is not None:
            tap.abort() if abort else tap.close()
        self.shared.release()

    def _attach(self) -> None:
        """Find the socket, now that it stands."""
        tap = find_tap(self.shared.mark_ms)
        if tap is None:
            return
        tap.limit_unsent(UNSENT_NBYTES)
        with self._tap_lock:
            if not self._closed:
                self._tap = tap
                return
        tap.close()

    def _pull(self) -> Iterator[bytes]:
        while (frames := self._outgoing.get()) is not None:
            for frame in frames:
                yield write_client(frame)

    def _read(self) -> None:
        server = str(self._endpoint.address)
        error: PeerError = CloudUnavailable(
            f"the server at {server} must keep the session open, but it ended it: "
            "check the server's log"
        )
        attach = True
        try:
            for message in self._call:
                if attach:
                    attach = False
                    self._attach()
                self._on_frame(self, read_server(message))
        except grpc.RpcError as broken:
            # One that has stood needs no examination: it broke.
            error = _peer_error(self._endpoint, broken, examined=attach)
        except PeerError as broken:
            error = broken
        except Exception as broken:
            _LOG.exception("the stream to %s ends here", server)
            error = CloudUnavailable(
                f"the stream to {server} must be read, but that failed here "
                f"({type(broken).__name__}): it is opened again"
            )
        finally:
            self._outgoing.put(None)
            self._on_end(self, error)


def fetch_description(endpoint: Endpoint, *, model: str, timeout_s: float) -> Description:
    """The answer to Describe; raises `PeerError`."""

    def begin(channel: grpc.Channel) -> Any:
        stub = MidstreamStub(channel)
        request = pb.DescribeRequest(model=model)
        return stub.Describe.future(request, metadata=endpoint.metadata)

    return read_description(_ask(endpoint, begin, timeout_s))


def fetch_readiness(endpoint: Endpoint, asked: Preparation, *, timeout_s: float) -> Readiness:
    """The answer to Prepare; raises `PeerError`."""

    def begin(channel: grpc.Channel) -> Any:
        stub = MidstreamStub(channel)
        return stub.Prepare.future(write_preparation(asked), metadata=endpoint.metadata)

    return read_readiness(_ask(endpoint, begin, timeout_s))


def fetch_health(endpoint: Endpoint, *, timeout_s: float) -> bool:
    """Return True if the server says that it serves (grpc.health.v1); raises `PeerError`."""

    def begin(channel: grpc.Channel) -> Any:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        return stub.Check.future(request, metadata=endpoint.metadata)

    status = _ask(endpoint, begin, timeout_s).status
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


def _ask(endpoint: Endpoint, begin: Callable[[grpc.Channel], Any], timeout_s: float) -> Any:
    """The answer to a unary call on a channel of its own, within about `timeout_s`."""
    server = str(endpoint.address)
    channel = endpoint.open()
    try:
        # A deadline of the call itself would not bound a wait on a cut link; this does.
        return begin(channel).result(timeout_s)
    except grpc.FutureTimeoutError:
        raise no_answer(server, timeout_s) from None
    except grpc.RpcError as broken:
        raise _peer_error(endpoint, broken, examined=True) from None
    finally:
        close_beside(channel)


def _peer_error(endpoint: Endpoint, broken: grpc.RpcError, *, examined: bool) -> PeerError:
    """Return what the end of a call means. `examined`: the server is looked at where that
    helps.
    """
    assert isinstance(broken, grpc.Call)
    code: int = broken.code().value[0]
    look = examined and code in UNCLEAR
    finding = examine(endpoint.address, endpoint.tls) if look else UNDIAGNOSED
    return classify_status(str(endpoint.address), code, broken.details() or "", finding)
