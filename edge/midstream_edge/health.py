"""Asking a server whether it is serving (grpc.health.v1)."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from midstream_edge.channel import Dial, close_beside, verdict_of
from midstream_edge.verdicts import silence
from midstream_wire.errors import CloudUnavailable

TIMEOUT_S = 3.0


def check_health(dial: Dial, *, timeout_s: float = TIMEOUT_S) -> None:
    """Return if the server at `dial` is serving; raise a `PeerError` if it is not."""
    server = str(dial.address)
    channel = dial.open()
    try:
        call = health_pb2_grpc.HealthStub(channel).Check.future(
            health_pb2.HealthCheckRequest(), timeout=timeout_s, metadata=dial.metadata
        )
        status = call.result(timeout_s).status
    except (FutureTimeout, grpc.FutureTimeoutError):
        raise silence(server, timeout_s) from None
    except grpc.RpcError as broken:
        raise verdict_of(server, broken) from None
    finally:
        close_beside(channel)
    if status != health_pb2.HealthCheckResponse.SERVING:
        raise CloudUnavailable(f"{server} must be serving, and is draining: try again later")
