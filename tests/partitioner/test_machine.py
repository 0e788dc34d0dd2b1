"""What the machine lets a process have, also where it has no such limits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from midstream_partitioner import machine
from midstream_partitioner.machine import allow_descriptors, usable_descriptors

#: Modules of the standard library that only POSIX systems have.
_POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")


def test_the_soft_limit_on_descriptors_becomes_the_hard_one() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fewer = min(64, before[0])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fewer, before[1]))
        assert usable_descriptors() == fewer
        allow_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= fewer
        assert usable_descriptors() in (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_system_without_such_limits_has_none_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "resource", None)
    allow_descriptors()
    assert usable_descriptors() == 0


@pytest.mark.parametrize(
    "module",
    ["midstream_edge.session.session", "midstream_cloud.server", "midstream.cli.main"],
)
def test_both_sides_load_where_modules_of_posix_are_missing(module: str) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({_POSIX})); import {module}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
