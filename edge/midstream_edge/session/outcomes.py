"""Errors of requests that get no answer. Pure: errors in, errors out."""

from __future__ import annotations

from concurrent.futures import CancelledError

from midstream_wire.errors import (
    CloudRefused,
    CloudUnavailable,
    DeadlineExceeded,
    EdgeFailed,
    MidstreamError,
    PeerError,
    ResourceError,
)
from midstream_wire.foreign_text import one_line


def outcome_of(error: BaseException) -> Exception:
    """`error` as whoever waits for the answer is told of it."""
    if isinstance(error, MidstreamError | CancelledError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return CancelledError("the program was interrupted")
    text = one_line(str(error))
    failed: MidstreamError = EdgeFailed(
        "the edge must be able to run every part of a request, but one raised "
        f"{type(error).__name__}{f' ({text})' if text else ''}: see what that is the cause of"
    )
    if isinstance(error, MemoryError):
        failed = ResourceError(
            "a request must find memory on the edge, but there was none: let fewer be under "
            "way, or hold fewer segments"
        )
    failed.__cause__ = error
    return failed


def unanswered(pause_s: float) -> CloudUnavailable:
    """Return what fails a request that is not sent, since those before had no reply."""
    return CloudUnavailable(
        "the server is connected and has not replied to the last requests: it is asked again "
        f"in {pause_s:.1f} s"
    )


def late(what: str) -> DeadlineExceeded:
    """The cloud was given up because `what`."""
    return DeadlineExceeded(
        f"the cloud must answer while the edge can still finish in time, but {what}: "
        "allow more time, or plan another cut"
    )


def no_room(waited_s: float) -> DeadlineExceeded:
    """Too many requests were under way for too long."""
    return DeadlineExceeded(
        "a request must find room among those under way while the edge can still finish in "
        f"time, but there was none within {waited_s:.3g} s: ask more seldom, or allow more "
        "time"
    )


def no_turn() -> DeadlineExceeded:
    """The edge was busy with other requests until the deadline."""
    return DeadlineExceeded(
        "a request must begin before its deadline, but the edge was busy with others until "
        "then: ask more seldom, or allow more time"
    )


def unaided(error: Exception, *, held: int, segment_count: int) -> Exception:
    """`error`, on an edge that holds `held` segments only and cannot finish alone."""
    if not isinstance(error, PeerError | DeadlineExceeded):
        return error
    text = (
        f"{error}; this edge holds {held} of {segment_count} segments and cannot finish alone"
    )
    if isinstance(error, CloudRefused):
        return CloudRefused(error.code, text)
    kind = DeadlineExceeded if isinstance(error, DeadlineExceeded) else CloudUnavailable
    return kind(text)
