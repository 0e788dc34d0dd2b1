"""Fusing what a plan that stays keeps running, in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import final

from midstream_wire.errors import MidstreamError
from midstream_wire.tensors import Array

_LOG = logging.getLogger(__name__)

#: Segments [first, last).
Span = tuple[int, int]


@final
class Fuser:
    """Has the span fused that `after` runs in a row have asked for, and the one before undone.

    `fuse` gets the span and what the last of these runs was given; it is called on a thread of
    its own, one at a time, and `unfuse` after it. A span that cannot be fused is not tried
    again before another has been. Methods may be called from any thread.
    """

    def __init__(
        self,
        after: int,
        *,
        fuse: Callable[[Span, Mapping[str, Array]], None],
        unfuse: Callable[[Span], None],
    ) -> None:
        self._after = after
        self._fuse = fuse
        self._unfuse = unfuse
        self._lock = threading.Lock()
        self._latest: Span | None = None
        self._in_a_row = 0
        self._settled: Span | None = None  # what was fused, or tried, last
        self._fused: Span | None = None
        self._thread: threading.Thread | None = None

    def note(self, span: Span, state: Mapping[str, Array]) -> None:
        """A run of `span` on `state` has ended. Single segments do not count."""
        if span[1] - span[0] < 2:
            return
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if span == self._latest else 1
            self._latest = span
            if self._in_a_row < self._after or span == self._settled or self._thread:
                return
            self._settled = span
            thread = threading.Thread(
                target=self._work, args=(span, dict(state)), name="midstream-fuse", daemon=True
            )
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:  # the run itself has gone well
                _LOG.warning("segments %d to %d stay apart: %s", span[0], span[1] - 1, error)
            else:
                self._thread = thread

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is being fused; whether that came about in time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _work(self, span: Span, state: Mapping[str, Array]) -> None:
        try:
            if self._fused is not None:
                self._unfuse(self._fused)  # first: the memory of two is not to be had
                self._fused = None
            self._fuse(span, state)
            self._fused = span
        except Exception as error:  # whatever it is, they go on running apart
            unexpected = not isinstance(error, MidstreamError)
            _LOG.warning(
                "segments %d to %d stay apart: %s",
                span[0],
                span[1] - 1,
                error,
                exc_info=unexpected,
            )
        finally:
            with self._lock:
                self._thread = None
