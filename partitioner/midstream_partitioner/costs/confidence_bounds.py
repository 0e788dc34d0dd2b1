"""One-sided confidence bounds: what a sample lets one say of all inputs.

A planner picks the smallest of many codecs that keep to a budget. Held against point
estimates, it would pick the luckiest one; so budgets are held against these bounds.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, lgamma, log, log1p, sqrt
from statistics import NormalDist

#: How sure a bound is, for one codec at one cut: it errs in at most one sample of twenty.
CONFIDENCE = 0.95

_Z = NormalDist().inv_cdf(CONFIDENCE)
_TINY = 1e-300


@lru_cache(4096)
def share_at_least(share: float, samples: int) -> float:
    """The lower bound of a share of which `share` was found in `samples` samples.

    The bound of C. Clopper and E. Pearson, "The use of confidence or fiducial limits
    illustrated in the case of the binomial", Biometrika 26 (1934). Samples may count in part.
    """
    held = share * samples
    low, high = 0.0, share
    for _ in range(30):
        middle = (low + high) / 2
        if _beta(middle, held, samples - held + 1) > 1 - CONFIDENCE:
            high = middle
        else:
            low = middle
    return low


def mean_at_most(mean: float, square: float, samples: int) -> float:
    """The upper bound of the mean of paired differences within [-1, 1].

    `mean` and `square` are those of the differences and of their squares. One difference of 1
    and one of -1 are added, so that a sample without any difference proves no more than it
    can (D. Bonett and R. Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", J. Educ. Behav. Stat. 37, 2012).
    """
    count = samples + 2
    centre = mean * samples / count
    spread = (square * samples + 2) / count - centre**2
    return centre + _Z * sqrt(max(spread, 0.0) / count)


def samples_for_share(least: float) -> float:
    """Return how many samples show a share of at least `least`, if every one of them
    agrees.
    """
    if least >= 1:
        return float("inf")
    return max(1, ceil(log(1 - CONFIDENCE) / log(least))) if least > 0 else 1


def samples_for_mean(most: float) -> float:
    """Return how many samples show a mean of at most `most`, if no two of them differ."""
    return max(1, ceil(_Z * sqrt(2) / most) - 2) if most > 0 else float("inf")


def _beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or a <= 0:
        return 0.0 if a > 0 else 1.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _beta(1 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return front * value


def _away(value: float) -> float:
    """`value`, kept away from 0."""
    return value if abs(value) > _TINY else _TINY
