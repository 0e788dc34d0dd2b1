"""Real processes that speak JSON lines, started, heard, and surely ended.

The lab drives the very commands that a user types, as processes of their own; what they print
with `--json` is the interface.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, final

from midstream_partitioner.lifeline import heeded, tied
from midstream_wire.errors import MidstreamError, UsageError

#: The exit code of a command that was asked wrongly.
USAGE = 2
#: A process told to stop gets this long before it is killed.
STOP_S = 5.0


@final
class Process:
    """A Python module run as a process of its own; a context manager that ends it.

    `prefix` goes in front of the command line: what enters a network namespace, say.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], *, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._documents: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._complaints: deque[str] = deque(maxlen=20)
        with _undisturbed():
            # A session of its own: Ctrl-C reaches the parent alone, which then stops the
            # others in order instead of all of them dying at once with a message each.
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                **tied(environment()),
            )
            self._readers = [
                threading.Thread(target=read, name=f"{name}-reader", daemon=True)
                for read in (self._read_documents, self._read_complaints)
            ]
            for reader in self._readers:
                reader.start()
            _living.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def document(self, timeout_s: float) -> dict[str, Any]:
        """The next JSON line it prints; `MidstreamError` with its own words if none comes."""
        try:
            document = self._documents.get(timeout=timeout_s)
        except queue.Empty:
            raise MidstreamError(
                f"the {self.name} process must answer within {timeout_s:g} s, and did not: "
                "look at whether the machine is overloaded"
            ) from None
        if document is None:
            self._readers[1].join(STOP_S)
            raise self._end()
        return document

    def tell(self, line: str) -> None:
        """Give it a line on its standard input; one that has ended says so by `document`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _end(self) -> MidstreamError:
        """Return why it ended without a document: its own words, its own kind of failure."""
        said = " ".join(self._complaints).removeprefix("error: ") or "without a word"
        kind = UsageError if self._process.wait(STOP_S) == USAGE else MidstreamError
        return kind(f"the {self.name} process ended: {said}")

    def kill(self) -> None:
        """End it without warning, as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
            except BaseException:  # told to hurry by a second Ctrl-C
                self.kill()
                raise
        for reader in self._readers:
            reader.join(STOP_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        _living.discard(self)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read_documents(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                document = json.loads(line)
            except ValueError:
                self._complaints.append(line.strip())
            else:
                self._documents.put(document)
        self._documents.put(None)

    def _read_complaints(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._complaints.append(line.strip())


#: Started and not stopped: an interrupt may come between a process's start and its `with`.
_living: set[Process] = set()


@atexit.register
def stop_all() -> None:
    """End all that was started and not stopped, whichever thread uses it."""
    for process in list(_living):
        process.stop()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back what asks to end: in the middle of a start, nobody would know the child."""
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts are the main thread's
        return
    came: list[int] = []
    usual = {
        number: signal.signal(number, lambda told, _: came.append(told)) for number in heeded()
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for told in came:
            signal.raise_signal(told)


def environment() -> Mapping[str, str]:
    """The parent's, with the parent's import path and unwrapped messages."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "1000", "NO_COLOR": "1"}
