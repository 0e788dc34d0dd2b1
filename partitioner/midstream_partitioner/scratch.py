"""Temporary folders that go with the process that made them, also when it is killed."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

#: Reads the names of folders, a line each; removes them when its standard input ends, which
#: the kernel sees to when the process that writes it ends.
_SWEEP = 'while IFS= read -r each; do set -- "$@" "$each"; done; exec rm -rf -- "$@"'


@final
class Scratch:
    """A new folder, which goes when nothing refers to this any more, or with the process."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        _sweeper.note(self.path)
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder for as long as the context is open."""
    scratch = Scratch(prefix)
    try:
        yield scratch.path
    finally:
        scratch.remove()


@final
class _Sweeper:
    """One small process that outlives this one and removes what it left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def note(self, folder: Path) -> None:
        """Have `folder` removed when this process ends; without a shell, it may stay."""
        line = bytes(folder) + b"\n"
        if line.count(b"\n") > 1:
            return  # its parts may be the names of other folders
        with self._lock, suppress(OSError):
            if self._process is None:
                self._process = self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(line)

    def _start(self) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            ["/bin/sh", "-c", _SWEEP, "sweep"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # what ends this process may go to all of its group
        )
        atexit.register(_end, started)
        return started


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it do its work now, so that nothing is left when this process has ended."""
    process.communicate()


_sweeper = _Sweeper()
