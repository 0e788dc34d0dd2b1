"""The inside of a backend's process: commands as JSON lines on stdin, answers on stdout.

The process ends when its stdin closes or its parent dies, whichever it notices first: a child
of the parent may have inherited the pipe and hold it open.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, final

from midstream_wire.errors import MidstreamError, UsageError

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]
#: Above every ordinary process, and below what an administrator made urgent.
PRIORITY = 20
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


@final
class Control:
    """Reads commands without ever waiting for them, so that a loop may ask it in between."""

    def __init__(self) -> None:
        os.set_blocking(0, False)
        self._rest = b""
        self._parent_fd = -1
        if sys.platform == "linux":
            self._parent_fd = os.pidfd_open(os.getppid())
        self.fds: tuple[int, ...] = (0,) if self._parent_fd < 0 else (0, self._parent_fd)

    def hear(self, fd: int, take: Callable[[Mapping[str, Any]], None]) -> bool:
        """Pass on the commands that `fd` brought; false when it is time to end."""
        if fd == self._parent_fd:
            return False
        with contextlib.suppress(BlockingIOError):
            data = os.read(0, 1 << 20)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                take(json.loads(line))
        return True

    def serve(self, fd: int, handlers: Mapping[str, Handler]) -> bool:
        """Do what `fd` brought and answer; false when it is time to end."""
        return self.hear(fd, lambda command: tell(_answer(command, handlers)))


def _answer(command: Mapping[str, Any], handlers: Mapping[str, Handler]) -> dict[str, Any]:
    try:
        return handlers[command["do"]](command)
    except MidstreamError as error:
        return complaint(error)


def complaint(error: MidstreamError) -> dict[str, Any]:
    return {"error": str(error), "usage": isinstance(error, UsageError)}


def tell(document: Mapping[str, Any]) -> None:
    """One line to the parent; if that is gone, the next read says so."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


def first_command() -> dict[str, Any]:
    """The line a process begins with; exits quietly if the parent is gone already."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 1 << 20)
        if not more:
            sys.exit(0)
        data += more
    document: dict[str, Any] = json.loads(data)
    return document


def hurry(priority: int = PRIORITY) -> bool:
    """Make this process punctual; says whether it got SCHED_FIFO, which takes privileges.

    Children do not inherit it. Without it, at least the timers' slack of 50 us goes.
    """
    gc.collect()
    gc.freeze()
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        return False
    return True
