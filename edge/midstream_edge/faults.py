"""Failures that belong to no request: counted, and logged without flooding."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import final

_log = logging.getLogger(__name__)

#: What the policy of a session gets wrong: it raises, or answers with what cannot be.
POLICY = "the policy"


@final
class Faults:
    """Failures of a session by what failed. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def note(self, what: str, error: BaseException) -> None:
        """Count a failure of `what`; the first, the tenth, the hundredth... are logged."""
        with self._lock:
            self._counts[what] += 1
            count = self._counts[what]
        if str(count).strip("0") == "1":
            _log.warning("%s failed (%d so far): %r", what, count, error, exc_info=error)

    def count(self, what: str) -> int:
        """Return how often `what` has failed."""
        with self._lock:
            return self._counts[what]


def is_interrupt(error: BaseException) -> bool:
    """Return True if `error` is Ctrl-C: it comes to the main thread, and is meant for the
    program.
    """
    main = threading.current_thread() is threading.main_thread()
    return main and isinstance(error, KeyboardInterrupt)
