"""Coroutines begun at once and without a task, for the one write that a reply usually is.

A task runs its first step in the event loop's next turn. When a tail has just swept the
caches, that turn and the task cost as much as all checks of a request together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, final


@final
class Eager:
    """Runs a coroutine up to where it waits, then on each time that what it waits for is done.

    `on_end` is told once, in the event loop, of None or of what the coroutine raised. The
    coroutine must not ask for its task, which it has not.
    """

    __slots__ = ("_coroutine", "_on_end")

    def __init__(
        self,
        coroutine: Coroutine[Any, None, None],
        on_end: Callable[[Eager, BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._on_end = on_end

    def step(self, _done: object = None) -> None:
        """Run to the next wait, or to the end."""
        try:
            awaited = self._coroutine.send(None)
        except StopIteration:
            self._on_end(self, None)
        except BaseException as error:
            self._on_end(self, error)
        else:
            if awaited is None:  # asyncio.sleep(0): a turn for others
                asyncio.get_running_loop().call_soon(self.step)
            else:
                awaited._asyncio_future_blocking = False  # taken notice of, as a task does
                awaited.add_done_callback(self.step)

    def close(self) -> None:
        """Give it up where it waits; it ends there and `on_end` is told nothing."""
        self._on_end = _unheard
        self._coroutine.close()


def _unheard(_eager: Eager, _error: BaseException | None) -> None:
    """Ignore the end of a coroutine that was given up."""
