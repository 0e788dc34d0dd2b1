"""Freed memory is kept where the C library lets one say so, and nothing breaks elsewhere."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from midstream_wire.allocator import keep_freed_memory

_PROGRAM = """
import resource
from midstream_wire.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        bytearray(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_blocks_are_not_faulted_in_again() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output(
        [sys.executable, "-c", _PROGRAM], timeout=60, env=environment
    )
    assert int(output) < 1000  # 50 times 1024 pages without it


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
