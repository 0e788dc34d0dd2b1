"""Asking a server what it holds while the edge gets ready, and not for long if it is away."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import final

from midstream_edge.link.connection import REACH_S
from midstream_edge.link.describe import describe
from midstream_edge.link.diagnosis import require_reachable
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.failures import no_answer
from midstream_edge.session.threads import start_thread
from midstream_wire.descriptions import ModelDescription

#: A server nearby has answered by then, and nothing need be done for one that has not.
NEARBY_S = 0.25

Models = tuple[ModelDescription, ...]


@final
class Discovery:
    """A question to the server at `endpoint`, on a thread of its own from the beginning."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises `ResourceError` without a thread."""
        self._endpoint = endpoint
        self._until_s = time.monotonic() + REACH_S
        self._reached = threading.Event()  # or known to fail
        self._models: Future[Models] = Future()
        thread = threading.Thread(target=self._ask, name="midstream-discover", daemon=True)
        start_thread(thread, "asking a server")

    def glance(self) -> Models | None:
        """Return what a server nearby holds; None if it has not answered by then.

        Raises as `describe`.
        """
        try:
            return self._models.result(NEARBY_S)
        except FutureTimeout:
            return None

    def result(self) -> Models:
        """Return what the server holds, which may take as long as `describe` does.

        Raises as `describe`, and `CloudUnavailable` after `REACH_S` for one out of reach.
        """
        if not self._reached.wait(max(0.0, self._until_s - time.monotonic())):
            raise no_answer(str(self._endpoint.address), REACH_S)
        return self._models.result()

    def _ask(self) -> None:
        try:
            require_reachable(self._endpoint.address, REACH_S)
            self._reached.set()
            self._models.set_result(describe(self._endpoint))
        except Exception as error:
            self._models.set_exception(error)
        finally:
            self._reached.set()
