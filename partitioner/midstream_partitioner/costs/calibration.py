"""Calibrations: bits and accuracy of every codec at every cut, on a user's samples.

A calibration belongs to one partition and lies beside it as calibration.json. A budget says
how much accuracy a plan may give away; the calibration says which codecs keep to it. What was
found in a sample is held against a budget with one-sided confidence bounds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from midstream_partitioner.costs.confidence_bounds import (
    mean_at_most,
    share_at_least,
)
from midstream_partitioner.costs.profile import CodecCost, Count, Seconds
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.text import read_text

FILE = "calibration.json"
#: What an interrupted calibration leaves beside the partition, to go on from.
PARTIAL_FILE = "calibration.partial.npz"

#: A relative deviation is never more than this: what it is where the whole network gives
#: zeros, or where one side gives a number and the other none.
MOST_DEVIATION = 1e6

_CONFIG = ConfigDict(extra="forbid", defer_build=True)
_Name = Annotated[str, Field(max_length=4096)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Deviation = Annotated[float, Field(ge=0, le=MOST_DEVIATION, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@final
@checked_dataclass(frozen=True, slots=True, config=_CONFIG)
class Fidelity:
    """The effect of `codec` at `cut`: the payload's size, and the change of the answers.

    Sizes are means per sample and the 95th percentile; bits are per element of the tensors
    that cross. The deviation of a sample's outputs is relative to the unsplit network's,
    ||y' - y|| / ||y||, of several outputs the largest; `cosine` and `agreement` are means over
    the samples, of several outputs the smallest, and `agreement` is the share of places whose
    largest entry along the last axis stays where it was. `top1` is the accuracy with this
    codec, or the mean of the user's metric, and the losses are in points (hundredths) of what
    the unsplit network reaches. Without data all of these are None; without labels or a
    metric, `top1` and the losses.

    `loss_square` is the mean square of a sample's loss, a share: of right answers gone wrong
    and wrong ones gone right. `encode_s` and `decode_s` are medians on the calibrating
    machine. Calibrations of earlier versions have none of these three.
    """

    cut: _Name
    codec: _Name
    payload_nbytes: Count
    payload_p95_nbytes: Count
    bits_per_element: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    relative_l2_mean: _Deviation | None = None
    relative_l2_worst: _Deviation | None = None
    cosine: Annotated[float, Field(ge=-1.001, le=1.001, allow_inf_nan=False)] | None = None
    agreement: _Share | None = None
    top1: _Finite | None = None
    top1_loss: _Finite | None = None
    top5_loss: _Finite | None = None
    loss_square: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    # No two runs take equal times, though all else is the same.
    encode_s: Seconds | None = field(default=None, compare=False)
    decode_s: Seconds | None = field(default=None, compare=False)


@final
@checked_dataclass(frozen=True, config=_CONFIG)
class Calibration:
    """The fidelity of every codec at every cut of the partition `partition_digest`.

    `data` says what it was measured on. `metric` is what `top1` means, "top-1" or the name of
    the user's function, and None where there were neither labels nor a metric; `whole` is the
    unsplit network's. Without data (`generated`) only the sizes mean anything.
    """

    graph_digest: _Digest
    partition_digest: _Digest
    data: _Name
    generated: bool
    samples: Annotated[int, Field(ge=1, lt=1 << 31)]
    metric: _Name | None
    whole: _Finite | None
    rows: tuple[Fidelity, ...]
    kind: Literal["calibration"] = "calibration"

    @cached_property
    def _index(self) -> dict[tuple[str, str], Fidelity]:
        return {(row.cut, row.codec): row for row in self.rows}

    def find(self, cut: str, codec: str) -> Fidelity | None:
        """Return what was measured of `codec` at the cut with the id `cut`, if anything
        was.
        """
        return self._index.get((cut, codec))

    @cached_property
    def cuts(self) -> frozenset[str]:
        """The ids of the cuts of which anything is known."""
        return frozenset(row.cut for row in self.rows)

    @property
    def codecs(self) -> tuple[str, ...]:
        """All codecs that were measured at any cut, in the order of measurement."""
        return tuple(dict.fromkeys(row.codec for row in self.rows))

    @property
    def costs(self) -> tuple[CodecCost, ...]:
        """Return what the codecs took on the calibrating machine, where that was kept."""
        return tuple(
            CodecCost(row.cut, row.codec, row.payload_nbytes, row.encode_s, row.decode_s)
            for row in self.rows
            if row.encode_s is not None and row.decode_s is not None
        )

    def within(self, partition_digest: str, known: Collection[tuple[str, str]]) -> Calibration:
        """Return what of this holds for another partition of the network, too: the rows of
        `known` (cut, codec).
        """
        rows = tuple(row for row in self.rows if (row.cut, row.codec) in known)
        return replace(self, partition_digest=partition_digest, rows=rows)

    def agreement_at_least(self, row: Fidelity) -> float | None:
        """The share of all answers that stay, at least, with confidence `CONFIDENCE`."""
        if row.agreement is None:
            return None
        return share_at_least(row.agreement, self.samples)

    def loss_at_most(self, row: Fidelity) -> float | None:
        """Points that are lost of all answers, at most, with confidence `CONFIDENCE`.

        `row` must tell a loss. Infinite where a calibration of an earlier version has a metric
        of its user, whose spread it did not keep; top-1 changes only where an answer does.
        """
        if row.top1_loss is None:
            return None
        square = row.loss_square
        if square is None and self.metric == TOP1 and row.agreement is not None:
            square = max(1 - row.agreement, abs(row.top1_loss) / 100)
        if square is None:
            return inf
        return 100 * mean_at_most(row.top1_loss / 100, square, self.samples)

    def to_json(self) -> str:
        return _CALIBRATION.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "the calibration") -> Calibration:
        """Parse what `to_json` wrote; `UsageError` naming the first wrong field."""
        try:
            return _CALIBRATION.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise UsageError(
                f"{source} must be a calibration as `midstream calibrate` writes it; {where}: "
                f"{first['msg'].lower()}: calibrate again"
            ) from None


_CALIBRATION = TypeAdapter(Calibration)


def save_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write `calibration` beside the partition in `folder`; what was partial is done."""
    path = folder / FILE
    path.write_text(calibration.to_json() + "\n", encoding="utf-8")
    (folder / PARTIAL_FILE).unlink(missing_ok=True)
    return path


def load_calibration(folder: Path, *, partition_digest: str) -> Calibration | None:
    """The calibration kept beside a partition, or None where there is none.

    Raises `UsageError` if it is malformed and `ModelError` if it is of another partition.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    found = Calibration.from_json(read_text(path, "a calibration"), source=str(path))
    if found.partition_digest != partition_digest:
        raise ModelError(
            f"{path} must be of the partition beside it, {partition_digest[:12]} (not "
            f"{found.partition_digest[:12]}): run `midstream calibrate {folder}` again, or "
            "remove the file"
        )
    return found


TOP1 = "top-1"
