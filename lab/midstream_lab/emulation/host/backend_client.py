"""The outside of a backend's process: started, asked with JSON lines, and surely ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

from midstream_wire.errors import MidstreamError, UsageError

#: An answer takes less than this on a machine that is not overloaded.
ANSWER_S = 20.0
#: A process whose stdin has closed gets this long before it is killed.
STOP_S = 2.0


@final
class Child:
    """A module of this package as a process of its own; a context manager that ends it.

    May be asked from several threads. Raises `UsageError` and `MidstreamError` in its words.
    """

    def __init__(self, module: str) -> None:
        self._name = module.rpartition(".")[2]
        self._lock = threading.Lock()
        self._rest = b""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        # A session of its own: Ctrl-C is the parent's business, which closes the link after
        # those who use it. When the parent is gone, its end of stdin closes, too.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, command: Mapping[str, Any], *, timeout_s: float = ANSWER_S
    ) -> dict[str, Any]:
        """Send one line and wait for the one that answers it."""
        with self._lock:
            try:
                self._write(json.dumps(command).encode() + b"\n")
                answer = self._line(timeout_s)
            except (BrokenPipeError, ValueError):
                raise self._ended() from None
            except BaseException:
                self._process.kill()  # a late answer would pass for that to the next question
                raise
        if "error" in answer:
            raise (UsageError if answer.get("usage") else MidstreamError)(answer["error"])
        return answer

    def stop(self) -> None:
        """Close its stdin, which ends it; kill it if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except BaseException as interrupted:
            self._process.kill()
            self._process.wait()
            if not isinstance(interrupted, subprocess.TimeoutExpired):
                raise
        self._complaints.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        while data:
            data = data[self._process.stdin.write(data) :]

    def _line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        fd, until_s = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            readable, _, _ = select.select([fd], [], [], max(0.0, until_s - time.monotonic()))
            if not readable:
                raise MidstreamError(
                    f"the {self._name} process must answer within {timeout_s:g} s, and did "
                    "not: look at whether the machine is overloaded"
                )
            data = os.read(fd, 1 << 16)
            if not data:
                raise self._ended()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> MidstreamError:
        self._complaints.seek(0)
        words = self._complaints.read().decode(errors="replace").strip().splitlines()
        said = words[-1] if words else "without a word"
        return MidstreamError(f"the {self._name} process must live on, and ended: {said}")
