"""Hold what the tests run of each package against its floor.

    python tests/coverage_floors.py     # after a run with --cov: reads build/coverage

A floor is the last figure measured, less a point for what depends on the machine. Processes
that tests start are not counted: of `midstream`, the commands run in processes of their own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping

from coverage import Coverage
from coverage.exceptions import NoDataError

#: Least share of lines that the default suite runs, in percent.
FLOORS = {
    "midstream_wire": 96.0,
    "midstream_partitioner": 93.0,
    "midstream_edge": 96.0,
    "midstream_cloud": 93.0,
    "midstream_lab": 88.0,
    "midstream": 74.0,
}


def measured() -> Mapping[str, float]:
    """Return the share of lines that ran, in percent, by package."""
    found = Coverage()
    found.combine(keep=True)
    shares = {}
    for package in FLOORS:
        with tempfile.TemporaryFile("w") as ignored:
            shares[package] = found.report(include=[f"*/{package}/*"], file=ignored)
    return shares


def main() -> int:
    """Print every package's share; return 1 where one is below its floor."""
    try:
        shares = measured()
    except NoDataError:
        print("no coverage to judge: run the tests with --cov first (`make coverage`)")
        return 2
    low = []
    for package, share in shares.items():
        print(f"{package:24} {share:5.1f} % of lines, floor {FLOORS[package]:.0f} %")
        if share < FLOORS[package]:
            low.append(
                f"the tests must run {FLOORS[package]:.0f} % of {package} (not {share:.1f} %):"
                " test what is new, or lower the floor and say why"
            )
    print(*low, sep="\n", end="\n" if low else "")
    return bool(low)


if __name__ == "__main__":
    sys.exit(main())
