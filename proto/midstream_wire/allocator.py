"""Keeping freed memory, so that megabytes need not be faulted in again for every message.

glibc gives blocks above 128 KiB, and whatever is free at the top of its heap, back to the
kernel as soon as they are freed. A message of 800 KB is copied a handful of times on its way
through protobuf and gRPC; with fresh pages for each copy, making its bytes took 1.5 ms and 753
page faults on a virtual machine, and 0.06 ms and none with the settings below.
"""

from __future__ import annotations

import ctypes
import platform

from midstream_wire.limits import MIB

# mallopt(3): the parameters' numbers are part of glibc's interface.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

#: Blocks up to this size come from the heap; the most that glibc takes on 64 bits.
_LARGEST_NBYTES = 32 * MIB

#: Free memory kept at the top of a heap: a few messages of the largest size, and no more,
#: since a process that has had its peak should not hold on to it for ever.
_KEPT_NBYTES = 64 * MIB


def keep_freed_memory() -> bool:
    """Set up the C library of this process; False where it is not glibc.

    For processes that are midstream's own: it concerns everything in the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, _LARGEST_NBYTES), (_TRIM_THRESHOLD, _KEPT_NBYTES))
    return bool(min(mallopt(*setting) for setting in settings) == 1)


def release_freed_memory() -> bool:
    """Give back to the kernel what is free anywhere in the heaps; False where not glibc.

    For the rare moment at which a process has dropped far more than it will need soon, such as
    a network's weights: the pages of 290 MB take 20 ms, and threads that allocate from the
    same heap wait for them.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))
