"""Constraints of a plan: codecs, cuts, memory, privacy and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

from midstream_partitioner.codec_spec import family_of, full_id, is_known
from midstream_partitioner.costs.budget import Budget, default_budget
from midstream_partitioner.costs.calibration import Calibration
from midstream_partitioner.graph.cuts import CLOUD_ONLY, Cut
from midstream_partitioner.graph.veils import secret_inputs
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.assess import Assessment
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.units import format_nbytes
from midstream_wire.errors import UsageError

#: Lossy codecs that a plan may choose unasked where no calibration tells what they cost: half
#: precision, and pictures as people send them anyway. All others are chosen only by name.
LOSSY_BY_DEFAULT = ("half", "jpeg", "webp", "avif")

PICTURES = ("jpeg", "webp", "avif")


@final
@dataclass(frozen=True, slots=True)
class Constraints:
    """The constraints of a plan. Raises `UsageError` for values out of range.

    `max_edge_nbytes` bounds the memory that segments take on the edge: what its profile has
    measured, else the weights in files. `min_depth` is the least number
    of layers that lose information between every input and all that is sent (`veils`). From 1
    on it is not the input one to one; it still reveals much of it. Inputs that are `public`,
    here or in the feed, may be sent.
    `forbidden` are shell patterns on cut ids, cut labels and names of tensors that would
    cross. `codecs` are the only ones allowed, where given; `lossless` leaves out all others.
    `max_payload_nbytes` bounds what is sent, at the 95th percentile where that is known.
    `refused` are families of codecs that the server does not take, and why so.

    `max_loss` (points of top-1, or of the user's metric), `min_agreement` (a share) and
    `max_error` (relative L2 of the worst sample) need a calibration on data.
    """

    max_edge_nbytes: int | None = None
    min_depth: int = 0
    public: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    deadline_s: float | None = None
    codecs: tuple[str, ...] | None = None
    lossless: bool = False
    max_payload_nbytes: int | None = None
    max_loss: float | None = None
    min_agreement: float | None = None
    max_error: float | None = None
    refused: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_edge_nbytes", "min_depth", "deadline_s", "max_payload_nbytes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(
                    f"{name} must be 0 or more (not {value!r}): correct the limit"
                )
        if self.codecs is not None:
            named = tuple(full_id(name) for name in self.codecs)
            object.__setattr__(self, "codecs", named)
        Budget(self.max_loss, self.min_agreement, self.max_error)  # raises

    def budget(self, calibration: Calibration | None) -> Budget | None:
        """The accuracy that may be given away, as far as a calibration can tell.

        What was asked for, or the default where nothing was: neither a bound, nor codecs by
        name, nor lossless ones. Raises `UsageError` for bounds without a calibration.
        """
        asked = Budget(self.max_loss, self.min_agreement, self.max_error)
        if asked:
            asked.check(calibration)
            return asked
        if calibration is None or calibration.generated or self.lossless or self.codecs:
            return None
        return default_budget(calibration)

    def secret_of(self, part: Partition) -> tuple[str, ...]:
        """The inputs of `part` that are not public; `UsageError` for names it lacks."""
        names = [spec.name for spec in part.inputs]
        return secret_inputs(names, self.public.union(part.feed.public))

    def objection(
        self,
        found: Assessment,
        budget: Budget | None = None,
        calibration: Calibration | None = None,
        *,
        secret: Sequence[str] = (),
    ) -> tuple[int, str] | None:
        """Return why the placement `found` may not be taken on any link; None if it may.

        `budget` is what `self.budget` gave for `calibration`, `secret` are the inputs that
        `min_depth` is about. The number tells how far the placement got: the higher, the
        nearer it was to being allowed.
        """
        if found.obstacle:
            return 0, found.obstacle
        placement = found.placement
        if placement.remote:
            if self.codecs is not None and placement.codec not in self.codecs:
                return 0, f"sends {placement.codec}, which is not among the codecs allowed"
            if not is_known(placement.codec):
                return 0, (
                    f"sends {placement.codec}, which this process does not have "
                    "(--codec-plugin loads one of your own; avif needs a Pillow with AVIF)"
                )
            refused = dict(self.refused).get(family_of(placement.codec))
            if refused is not None:
                return 1, f"sends {placement.codec}, which the server does not take: {refused}"
            if self.lossless and not placement.lossless:
                return 0, f"sends {placement.codec}, which is lossy"
            excess = self._excess(found, budget, calibration)
            if excess is not None:
                return excess
            patterns = self._forbidding(found.cut)
            if patterns:
                return 1, f"is forbidden by {patterns[0]!r}"
            depth = found.cut.depth_of(secret) if self.min_depth else 0
            if depth < self.min_depth:
                sent = f"layer {depth}" if depth else "a form of the input"
                sent = "the input itself" if found.cut.is_cloud_only else sent
                return 2, f"sends {sent}, layer {self.min_depth} or deeper asked for"
            most = self.max_payload_nbytes
            if most is not None and found.most_nbytes > most:
                sizes = format_nbytes(found.most_nbytes), format_nbytes(most)
                return 3, f"sends {sizes[0]}, {sizes[1]} allowed"
        if self.max_edge_nbytes is not None and found.edge_nbytes > self.max_edge_nbytes:
            held, limit = format_nbytes(found.edge_nbytes), format_nbytes(self.max_edge_nbytes)
            return 3, f"takes {held} of memory on the edge, {limit} allowed"
        return None

    def _excess(
        self, found: Assessment, budget: Budget | None, calibration: Calibration | None
    ) -> tuple[int, str] | None:
        """Return what `found` costs in accuracy beyond what is allowed, or what is known."""
        placement = found.placement
        if placement.lossless:
            return None
        if budget is not None and calibration is not None:
            if found.fidelity is not None:
                # What is allowed without any sample must not be lost by a small one.
                proven = not (budget.default and _default(placement))
                broken = budget.objection(found.fidelity, calibration, proven=proven)
                return None if broken is None else (1, broken)
            if not budget.default or placement.cut not in calibration.cuts:
                return 0, f"sends {placement.codec}, which is lossy and was not calibrated"
        if self.codecs is None and not _default(placement):
            return 0, f"sends {placement.codec}, which is lossy and was not named"
        return None

    def check_forbidden(self, part: Partition) -> None:
        """Raise `UsageError` for a pattern that is of no cut of `part`, as a misspelt one."""
        found = {each for cut in part.cuts for each in self._forbidding(cut)}
        for pattern in sorted(self.forbidden - found):
            known = [f"{cut.id} ({cut.label})" for cut in part.cuts if not cut.is_edge_only]
            raise UsageError(
                f"a cut that is forbidden must be one of {part.name} by its id, label or "
                f"tensor, and {pattern!r} is of none: its cuts are {', '.join(known)}"
            )

    def _forbidding(self, cut: Cut) -> list[str]:
        """The patterns that are of `cut`, in the order of their letters."""
        names = (cut.id, cut.label, *cut.tensors)
        return [
            pattern
            for pattern in sorted(self.forbidden)
            if any(fnmatchcase(name, pattern) for name in names)
        ]


UNCONSTRAINED = Constraints()


def _default(placement: Placement) -> bool:
    family = placement.codec.partition(":")[0]
    if family in PICTURES and placement.cut != CLOUD_ONLY:
        return False
    return placement.lossless or family in LOSSY_BY_DEFAULT
