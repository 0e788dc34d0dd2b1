"""Ends what a process started when the process itself ends, however it ends.

A process that is killed without warning (SIGKILL, no memory left) runs no cleanup. So each of
its children holds the reading end of a pipe to which nobody writes: when the last writing end
closes, which the kernel sees to, the child ends itself. PR_SET_PDEATHSIG would also fire when
the thread that started the child ends, and exists on Linux alone.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: The signals that ask a process to end: Ctrl-C, `kill`, a terminal that was closed.
ENDING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)

#: How long a child that lost its parent may clean up before it is killed.
STOP_S = 5.0

_DESCRIPTOR = "MIDSTREAM_LIFELINE"


def heeded() -> tuple[signal.Signals, ...]:
    """The signals of `ENDING`, less SIGHUP where nohup(1) had it ignored."""
    return tuple(
        each
        for each in ENDING
        if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN
    )


def tied(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments of `subprocess.Popen` for a child that calls `follow_parent`."""
    reading = _pipe()[0]
    return {
        "env": {**environment, _DESCRIPTOR: str(reading)},
        "pass_fds": (reading,),
    }


def follow_parent() -> None:
    """End this process soon after the one that started it, if that used `tied`."""
    number = os.environ.pop(_DESCRIPTOR, None)
    if number is not None:
        _in_background(functools.partial(_read_end, int(number)))


def follow_pool() -> None:
    """Do the same in a worker of a `ProcessPoolExecutor`, as its initializer."""
    from multiprocessing import parent_process  # heavy, and only pools need it

    parent = parent_process()
    if parent is not None:
        _in_background(parent.join)


@functools.cache
def _pipe() -> tuple[int, int]:
    """One for all children: all of them read, and none is ever told anything."""
    return os.pipe()


def _read_end(descriptor: int) -> None:
    os.read(descriptor, 1)


def _in_background(wait: Any) -> None:
    threading.Thread(target=_end_after, args=(wait,), name="lifeline", daemon=True).start()


def _end_after(wait: Any) -> None:
    with suppress(OSError):
        wait()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_S)
        os.kill(os.getpid(), signal.SIGKILL)
