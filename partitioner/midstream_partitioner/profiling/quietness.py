"""Signs that a machine did other work while it was measured: then its times are too long."""

from __future__ import annotations

import os
from collections.abc import Sequence

from midstream_partitioner.costs.profile import LayerProfile, Profile, Stat

#: On a quiet machine the slowest tenth of runs takes up to so much longer than the median.
MOST_SPREAD = 0.3
#: Beside others' load, a measurement is one of its own: a load above the number of processors
#: means that somebody had to wait.
MOST_LOAD = 1.0


def disturbance(
    measured: Profile | LayerProfile, *, load: float | None = None, processors: int = 0
) -> str | None:
    """Say in one sentence why `measured` may be too slow; None where nothing tells so.

    `load` is the machine's load average over the last minute and `processors` how many it has;
    read from the system if not given, and left out where it does not tell.
    """
    stats = (measured.whole,) if isinstance(measured, LayerProfile) else measured.segments
    spread = _spread(stats)
    load = _load() if load is None else load
    processors = processors or os.cpu_count() or 1
    signs = []
    if load is not None and load > MOST_LOAD * processors:
        signs.append(f"a load average of {load:.1f} on {processors} processors")
    if spread > MOST_SPREAD:
        signs.append(f"a tenth of the runs took over {spread:.0%} longer than the median")
    if not signs:
        return None
    return (
        f"this machine was busy while it was measured ({'; '.join(signs)}), so plans will "
        "expect too much time: measure again when nothing else runs"
    )


def _spread(stats: Sequence[Stat]) -> float:
    """By how much the 90th percentiles exceed the medians, in parts of these."""
    median_s = sum(stat.median_s for stat in stats)
    return sum(stat.high_s for stat in stats) / median_s - 1 if median_s > 0 else 0.0


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not a POSIX system, or none that tells
        return None
