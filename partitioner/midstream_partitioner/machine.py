"""The cores, memory and descriptors this process may use, limits of containers included."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

#: Where control groups of version 2 and version 1 show their limits.
CGROUPS = Path("/sys/fs/cgroup")
#: Version 1 writes a number near 2^63 where there is no limit.
_UNLIMITED_NBYTES = 1 << 60


def usable_cores(root: Path = CGROUPS) -> int:
    """Return how many cores this process may keep busy, at least 1.

    The least of the processors it may run on (`taskset`, cpusets) and of its time quota, which
    a container gets from `--cpus`.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    for folder in _groups(root, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            cores = min(cores, max(1, int(quota)))
    return cores


def usable_memory_nbytes(root: Path = CGROUPS) -> int:
    """Return the memory that this process may fill; 0 if unknown."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        found = 0
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None and 0 < limit < _UNLIMITED_NBYTES:
                found = min(found or limit, limit)
    return found


def usable_descriptors() -> int:
    """Return how many descriptors this process may have open; 0 if unknown or unlimited."""
    if resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def allow_descriptors() -> None:
    """Let this process have as many descriptors as the system allows it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS promises more than it gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders whose limits hold for this process: its own group's and those above it.

    In a container the group's own folder is usually mounted as the root.
    """
    bases = {"": root, controller: root / controller}
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        base = bases[""] if not controllers else root / controllers
        if controllers and controller not in controllers.split(","):
            continue
        own = base / path.lstrip("/")
        yield from (each for each in (own, *own.parents) if each.is_relative_to(root))
    yield from bases.values()


def _cpu_quota(folder: Path) -> float | None:
    """Cores' worth of time per second that a group may use; None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    quota_us, period_us = (
        _number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    if quota_us is None or not period_us or quota_us <= 0:
        return None
    return quota_us / period_us


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):  # absent, or "max"
        return None
