"""Results of a verification: one check a cut, and all of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, final

from midstream_partitioner.backends.backend import DEFAULT_NAME


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One cut, over all inputs: the worst error and the largest payload.

    `relative_error` is the largest difference over all outputs, each relative to the output's
    own largest magnitude; infinite where the split gave no answer. `absolute_error` is the
    largest difference itself. `argmax_equal` says whether the largest entries stand where they
    should; those within the tolerance of each other may change places. `failure` says why the
    cut does not pass, and is None if it does.
    """

    cut: str
    label: str
    raw_nbytes: int
    payload_nbytes: int
    relative_error: float
    argmax_equal: bool
    failure: str | None
    absolute_error: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification: what was checked, and what came of it.

    `own_rounding` is how far the unsplit network lies from itself, computed in other ways; it
    is measured only where a cut differs by more than `compare.EXACT`. `silent` outputs held no
    number on any input, so nothing was compared there. `planned` cuts were to be checked.
    `random_operators` draw numbers: two runs of the network differ by themselves.
    """

    codec: str
    tolerance: float | None
    rows: tuple[Check, ...]
    planned: int = 0
    own_rounding: float | None = None
    silent: tuple[str, ...] = ()
    random_operators: tuple[str, ...] = ()
    backend: str = DEFAULT_NAME

    @property
    def checked(self) -> int:
        return len(self.rows)

    @property
    def interrupted(self) -> bool:
        """Return True if cuts are left that were to be checked."""
        return self.checked < self.planned

    @property
    def max_absolute_error(self) -> float:
        return max((row.absolute_error for row in self.rows), default=0.0)

    @property
    def max_relative_error(self) -> float:
        return max((row.relative_error for row in self.rows), default=0.0)

    @property
    def argmax_equal(self) -> bool:
        return all(row.argmax_equal for row in self.rows)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(row for row in self.rows if row.failure is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an error that is not finite is null."""
        return {
            "codec": self.codec,
            "backend": self.backend,
            "tolerance": self.tolerance,
            "own_rounding": self.own_rounding,
            "cuts": max(self.planned, self.checked),
            "checked": self.checked,
            "max_relative_error": finite(self.max_relative_error),
            "max_absolute_error": finite(self.max_absolute_error),
            "argmax_equal": self.argmax_equal,
            "silent_outputs": list(self.silent),
            "random_operators": list(self.random_operators),
            "failures": [{"cut": row.cut, "reason": row.failure} for row in self.failures],
            "rows": [
                asdict(row)
                | {
                    "relative_error": finite(row.relative_error),
                    "absolute_error": finite(row.absolute_error),
                }
                for row in self.rows
            ],
        }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
