"""The engines of one session, one after the other, each over another partition.

    present:  A ─────────swap──▶ B ───────────────────
    retired:             A finishes what it has, then closes

A request belongs to the engine that admitted it, from its head to its answer. So a swap can
neither lose one nor answer it twice: the engine of the old partition takes no more, and those
who wait for room in it are sent on to the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import fields
from typing import final

from midstream_edge.session.answers import Answer, Stats
from midstream_edge.session.engine import CLOSE_S, Engine
from midstream_edge.session.inflight_table import Retired
from midstream_edge.session.threads import Crew, start_thread
from midstream_wire.allocator import release_freed_memory
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array


@final
class Handover:
    """Sends requests to the present engine. Methods may be called from any thread."""

    def __init__(self, engine: Engine, crew: Crew) -> None:
        self._present = engine
        self._crew = crew
        self._lock = threading.Lock()
        self._retiring: dict[threading.Thread, Engine] = {}
        self._before = Stats()  # of engines that are gone
        self._closed = False

    @property
    def present(self) -> Engine:
        """The engine that takes new requests."""
        return self._present

    @property
    def closed(self) -> bool:
        """Return True if no engine takes requests any more."""
        return self._closed

    @property
    def stats(self) -> Stats:
        """Counts since the session began."""
        with self._lock:
            engines = (self._present, *self._retiring.values())
            return _total(self._before, *(engine.stats for engine in engines))

    def submit(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None
    ) -> Future[Answer]:
        """As `Engine.submit`."""
        while True:
            try:
                return self._present.submit(inputs, deadline_s=deadline_s)
            except Retired:
                continue  # while this one waited for room; there is another one now

    def infer(self, inputs: Mapping[str, Array], *, deadline_s: float | None) -> Answer:
        """As `Engine.infer`."""
        while True:
            try:
                return self._present.infer(inputs, deadline_s=deadline_s)
            except Retired:
                continue

    def swap(self, engine: Engine) -> None:
        """Let `engine` take all requests from now on; the one before finishes what it has.

        Raises `UsageError` on a session that is closed, `ResourceError` without threads.
        """
        with self._lock:
            if self._closed:
                raise UsageError("a swap needs an open session, but this one is closed")
            old = self._present
            thread = threading.Thread(
                target=self._see_off, name="midstream-retire", daemon=True
            )
            start_thread(thread, "a swap")  # first: without one, nothing has changed
            self._retiring[thread] = old
            self._present = engine
            old.retire()

    def wait_swapped(self, timeout_s: float) -> bool:
        """Wait until what came before the last swap is over and freed; whether it was."""
        with self._lock:
            threads = tuple(self._retiring)
        for thread in threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in threads)

    def close(self) -> None:
        """End all of them, and the crew."""
        with self._lock:
            self._closed = True
            engines = (self._present, *self._retiring.values())
        for engine in engines:
            engine.close()
        self._crew.close(CLOSE_S)

    def _see_off(self) -> None:
        """Let an engine finish, close it, and give its memory back."""
        thread = threading.current_thread()
        with self._lock:  # until the swap is done
            old = self._retiring[thread]
        try:
            old.wait_idle()
            old.close()
        finally:
            with self._lock:
                del self._retiring[thread]
                self._before = _total(self._before, old.stats)
        del old
        release_freed_memory()


def _total(*counts: Stats) -> Stats:
    return Stats(
        **{each.name: sum(getattr(s, each.name) for s in counts) for each in fields(Stats)}
    )
