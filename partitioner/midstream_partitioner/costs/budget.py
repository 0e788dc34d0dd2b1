"""Budgets of accuracy: what a codec may lose, judged by a calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any, final

from midstream_partitioner.costs.calibration import TOP1, Calibration, Fidelity
from midstream_partitioner.costs.confidence_bounds import (
    CONFIDENCE,
    samples_for_mean,
    samples_for_share,
)
from midstream_wire.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """The accuracy that may be given away; a bound that is None binds nothing.

    `max_loss` is in points of top-1 (or of the user's metric), `min_agreement` a share,
    `max_error` the relative L2 deviation of the worst sample. Raises `UsageError` for values
    out of range.
    """

    max_loss: float | None = None
    min_agreement: float | None = None
    max_error: float | None = None
    default: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for name, most in (("max_loss", 100.0), ("min_agreement", 1.0), ("max_error", 1e6)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise UsageError(f"{name} must be from 0 to {most:g} (not {value!r})")

    def __bool__(self) -> bool:
        """Return True if anything is bounded."""
        return (self.max_loss, self.min_agreement, self.max_error) != (None, None, None)

    def check(self, calibration: Calibration | None) -> None:
        """`UsageError` if `calibration` cannot tell what keeps to this budget."""
        if calibration is None or calibration.generated:
            raise UsageError(
                "a budget of accuracy needs a calibration on data: run `midstream calibrate "
                "PARTITION --data ...` and plan with that partition"
            )
        if self.max_loss is not None and calibration.metric is None:
            raise UsageError(
                "max_loss needs a calibration with labels or a metric: calibrate with "
                "--labels or --metric, or bound min_agreement or max_error instead"
            )

    def objection(
        self, row: Fidelity, found: Calibration, *, proven: bool = True
    ) -> str | None:
        """Return why `row` of `found` breaks the budget; None if it keeps to it.

        Agreement and loss must be `proven`, by their confidence bounds, or else hold in the
        samples. The worst deviation is always that of the samples.
        """
        loss, agreement = row.top1_loss, row.agreement
        if proven:
            loss, agreement = found.loss_at_most(row), found.agreement_at_least(row)
        sure = f"with {_percent(CONFIDENCE)} confidence on {found.samples} samples"
        if self.max_loss is not None and loss is not None and loss > self.max_loss + ROUNDING:
            if loss == inf:
                return "has a loss whose spread was not kept: run `midstream calibrate` again"
            bound = f", at most {loss:.3g} {sure}" if proven else ""
            return (
                f"loses {row.top1_loss:.3g} points of {found.metric or TOP1}{bound}, "
                f"{self.max_loss:g} allowed"
            )
        least = self.min_agreement
        if least is not None and agreement is not None and agreement < least - ROUNDING:
            bound = f", at least {_percent(agreement)} {sure}" if proven else ""
            return f"agrees in {_percent(row.agreement)}{bound}, {_percent(least)} asked for"
        worst = row.relative_l2_worst
        most = self.max_error
        if most is not None and worst is not None and worst > most + ROUNDING:
            return f"deviates by {worst:.3g} at worst, {most:g} allowed"
        return None

    def samples_needed(self, found: Calibration) -> float:
        """Return how many samples prove that a codec which changes no answer keeps to this."""
        needed = 1.0
        if self.max_loss is not None and found.metric is not None:
            needed = samples_for_mean(self.max_loss / 100)
        if self.min_agreement is not None:
            needed = max(needed, samples_for_share(self.min_agreement))
        return needed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "max_loss": self.max_loss,
            "min_agreement": self.min_agreement,
            "max_error": self.max_error,
            "default": self.default,
        }

    def describe(self, metric: str | None) -> str:
        """ "at most 0.5 points of top-1 lost, at least 98.5 % agreement"."""
        said = []
        if self.max_loss is not None:
            said.append(f"at most {self.max_loss:g} points of {metric or 'top-1'} lost")
        if self.min_agreement is not None:
            said.append(f"at least {_percent(self.min_agreement)} agreement")
        if self.max_error is not None:
            said.append(f"at most {self.max_error:g} relative L2 at worst")
        return ", ".join(said) or "nothing bounded"


#: Shares and points are quotients: 99 of 100 must pass for 99 %.
ROUNDING = 1e-9


#: What is kept to when nothing was asked, by what the calibration knows
#: (docs/explanation/codecs.md).
#: Agreement bounds the loss from above, and a sample shows it far better.
LABELLED = Budget(max_loss=1.0, min_agreement=0.97, default=True)


BY_METRIC = Budget(max_loss=1.0, default=True)


UNLABELLED = Budget(min_agreement=0.97, max_error=0.1, default=True)


def default_budget(calibration: Calibration) -> Budget:
    """The budget for a plan that names none, over a calibration on data."""
    if calibration.metric is None:
        return UNLABELLED
    return LABELLED if calibration.metric == TOP1 else BY_METRIC


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.4g} %"
